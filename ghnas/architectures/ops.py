"""The table of operations: parameter shapes, forward, cost and primitive type in one place.

Every forward works on a *population*: `groups` networks of the same shape side by side in the
channel dimension, (B, groups * C, H, W), with their parameters concatenated along dimension 0.
One network is `groups == 1`. To add an operation, add one dataclass with its `kind`, a short name
for drawings, and its `primitive`, the hypernetwork's node type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ghnas.architectures import cpu_kernels
from ghnas.architectures.graph import Shape, format_shape
from ghnas.utils.errors import UserError

Tensors = Sequence[Tensor]


@dataclass(frozen=True)
class Op:
    """Base of all operations; `ghnas.architectures.graph.Operation` says what the methods mean."""

    kind: ClassVar[str] = ""
    node_type: ClassVar[str | None] = None
    sizes_only: ClassVar[bool] = False
    """Reads its inputs for their sizes alone: to the hypernetwork it has no inputs."""
    reads_statistics: ClassVar[bool] = False
    """Whether an image's result depends on the other images of its batch."""

    def __init_subclass__(cls, kind: str = "", primitive: str | None = None) -> None:
        cls.kind, cls.node_type = kind, primitive

    @property
    def primitive(self) -> str | None:
        """The hypernetwork's node type; None: contracted away."""
        return self.node_type

    def output_shape(self, *inputs: Shape) -> Shape:
        """Same shape as the first input unless overridden."""
        return inputs[0]

    def parameter_shapes(self, *inputs: Shape) -> dict[str, Shape]:
        """No parameters unless overridden."""
        return {}

    def feature_shape(self, *inputs: Shape) -> Shape | None:
        """The first parameter's shape unless overridden."""
        return next(iter(self.parameter_shapes(*inputs).values()), None)

    def flops(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        """Nothing unless overridden: only multiply-adds are counted."""
        return 0

    def buffer_shapes(self, *inputs: Shape) -> dict[str, tuple[Shape, float]]:
        """Buffers of a trained network, with the value that they start from."""
        return {}

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        """Run the operation for `groups` networks side by side (statistics from the batch)."""
        raise NotImplementedError

    def forward_shared(self, inputs: Tensors, parameters: Tensors, groups: int) -> Tensor:
        """Run it for `groups` networks that read the same inputs, (B, C, H, W) each."""
        repeated = [x.repeat(1, groups, *[1] * (x.dim() - 2)) for x in inputs]
        return self.forward(repeated, parameters, groups)

    def forward_tracked(
        self, inputs: Tensors, parameters: Tensors, buffers: Tensors, training: bool
    ) -> Tensor:
        """Run it for one network that keeps running statistics in its buffers."""
        return self.forward(inputs, parameters)


def describe(op: Op) -> dict[str, Any]:
    """An operation as plain data, for files and drawings."""
    return {"kind": op.kind} | {item.name: getattr(op, item.name) for item in fields(op)}


@dataclass(frozen=True)
class Weighted(Op):
    """Base of operations that multiply what they read at every position by one weight."""

    def flops(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return 2 * math.prod(self.parameter_shapes(*inputs)["weight"]) * math.prod(output[1:])


@dataclass(frozen=True)
class Input(Op, kind="input", primitive="input"):
    """The image."""

    channels: int
    height: int
    width: int

    def output_shape(self, *inputs: Shape) -> Shape:
        return (self.channels, self.height, self.width)


@dataclass(frozen=True)
class Conv(Weighted, kind="conv"):
    """2-D convolution without bias; depthwise where `depthwise` is set."""

    out: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    depthwise: bool = False

    @property
    def primitive(self) -> str:
        if not self.depthwise:
            return "conv"
        return "dil_conv" if self.dilation > 1 else "sep_conv"

    @property
    def padding(self) -> int:
        """Rows and columns of zeros on every side."""
        return self.dilation * (self.kernel - 1) // 2

    def output_shape(self, *inputs: Shape) -> Shape:
        return (self.out, *_resized(inputs[0], self.kernel, self.stride, self.dilation))

    def parameter_shapes(self, *inputs: Shape) -> dict[str, Shape]:
        fan_in = 1 if self.depthwise else inputs[0][0]
        return {"weight": (self.out, fan_in, self.kernel, self.kernel)}

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        (x,), (weight,) = inputs, parameters
        if self.depthwise:
            return cpu_kernels.depthwise_conv(x, weight, self.stride, self.dilation)
        if self.kernel > 1:
            return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, groups)
        if self.stride > 1:  # the positions that are read, before anything is computed
            x = x[:, :, :: self.stride, :: self.stride]
        return F.conv2d(x, weight) if groups == 1 else self._pointwise(x, weight, groups)

    def forward_shared(self, inputs: Tensors, parameters: Tensors, groups: int) -> Tensor:
        if self.depthwise:
            return super().forward_shared(inputs, parameters, groups)
        return self.forward(inputs, parameters)  # one convolution with the outputs of all

    def _pointwise(self, x: Tensor, weight: Tensor, groups: int) -> Tensor:
        # a batched matrix product is several times faster than a convolution with few groups
        batch, _, height, width = x.shape
        columns = x.reshape(batch, groups, -1, height * width)
        result = torch.matmul(weight.view(groups, self.out, -1), columns)
        return result.view(batch, groups * self.out, height, width)


@dataclass(frozen=True)
class BatchNorm(Op, kind="bn", primitive="bn"):
    """Batch normalisation over images and positions."""

    reads_statistics: ClassVar[bool] = True

    def parameter_shapes(self, *inputs: Shape) -> dict[str, Shape]:
        return {"weight": (inputs[0][0],), "bias": (inputs[0][0],)}

    def buffer_shapes(self, *inputs: Shape) -> dict[str, tuple[Shape, float]]:
        channels = (inputs[0][0],)
        return {"running_mean": (channels, 0.0), "running_var": (channels, 1.0)}

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        weight, bias = parameters
        return F.batch_norm(inputs[0], None, None, weight, bias, training=True)

    def forward_tracked(
        self, inputs: Tensors, parameters: Tensors, buffers: Tensors, training: bool
    ) -> Tensor:
        (weight, bias), (mean, var) = parameters, buffers
        return F.batch_norm(inputs[0], mean, var, weight, bias, training=training)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "silu": F.silu,
    "gelu": F.gelu,
}


