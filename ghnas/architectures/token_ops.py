"""Operations on positions as tokens and on channels: attention, squeeze-and-excitation, encodings.

They work on images (B, C, H, W) as all others do; a token is the channels of one position.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ghnas.architectures.graph import Shape
from ghnas.architectures.ops import GlobalAveragePool, Op, Tensors, Weighted
from ghnas.utils.errors import UserError


@dataclass(frozen=True)
class LineConv(Weighted, kind="line_conv", primitive="conv"):
    """A convolution with a 1 x k (`across`) or k x 1 kernel and a stride in that direction."""

    out: int
    kernel: int
    across: bool
    stride: int = 1

    def output_shape(self, *inputs: Shape) -> Shape:
        _, height, width = inputs[0]
        if self.across:
            return (self.out, height, -(-width // self.stride))
        return (self.out, -(-height // self.stride), width)

    def parameter_shapes(self, *inputs: Shape) -> dict[str, Shape]:
        window = (1, self.kernel) if self.across else (self.kernel, 1)
        return {"weight": (self.out, inputs[0][0], *window)}

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        pad, step = self.kernel // 2, self.stride
        stride, padding = ((1, step), (0, pad)) if self.across else ((step, 1), (pad, 0))
        return F.conv2d(inputs[0], parameters[0], None, stride, padding, 1, groups)


@dataclass(frozen=True)
class Patches(Weighted, kind="patches", primitive="conv"):
    """The stem of a vision transformer: a convolution whose stride is its kernel."""

    out: int
    size: int

    @property
    def padding(self) -> int:
        """Rows and columns of zeros on every side."""
        return int(self.size < 4)

    def output_shape(self, *inputs: Shape) -> Shape:
        height, width = ((n + 2 * self.padding) // self.size for n in inputs[0][1:])
        return (self.out, height, width)

    def parameter_shapes(self, *inputs: Shape) -> dict[str, Shape]:
        return {"weight": (self.out, inputs[0][0], self.size, self.size)}

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        return F.conv2d(inputs[0], parameters[0], None, self.size, self.padding, 1, groups)


@dataclass(frozen=True)
class PositionEncoding(Op, kind="pos_enc", primitive="pos_enc"):
    """A learned value for each channel and position; it reads its input's size alone."""

    sizes_only: ClassVar[bool] = True

    def parameter_shapes(self, *inputs: Shape) -> dict[str, Shape]:
        return {"weight": (1, *inputs[0])}

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        _, height, width = parameters[0].shape[1:]
        return parameters[0].reshape(1, -1, height, width).expand(len(inputs[0]), -1, -1, -1)


@dataclass(frozen=True)
class LayerNorm(Op, kind="layer_norm", primitive="ln"):
    """Normalises each token over its channels."""

    def parameter_shapes(self, *inputs: Shape) -> dict[str, Shape]:
        return {"weight": (inputs[0][0],), "bias": (inputs[0][0],)}

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        x = inputs[0]
        parts = x.unflatten(1, (groups, -1))
        normal = F.layer_norm(parts.movedim(2, -1), parts.shape[2:3]).movedim(-1, 2).flatten(1, 2)
        weight, bias = (value.view(1, -1, 1, 1) for value in parameters)
        return normal * weight + bias


@dataclass(frozen=True)
class TokenLinear(Weighted, kind="token_linear", primitive="conv"):
    """A matrix product on every token, without bias."""

    out: int

    def output_shape(self, *inputs: Shape) -> Shape:
        return (self.out, *inputs[0][1:])

    def parameter_shapes(self, *inputs: Shape) -> dict[str, Shape]:
        return {"weight": (self.out, inputs[0][0])}

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        x, weight = inputs[0], parameters[0]
        tokens: Tensor = x.unflatten(1, (groups, -1)).flatten(3)
        tokens = weight.view(groups, self.out, -1) @ tokens
        return tokens.view(len(x), -1, *x.shape[2:])


@dataclass(frozen=True)
class Attention(Op, kind="attention", primitive="msa"):
    """Multi-head self-attention between tokens: (3 C, H, W) queries, keys, values -> (C, H, W)."""

    heads: int = 8

    def output_shape(self, *inputs: Shape) -> Shape:
        if inputs[0][0] % (3 * self.heads):
            raise UserError(
                f"attention with {self.heads} heads needs a multiple of {self.heads} channels, not "
                f"{inputs[0][0] // 3}"
            )
        return (inputs[0][0] // 3, *inputs[0][1:])

    def flops(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        tokens = math.prod(output[1:])
        return 4 * output[0] * tokens * tokens

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        x = inputs[0]
        parts = x.flatten(2).view(len(x), groups, 3, self.heads, -1, math.prod(x.shape[2:]))
        query, key, value = parts.transpose(-1, -2).unbind(2)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return mixed.transpose(-1, -2).reshape(len(x), -1, *x.shape[2:])


class PositionMean(GlobalAveragePool, kind="mean"):
    """Mean over positions, inside a block: (C, H, W) -> (C,); no node, as published."""


@dataclass(frozen=True)
class Gate(Op, kind="gate", primitive="cse"):
    """Channels times a factor for each: the end of squeeze-and-excitation."""

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        return inputs[0] * inputs[1][:, :, None, None]


@dataclass(frozen=True)
class Stride(Op, kind="stride"):
    """Every n-th row and column."""

    step: int = 2

    def output_shape(self, *inputs: Shape) -> Shape:
        channels, height, width = inputs[0]
        return (channels, -(-height // self.step), -(-width // self.step))

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        return inputs[0][:, :, :: self.step, :: self.step]


@dataclass(frozen=True)
class Flatten(Op, kind="flatten"):
    """(C, H, W) -> (C * H * W,), for a head without global pooling."""

    def output_shape(self, *inputs: Shape) -> Shape:
        return (math.prod(inputs[0]),)

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        return inputs[0].flatten(1)


@dataclass(frozen=True)
class Blank(Op, kind="blank"):
    """Zeros of the input's shape, to the hypernetwork the input itself (as published)."""

    def forward(self, inputs: Tensors, parameters: Tensors, groups: int = 1) -> Tensor:
        return torch.zeros_like(inputs[0])
