"""Operations that PyTorch runs slowly on a CPU in channels_last, with the same results.

Elsewhere PyTorch's own operations run.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function


def max_pool(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Max pooling with padding (kernel - 1) // 2."""
    if x.is_cuda or kernel != 3 or x.requires_grad:
        return F.max_pool2d(x, kernel, stride, padding=(kernel - 1) // 2)
    x = _neighbour_maximum(x, 2)[:, :, ::stride]
    return _neighbour_maximum(x, 3)[..., ::stride]


def avg_pool(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Average pooling with padding (kernel - 1) // 2 that is not counted."""
    if x.is_cuda or kernel != 3 or stride > 1:
        return F.avg_pool2d(x, kernel, stride, (kernel - 1) // 2, count_include_pad=False)
    for dimension in (2, 3):
        x = _NeighbourSum.apply(x, dimension) if x.requires_grad else _sum(x, dimension)
        shape = [1, 1, 1, 1]
        shape[dimension] = x.shape[dimension]
        x = x * _shares(x, dimension).view(shape)
    return x


def depthwise_conv(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """Depthwise convolution (C, 1, k, k) with the padding that keeps the size at stride 1."""
    channels, _, kernel, _ = weight.shape
    padding = dilation * (kernel - 1) // 2
    height, width = x.shape[2:]
    simple = kernel == 3 and dilation == 1
    if x.is_cuda or simple or not torch.is_grad_enabled():
        return F.conv2d(x, weight, None, stride, padding, dilation, channels)
    if height * width <= (SMALL if dilation > 1 else SMALL // 4):
        return _as_product(x, weight, stride, dilation)
    if dilation == 1 or height % dilation or width % dilation:
        return F.conv2d(x, weight, None, stride, padding, dilation, channels)
    if stride == dilation:  # the taps of all outputs lie in the first sub-image
        x = x[:, :, ::stride, ::stride]
        return depthwise_conv(x, weight, 1, 1)
    if stride > 1:
        return F.conv2d(x, weight, None, stride, padding, dilation, channels)
    return _on_sub_images(x, weight, dilation)


SMALL = 64
"""Images of up to so many positions are convolved as a matrix product if dilated; a quarter of
that if not."""


def _on_sub_images(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """A dilated convolution as an ordinary one on each of the interleaved sub-images."""
    batch, channels, height, width = x.shape
    rows, columns = height // dilation, width // dilation
    split = x.permute(0, 2, 3, 1).reshape(batch, rows, dilation, columns, dilation, channels)
    parts = split.permute(2, 4, 0, 1, 3, 5).reshape(-1, rows, columns, channels)
    parts = F.conv2d(parts.permute(0, 3, 1, 2), weight, None, 1, weight.shape[2] // 2, 1, channels)
    joined = parts.permute(0, 2, 3, 1).reshape(dilation, dilation, batch, rows, columns, channels)
    joined = joined.permute(2, 3, 0, 4, 1, 5).reshape(batch, height, width, channels)
    return joined.permute(0, 3, 1, 2)


def _as_product(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """A depthwise convolution of small images as one matrix product for each channel."""
    batch, channels, height, width = x.shape
    taps = _taps(height, width, weight.shape[2], stride, dilation).to(weight.dtype)
    rows, columns = -(-height // stride), -(-width // stride)
    matrices = (weight.view(channels, -1) @ taps).view(channels, height * width, -1)
    pixels = x.permute(1, 0, 2, 3).reshape(channels, batch, -1)
    result = torch.bmm(pixels, matrices).view(channels, batch, rows, columns)
    return result.permute(1, 0, 2, 3).contiguous(memory_format=torch.channels_last)


@lru_cache(maxsize=64)
def _taps(height: int, width: int, kernel: int, stride: int, dilation: int) -> Tensor:
    """Which tap connects which positions: 0 or 1, (kernel^2, positions in x positions out)."""

    def along(size: int) -> Tensor:
        source = torch.arange(size)[None, :, None]
        target = torch.arange(0, size, stride)[None, None, :]
        offset = (torch.arange(kernel)[:, None, None] - kernel // 2) * dilation
        return (source == target + offset).float()

    both = torch.einsum("apq,brs->abprqs", along(height), along(width))
    return both.reshape(kernel * kernel, -1)


def _ends(x: Tensor, dimension: int) -> tuple[Tensor, Tensor]:
    """All but the last, all but the first."""
    size = x.shape[dimension] - 1
    return x.narrow(dimension, 0, size), x.narrow(dimension, 1, size)


def _neighbour_maximum(x: Tensor, dimension: int) -> Tensor:
    result = x.clone()
    (low, high), (below, above) = _ends(result, dimension), _ends(x, dimension)
    torch.maximum(high, below, out=high)
    torch.maximum(low, above, out=low)
    return result


def _sum(x: Tensor, dimension: int) -> Tensor:
    """Sum of each position and its two neighbours along a dimension."""
    result = x.clone()
    (low, high), (before, after) = _ends(result, dimension), _ends(x, dimension)
    high.add_(before)
    low.add_(after)
    return result


class _NeighbourSum(Function):
    """`_sum`, which is its own transpose."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dimension: int) -> Tensor:
        ctx.dimension = dimension
        return _sum(x, dimension)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _sum(gradients[0], ctx.dimension), None


def _shares(x: Tensor, dimension: int) -> Tensor:
    """One over the number of neighbours that each position has, itself included."""
    shares = torch.full((x.shape[dimension],), 1 / 3, dtype=x.dtype)
    if len(shares) == 1:
        return torch.ones_like(shares)
    shares[0] = shares[-1] = 1 / 2
    return shares