@dataclass(frozen=True)
class Activation(Op, kind="activation"):
    """An elementwise non-linearity."""

    function: str = "relu"

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        return ACTIVATIONS[self.function](inputs[0])


@dataclass(frozen=True)
class _Pool(Op):
    kernel: int
    stride: int = 1

    def output_shape(self, *inputs: Shape) -> Shape:
        return (inputs[0][0], *_resized(inputs[0], self.kernel, self.stride, 1))

    def feature_shape(self, *inputs: Shape) -> Shape | None:
        return (1, 1, self.kernel, self.kernel)


@dataclass(frozen=True)
class MaxPool(_Pool, kind="max_pool", primitive="max_pool"):
    """Max pooling; an odd kernel is padded to keep the size at stride 1."""

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        return cpu_kernels.max_pool(inputs[0], self.kernel, self.stride)


@dataclass(frozen=True)
class AvgPool(_Pool, kind="avg_pool", primitive="avg_pool"):
    """Average pooling; the padding is not counted (as in DARTS)."""

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        return cpu_kernels.avg_pool(inputs[0], self.kernel, self.stride)


@dataclass(frozen=True)
class Shift(Op, kind="shift"):
    """Drop the first row and column, so that a strided reader sees the other positions."""

    def output_shape(self, *inputs: Shape) -> Shape:
        channels, height, width = inputs[0]
        return (channels, height - 1, width - 1)

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        return inputs[0][:, :, 1:, 1:]


@dataclass(frozen=True)
class Extend(Op, kind="extend"):
    """Repeat the last row and column, so that windows of an even size cover an odd image."""

    def output_shape(self, *inputs: Shape) -> Shape:
        channels, height, width = inputs[0]
        return (channels, height + 1, width + 1)

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        x = torch.cat([inputs[0], inputs[0][:, :, -1:]], dim=2)
        return torch.cat([x, x[..., -1:]], dim=3)


