"""The table of blocks: what a space file can name, each built from operations.

A block adds nodes to a graph and returns the index of its output. To add a block, add one
function with `@block`; its keyword arguments are the settings that a space file may give.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from ghnas.architectures.graph import GraphBuilder, Shape, Template, record
from ghnas.architectures.ops import (
    Activation,
    AvgPool,
    BatchNorm,
    Bias,
    Concat,
    Conv,
    Extend,
    GlobalAveragePool,
    Linear,
    MaxPool,
    Shift,
    Sum,
    Zeros,
)


class Place(NamedTuple):
    """Where a block goes: the node it reads, its output channels, stride and parameter prefix."""

    source: int
    channels: int
    stride: int
    name: str


Block = Callable[..., int]
"""A function (graph, place, **settings) that adds nodes and returns the output's index."""


BLOCKS: dict[str, Block] = {}
"""Every block by the name that space files use."""


def block(name: str) -> Callable[[Block], Block]:
    """Enter a function into the table of blocks under `name`."""

    def register(function: Block) -> Block:
        BLOCKS[name] = function
        return function

    return register


def block_settings(name: str) -> dict[str, inspect.Parameter]:
    """The settings that a block takes, by name."""
    parameters = inspect.signature(BLOCKS[name]).parameters
    return {
        key: value
        for key, value in parameters.items()
        if value.kind is inspect.Parameter.KEYWORD_ONLY
    }


Settings = tuple[tuple[str, Any], ...]
"""A block's settings as pairs, so that they can be looked up."""


def add_block(graph: GraphBuilder, name: str, place: Place, settings: Settings = ()) -> int:
    """Add a block by its name; what it is made of is worked out once for each input shape."""
    source = place.source
    template = _template(name, place.channels, place.stride, graph.shape(source), settings)
    return graph.replay(template, source, place.name)


@lru_cache(maxsize=100_000)
def _template(name: str, channels: int, stride: int, shape: Shape, settings: Settings) -> Template:
    def build(graph: GraphBuilder, source: int) -> int:
        return BLOCKS[name](graph, Place(source, channels, stride, ""), **dict(settings))

    return record(shape, build)


def conv_bn(
    graph: GraphBuilder,
    place: Place,
    *,
    kernel: int = 1,
    depthwise: bool = False,
    dilation: int = 1,
    conv_name: str = "1",
    bn_name: str = "2",
) -> int:
    """Convolution and batch normalisation, named `{name}.{conv_name}` and `{name}.{bn_name}`."""
    conv = Conv(place.channels, kernel, place.stride, dilation, depthwise)
    x = graph.add(conv, place.source, name=f"{place.name}.{conv_name}")
    return graph.add(BatchNorm(), x, name=f"{place.name}.{bn_name}")


@block("relu_conv_bn")
def relu_conv_bn(graph: GraphBuilder, place: Place, *, kernel: int = 1) -> int:
    """ReLU, convolution, batch normalisation (DARTS)."""
    x = graph.add(Activation(), place.source)
    place = Place(x, place.channels, place.stride, f"{place.name}.op")
    return conv_bn(graph, place, kernel=kernel)


@block("factorized_reduce")
def factorized_reduce(graph: GraphBuilder, place: Place) -> int:
    """Halve the size, rounded up, with two 1x1 convolutions on interleaved positions (DARTS).

    Of an odd size the second one reads the last position in place of the one that is not there.
    """
    x = graph.add(Activation(), place.source)
    half = place.channels // 2
    first = graph.add(Conv(half, 1, 2), x, name=f"{place.name}.conv_1")
    shifted = graph.add(Shift(), _extended(graph, x, 2))
    rest = Conv(place.channels - half, 1, 2)
    second = graph.add(rest, shifted, name=f"{place.name}.conv_2")
    return graph.add(BatchNorm(), graph.add(Concat(), first, second), name=f"{place.name}.bn")


@block("skip")
def skip(graph: GraphBuilder, place: Place) -> int:
    """Identity; where the size is halved, a factorized reduction (DARTS)."""
    return place.source if place.stride == 1 else factorized_reduce(graph, place)


@block("identity")
def identity(graph: GraphBuilder, place: Place) -> int:
    """Identity; where the shape changes, a 1x1 convolution and batch normalisation
    (NAS-Bench-Macro)."""
    if place.stride == 1 and graph.shape(place.source)[0] == place.channels:
        return place.source
    return conv_bn(graph, place, conv_name="0", bn_name="1")


@block("zeros")
def zeros(graph: GraphBuilder, place: Place) -> int:
    """No connection."""
    return graph.add(Zeros(place.channels, place.stride), place.source)


@block("max_pool")
def max_pool(graph: GraphBuilder, place: Place, *, kernel: int = 3) -> int:
    """Max pooling."""
    return graph.add(MaxPool(kernel, place.stride), place.source)


@block("avg_pool")
def avg_pool(graph: GraphBuilder, place: Place, *, kernel: int = 3) -> int:
    """Average pooling."""
    return graph.add(AvgPool(kernel, place.stride), place.source)


def _depthwise_separable(
    graph: GraphBuilder, place: Place, kernel: int, dilation: int, first: int
) -> int:
    """ReLU, depthwise and 1x1 convolution, batch normalisation, named from `first` on."""
    x = graph.add(Activation(), place.source)
    conv = Conv(graph.shape(x)[0], kernel, place.stride, dilation, depthwise=True)
    x = graph.add(conv, x, name=f"{place.name}.{first}")
    x = graph.add(Conv(place.channels, 1), x, name=f"{place.name}.{first + 1}")
    return graph.add(BatchNorm(), x, name=f"{place.name}.{first + 2}")


