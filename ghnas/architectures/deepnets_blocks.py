"""Blocks that DeepNets-1M has beyond DARTS (section 3 and appendix of arXiv 2110.13100).

Parameters are named as in the published networks.
"""

from __future__ import annotations

from ghnas.architectures.blocks import Place, block, conv_bn
from ghnas.architectures.graph import GraphBuilder
from ghnas.architectures.ops import Activation, BatchNorm, Bias, Linear, MaxPool, Sum
from ghnas.architectures.token_ops import (
    Attention,
    Gate,
    LayerNorm,
    LineConv,
    Patches,
    PositionEncoding,
    PositionMean,
    Stride,
    TokenLinear,
)

HEADS = 8


@block("relu_line_conv_bn")
def relu_line_conv_bn(graph: GraphBuilder, place: Place, *, kernel: int) -> int:
    """ReLU, a 1 x k and a k x 1 convolution, batch normalisation."""
    name = f"{place.name}.op"
    x = graph.add(Activation(), place.source)
    channels = graph.shape(x)[0]
    x = graph.add(LineConv(channels, kernel, True, place.stride), x, name=f"{name}.1")
    x = graph.add(LineConv(place.channels, kernel, False, place.stride), x, name=f"{name}.2")
    return graph.add(BatchNorm(), x, name=f"{name}.3")


@block("transformer")
def transformer(graph: GraphBuilder, place: Place) -> int:
    """Self-attention and a feed-forward layer, each behind a layer norm and with a residual."""
    name, before = place.name, place.source
    channels = graph.shape(before)[0]
    x = graph.add(LayerNorm(), before, name=f"{name}.ln1")
    x = graph.add(TokenLinear(3 * channels), x, name=f"{name}.to_qkv")
    x = graph.add(Attention(HEADS), x)
    x = _biased(graph, x, place.channels, f"{name}.to_out.0")
    middle = graph.add(Sum(), x, before)
    x = graph.add(LayerNorm(), middle, name=f"{name}.ln2")
    x = _biased(graph, x, place.channels, f"{name}.ff.net.0")
    x = _biased(graph, graph.add(Activation("gelu"), x), place.channels, f"{name}.ff.net.3")
    return _strided(graph, graph.add(Sum(), x, middle), place.stride)


def _biased(graph: GraphBuilder, source: int, channels: int, name: str) -> int:
    return graph.add(Bias(), graph.add(TokenLinear(channels), source, name=name), name=name)


def _strided(graph: GraphBuilder, source: int, stride: int) -> int:
    return source if stride == 1 else graph.add(Stride(stride), source)


@block("squeeze_excitation")
def squeeze_excitation(graph: GraphBuilder, place: Place, *, reduction: int = 2) -> int:
    """Channels scaled by factors that two linear layers compute from their means."""
    channels = graph.shape(place.source)[0]
    x = graph.add(PositionMean(), place.source)
    for number, (width, function) in enumerate(
        ((channels // reduction, "relu"), (channels, "hardswish")), start=1
    ):
        name = f"{place.name}.fc{number}"
        x = graph.add(Bias(), graph.add(Linear(width), x, name=name), name=name)
        x = graph.add(Activation(function), x)
    return _strided(graph, graph.add(Gate(), place.source, x), place.stride)


@block("stride")
def stride(graph: GraphBuilder, place: Place) -> int:
    """Every n-th position."""
    return _strided(graph, place.source, place.stride)


@block("stem_simple")
def stem_simple(graph: GraphBuilder, place: Place, *, kernel: int, pool: int = 1) -> int:
    """A convolution; `pool` 2 adds max pooling."""
    x = conv_bn(graph, place, kernel=kernel, conv_name="0", bn_name="1")
    return x if pool == 1 else graph.add(MaxPool(3, pool), x)


@block("stem_first")
def stem_first(graph: GraphBuilder, place: Place, *, kernel: int) -> int:
    """The first half of DARTS's ImageNet stem: two convolutions."""
    half = Place(place.source, place.channels // 2, place.stride, place.name)
    x = conv_bn(graph, half, kernel=kernel, conv_name="0", bn_name="1")
    x = graph.add(Activation(), x)
    full = Place(x, place.channels, place.stride, place.name)
    return conv_bn(graph, full, kernel=3, conv_name="3", bn_name="4")


@block("stem_second")
def stem_second(graph: GraphBuilder, place: Place) -> int:
    """The second half of DARTS's ImageNet stem: a convolution of stride 2."""
    x = graph.add(Activation(), place.source)
    return conv_bn(graph, Place(x, place.channels, 2, place.name), kernel=3)


@block("stem_patches")
def stem_patches(graph: GraphBuilder, place: Place, *, kernel: int = 3) -> int:
    """Patches and a position encoding."""
    x = graph.add(Patches(place.channels, kernel), place.source, name=f"{place.name}stem0")
    encoding = graph.add(PositionEncoding(), x, name=f"{place.name}pos_enc")
    return graph.add(Sum(), x, encoding)
