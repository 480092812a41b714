"""From a graph to a program of fused steps.

Batch normalisation, bias and activation write nothing: the values that they stand for are their
input's, and whoever reads them scales, shifts and activates as it reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, cast

from ghnas.architectures.graph import Graph, Node
from ghnas.architectures.ops import (
    Activation,
    AvgPool,
    BatchNorm,
    Bias,
    Concat,
    Conv,
    Extend,
    GlobalAveragePool,
    Input,
    Linear,
    MaxPool,
    Shift,
    Sum,
    Truncate,
    Zeros,
)
from ghnas.executors.fused.kernels import BLOCK, HARDSWISH, RELU, RELU6, ROOM
from ghnas.executors.fused.program import (
    ADD,
    AFFINE,
    AVG_POOL,
    COPY,
    DENSE,
    DEPTHWISE,
    EXTEND,
    FILL,
    MAX_POOL,
    MEAN,
    MOMENTS,
    NORMALISE,
    Draft,
    Program,
    Step,
    place,
)

_ACTIVATIONS = {"relu": RELU, "relu6": RELU6, "hardswish": HARDSWISH}


class Unsupported(Exception):
    """The graph has an operation that the fused executor does not know."""


class _Value(NamedTuple):
    """What a node stands for.

    Args:
        tensor: The number of the stored tensor.
        channels: Of the stored tensor.
        height: Of the stored tensor, 1 for a vector.
        width: Of the stored tensor, 1 for a vector.
        affine: First scale and shift to apply, -1: none.
        activation: To apply after that, 0: none.
        skip: Rows and columns to leave out.
        statistics: Where the stored tensor's sums are, -1: not taken yet.
    """

    tensor: int
    channels: int
    height: int
    width: int
    affine: int = -1
    activation: int = 0
    skip: int = 0
    statistics: int = -1


def lower(graph: Graph) -> Program:
    """The program of a network.

    Raises:
        Unsupported: If the graph has an operation without a kernel.
    """
    made = draft(graph)
    return made.program(*place(made.sizes, made.lifetimes(), len(made.steps)))


def draft(graph: Graph) -> Draft:
    """The steps of a network.

    Raises:
        Unsupported: If the graph has an operation without a kernel.
    """
    lowering = _Lowering(graph)
    for node in graph.nodes:
        lowering.add(node)
    return lowering.finish()


class _Lowering:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.values: list[_Value] = []
        self.steps: list[Step] = []
        self.shifts: list[int] = []
        self.sizes: list[int] = []
        self.channels = 0
        self.scratch = 0
        self.extra = 2 * BLOCK
        self.offsets: dict[str, int] = {}
        total = 0
        for name, shape in graph.parameters.items():
            self.offsets[name] = total
            total += math.prod(shape)

    def add(self, node: Node) -> None:
        """Append what a node needs."""
        handler = _HANDLERS.get(type(node.op))
        if handler is None:  # a class of its own may compute something else
            raise Unsupported(type(node.op).__name__)
        self.values.append(handler(self, node, [self.values[i] for i in node.inputs]))

    def finish(self) -> Draft:
        """The network's steps, once all nodes are added."""
        last = self.values[-1]
        if (last.height, last.width) != (1, 1):
            raise Unsupported("an output that is not a vector")
        logits = self._copy(last)
        return Draft(
            self.steps, self.shifts, self.sizes, self.channels, self.scratch, self.extra,
            self.offsets, logits.tensor, logits.channels,
        )  # fmt: skip

    def _new(self, channels: int, height: int = 1, width: int = 1) -> _Value:
        self.sizes.append(channels * height * width)
        return _Value(len(self.sizes) - 1, channels, height, width)

    def _emit(
        self,
        code: int,
        source: _Value,
        target: _Value,
        *,
        second: _Value | None = None,
        kernel: int = 1,
        stride: int = 1,
        dilation: int = 1,
        weight: int = 0,
        statistics: int = -1,
        out_affine: int = 0,
        shift: int = 0,
    ) -> None:
        """Append a step, with numbers of tensors for places."""
        other = second or source
        self.shifts.append(shift)
        self.steps.append(
            Step(
                code, source.tensor, source.channels, source.height, source.width, source.skip,
                source.affine, source.activation, other.tensor, other.affine, other.activation,
                target.tensor, target.channels, target.height, target.width, statistics,
                out_affine, kernel, stride, dilation, weight,
            )
        )  # fmt: skip

    def _room(self, count: int) -> int:
        """Places of so many channels' scales, shifts and sums."""
        self.channels += count
        return self.channels - count

    def _copy(self, value: _Value, target: _Value | None = None) -> _Value:
        """Store what a value stands for."""
        if value.skip:
            raise Unsupported("a shifted tensor that is not read with a stride")
        target = target or self._new(value.channels, value.height, value.width)
        self._emit(COPY, value, target)
        return target

    def _unskipped(self, value: _Value) -> _Value:
        if value.skip:
            raise Unsupported("a shifted tensor that is not read with a stride")
        return value

    def _input(self, node: Node, inputs: list[_Value]) -> _Value:
        return self._new(*node.shape)

    def _conv(self, node: Node, inputs: list[_Value]) -> _Value:
        op, (value,) = cast(Conv, node.op), inputs
        if op.kernel % 2 == 0:
            raise Unsupported("a convolution with an even kernel")
        if not op.depthwise:
            return self._dense(node, value, op.kernel, op.stride, op.dilation)
        value = self._unskipped(value)
        target = self._new(*node.shape)
        border = op.dilation * (op.kernel - 1) // 2
        plane = (value.height + 2 * border) * (value.width + 2 * border)
        self.scratch = max(self.scratch, plane)
        self._emit(
            DEPTHWISE,
            value,
            target,
            kernel=op.kernel,
            stride=op.stride,
            dilation=op.dilation,
            weight=self.offsets[f"{node.name}.weight"],
        )
        return target

    def _dense(self, node: Node, value: _Value, kernel: int, stride: int, dilation: int) -> _Value:
        if value.skip and (kernel > 1 or stride == 1):
            value = self._unskipped(value)
        shape = node.shape
        target = self._new(*shape)
        target = target._replace(statistics=self._room(shape[0]))
        border = dilation * (kernel - 1) // 2
        terms = value.channels * kernel * kernel
        self.extra = max(self.extra, terms * ROOM)
        if kernel > 1 or stride > 1:
            plane = (value.height + 2 * border) * (value.width + 2 * border)
            gathered = terms * target.width if stride > 1 else 0
            self.scratch = max(self.scratch, value.channels * plane + gathered)
        self._emit(
            DENSE,
            value,
            target,
            kernel=kernel,
            stride=stride,
            dilation=dilation,
            weight=self.offsets[f"{node.name}.weight"],
            statistics=target.statistics,
        )
        return target

    def _linear(self, node: Node, inputs: list[_Value]) -> _Value:
        return self._dense(node, inputs[0], 1, 1, 1)

    def _normalise(self, node: Node, inputs: list[_Value]) -> _Value:
        value = self._unskipped(inputs[0])
        if value.affine >= 0 or value.activation:
            value = self._copy(value)
        statistics = value.statistics
        if statistics < 0:
            statistics = self._room(value.channels)
            self._emit(MOMENTS, value, value, statistics=statistics)
        affine = self._room(value.channels)
        self._emit(
            NORMALISE,
            value,
            value,
            statistics=statistics,
            out_affine=affine,
            weight=self.offsets[f"{node.name}.weight"],
        )
        return value._replace(affine=affine, statistics=-1)

    def _bias(self, node: Node, inputs: list[_Value]) -> _Value:
        value = self._unskipped(inputs[0])
        if value.affine >= 0 or value.activation:
            value = self._copy(value)
        affine = self._room(value.channels)
        weight = self.offsets[f"{node.name}.bias"]
        self._emit(AFFINE, value, value, out_affine=affine, weight=weight)
        return value._replace(affine=affine, statistics=-1)

    def _activate(self, node: Node, inputs: list[_Value]) -> _Value:
        op, (value,) = cast(Activation, node.op), inputs
        if op.function not in _ACTIVATIONS:
            raise Unsupported(op.function)
        code = _ACTIVATIONS[op.function]
        if value.activation and not value.activation == code == RELU:
            value = self._copy(value)
        return value._replace(activation=code, statistics=-1)

    def _shift(self, node: Node, inputs: list[_Value]) -> _Value:
        return self._unskipped(inputs[0])._replace(skip=1)

    def _truncate(self, node: Node, inputs: list[_Value]) -> _Value:
        return self._copy(inputs[0]._replace(channels=node.shape[0]))

    def _extend(self, node: Node, inputs: list[_Value]) -> _Value:
        value, target = self._unskipped(inputs[0]), self._new(*node.shape)
        self._emit(EXTEND, value, target)
        return target

    def _pool(self, node: Node, inputs: list[_Value]) -> _Value:
        op, value = cast(MaxPool | AvgPool, node.op), self._unskipped(inputs[0])
        target = self._new(*node.shape)
        border = (op.kernel - 1) // 2
        row = value.width + 2 * border
        self.scratch = max(self.scratch, (value.height + 2 * border + 1) * row)
        code = MAX_POOL if isinstance(op, MaxPool) else AVG_POOL
        self._emit(code, value, target, kernel=op.kernel, stride=op.stride)
        return target

    def _sum(self, node: Node, values: list[_Value]) -> _Value:
        first = self._unskipped(values[0])
        if len(values) == 1:
            return first
        target = self._new(first.channels, first.height, first.width)
        for number, second in enumerate(values[1:]):
            self._emit(
                ADD,
                target if number else first,
                target,
                second=self._unskipped(second),
            )
        return target

    def _concat(self, node: Node, values: list[_Value]) -> _Value:
        target = self._new(*node.shape)
        start = 0
        for value in values:
            value = self._unskipped(value)
            self._emit(COPY, value, target, shift=start)
            start += value.channels * value.height * value.width
        return target

    def _zeros(self, node: Node, inputs: list[_Value]) -> _Value:
        target = self._new(*node.shape)
        self._emit(FILL, target, target)
        return target

    def _mean(self, node: Node, inputs: list[_Value]) -> _Value:
        value = self._unskipped(inputs[0])
        target = self._new(value.channels)
        self.scratch = max(self.scratch, 1)
        self._emit(MEAN, value, target)
        return target


_HANDLERS: dict[type, Callable[[_Lowering, Node, list[_Value]], _Value]] = {
    Input: _Lowering._input,
    Conv: _Lowering._conv,
    Linear: _Lowering._linear,
    BatchNorm: _Lowering._normalise,
    Bias: _Lowering._bias,
    Activation: _Lowering._activate,
    MaxPool: _Lowering._pool,
    AvgPool: _Lowering._pool,
    Shift: _Lowering._shift,
    Extend: _Lowering._extend,
    Truncate: _Lowering._truncate,
    Sum: _Lowering._sum,
    Concat: _Lowering._concat,
    Zeros: _Lowering._zeros,
    GlobalAveragePool: _Lowering._mean,
}
"""What each operation becomes; by its very class."""