@block("sep_conv")
def sep_conv(graph: GraphBuilder, place: Place, *, kernel: int) -> int:
    """A depthwise-separable convolution, twice (DARTS)."""
    name = f"{place.name}.op"
    place = Place(place.source, place.channels, place.stride, name)
    x = _depthwise_separable(graph, place, kernel, dilation=1, first=1)
    place = Place(x, place.channels, 1, name)
    return _depthwise_separable(graph, place, kernel, dilation=1, first=5)


@block("dil_conv")
def dil_conv(graph: GraphBuilder, place: Place, *, kernel: int, dilation: int = 2) -> int:
    """A dilated depthwise-separable convolution (DARTS)."""
    place = Place(place.source, place.channels, place.stride, f"{place.name}.op")
    return _depthwise_separable(graph, place, kernel, dilation, first=1)


@block("conv_bn_act")
def conv_bn_act(
    graph: GraphBuilder, place: Place, *, kernel: int = 3, activation: str = "relu"
) -> int:
    """Convolution, batch normalisation, activation (torchvision's Conv2dNormActivation)."""
    x = conv_bn(graph, place, kernel=kernel, conv_name="0", bn_name="1")
    return graph.add(Activation(activation), x)


@block("inverted_residual")
def inverted_residual(
    graph: GraphBuilder,
    place: Place,
    *,
    kernel: int = 3,
    expansion: int = 4,
    activation: str = "relu6",
) -> int:
    """MobileNet-V2's block: expand 1x1, depthwise, project 1x1; residual where shapes agree."""
    x, name = place.source, f"{place.name}.conv"
    channels = graph.shape(x)[0]
    hidden, position = channels * expansion, 0
    if expansion > 1:
        wide = Place(x, hidden, 1, f"{name}.{position}")
        x = conv_bn_act(graph, wide, kernel=1, activation=activation)
        position += 1
    deep = Place(x, hidden, place.stride, f"{name}.{position}")
    x = conv_bn(graph, deep, kernel=kernel, depthwise=True, conv_name="0", bn_name="1")
    x = graph.add(Activation(activation), x)
    narrow = Place(x, place.channels, 1, name)
    x = conv_bn(graph, narrow, conv_name=str(position + 1), bn_name=str(position + 2))
    return _residual(graph, place.source, x)


@block("residual")
def residual(
    graph: GraphBuilder, place: Place, *, kernel: int = 3, activation: str = "relu"
) -> int:
    """ResNet's basic block; a 1x1 convolution on the shortcut where shapes differ."""
    x = conv_bn(graph, place, kernel=kernel, conv_name="conv1", bn_name="bn1")
    x = graph.add(Activation(activation), x)
    second = Place(x, place.channels, 1, place.name)
    x = conv_bn(graph, second, kernel=kernel, conv_name="conv2", bn_name="bn2")
    shortcut = place.source
    if graph.shape(shortcut) != graph.shape(x):
        narrow = Place(shortcut, place.channels, place.stride, f"{place.name}.downsample")
        shortcut = conv_bn(graph, narrow, conv_name="0", bn_name="1")
    return graph.add(Activation(activation), _residual(graph, shortcut, x))


@block("relu_residual")
def relu_residual(graph: GraphBuilder, place: Place, *, kernel: int = 3) -> int:
    """ResNet's basic block of ReLU-convolution-norm; where the size is halved, the shortcut is an
    average pool and a 1x1 convolution (the reduction block of NAS-Bench-201)."""
    name, shortcut = place.name, place.source
    first = Place(shortcut, place.channels, place.stride, f"{name}.conv_a")
    x = relu_conv_bn(graph, first, kernel=kernel)
    x = relu_conv_bn(graph, Place(x, place.channels, 1, f"{name}.conv_b"), kernel=kernel)
    stride = place.stride
    if stride > 1:
        if stride % 2 == 0:  # its window ends one position before that of the convolution
            shortcut = _extended(graph, shortcut, stride)
        shortcut = graph.add(AvgPool(stride, stride), shortcut)
    if graph.shape(shortcut) != graph.shape(x):
        shortcut = graph.add(Conv(place.channels, 1), shortcut, name=f"{name}.downsample.1")
    return _residual(graph, shortcut, x)


def halving_max_pool(graph: GraphBuilder, source: int) -> int:
    """Max pooling of 2x2 windows with stride 2; the size is rounded up."""
    return graph.add(MaxPool(2, 2), _extended(graph, source, 2))


def _extended(graph: GraphBuilder, x: int, stride: int) -> int:
    """With the last row and column repeated, where windows of an even stride would miss them."""
    missed = any(size % stride == 1 for size in graph.shape(x)[1:])
    return graph.add(Extend(), x) if missed else x


def _residual(graph: GraphBuilder, shortcut: int, x: int) -> int:
    if graph.shape(shortcut) != graph.shape(x):
        return x
    return graph.add(Sum(), shortcut, x)


def classifier(graph: GraphBuilder, source: int, classes: int, name: str) -> int:
    """Global average pooling and a linear layer: the head of every space."""
    x = graph.add(GlobalAveragePool(), source)
    x = graph.add(Linear(classes), x, name=name)
    return graph.add(Bias(), x, name=name)