@dataclass(frozen=True)
class Truncate(Op, kind="truncate"):
    """The first channels, so that wider outputs can be summed with narrower ones."""

    out: int

    def output_shape(self, *inputs: Shape) -> Shape:
        return (min(self.out, inputs[0][0]), *inputs[0][1:])

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        parts: Tensor = inputs[0].unflatten(1, (groups, -1))
        return parts[:, :, : self.out].flatten(1, 2)


@dataclass(frozen=True)
class Zeros(Op, kind="zeros", primitive="sum"):
    """Zeros of the input's batch and size: a node that nothing is connected to.

    The hypernetwork sees a sum of nothing.
    """

    sizes_only: ClassVar[bool] = True
    out: int
    stride: int = 1

    def output_shape(self, *inputs: Shape) -> Shape:
        return (self.out, *_resized(inputs[0], 1, self.stride, 1))

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        _, height, width = self.output_shape((0, *inputs[0].shape[2:]))
        return inputs[0].new_zeros(inputs[0].shape[0], groups * self.out, height, width)


@dataclass(frozen=True)
class Sum(Op, kind="sum", primitive="sum"):
    """Elementwise sum of any number of inputs of one shape."""

    def output_shape(self, *inputs: Shape) -> Shape:
        _require_equal(inputs, inputs)
        return inputs[0]

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        result = inputs[0]
        for other in inputs[1:]:
            result = result + other
        return result


@dataclass(frozen=True)
class Concat(Op, kind="concat", primitive="concat"):
    """Concatenation along channels."""

    def output_shape(self, *inputs: Shape) -> Shape:
        _require_equal(inputs, [shape[1:] for shape in inputs])
        return (sum(shape[0] for shape in inputs), *inputs[0][1:])

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        if groups == 1:
            return torch.cat(list(inputs), dim=1)
        batch, _, height, width = inputs[0].shape
        parts = [x.view(batch, groups, -1, height, width) for x in inputs]
        return torch.cat(parts, dim=2).view(batch, -1, height, width)


@dataclass(frozen=True)
class GlobalAveragePool(Op, kind="glob_avg", primitive="glob_avg"):
    """Mean over all positions: (C, H, W) -> (C,)."""

    def output_shape(self, *inputs: Shape) -> Shape:
        return (inputs[0][0],)

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        return inputs[0].mean(dim=(2, 3))


@dataclass(frozen=True)
class Linear(Weighted, kind="linear", primitive="conv"):
    """Matrix product without bias: (C,) -> (out,)."""

    out: int

    def output_shape(self, *inputs: Shape) -> Shape:
        return (self.out,)

    def parameter_shapes(self, *inputs: Shape) -> dict[str, Shape]:
        return {"weight": (self.out, inputs[0][0])}

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        x = inputs[0].view(inputs[0].shape[0], groups, -1)
        weight = parameters[0].view(groups, self.out, -1)
        return torch.einsum("bgi,goi->bgo", x, weight).reshape(x.shape[0], -1)


@dataclass(frozen=True)
class Bias(Op, kind="bias", primitive="bias"):
    """Adds a vector to the channels."""

    def parameter_shapes(self, *inputs: Shape) -> dict[str, Shape]:
        return {"bias": (inputs[0][0],)}

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        x = inputs[0]
        return x + parameters[0].view(-1, *[1] * (x.dim() - 2))


def _require_equal(shapes: Sequence[Shape], compared: Sequence[Shape]) -> None:
    if len(set(compared)) > 1:
        names = " and ".join(map(format_shape, dict.fromkeys(shapes)))
        raise UserError(
            f"outputs of shapes {names} cannot be joined: the operations of a cell must have the "
            "same channels and size"
        )


def _resized(shape: Shape, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    reach = dilation * (kernel - 1)
    height, width = ((size + 2 * (reach // 2) - reach - 1) // stride + 1 for size in shape[1:])
    return height, width
