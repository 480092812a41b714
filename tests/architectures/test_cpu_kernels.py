"""Operations with CPU forms of their own: the same as PyTorch's, with their gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ghnas.architectures import cpu_kernels


def gradients(function, x: Tensor, *parameters: Tensor) -> list[Tensor]:
    inputs = [item.clone().requires_grad_() for item in (x, *parameters)]
    result = function(*inputs)
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(1))
    return [result, *torch.autograd.grad((result * weights).sum(), inputs)]


@pytest.mark.parametrize("size", [(16, 16), (8, 8), (4, 4), (7, 6)])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_depthwise_equals_pytorch(
    size: tuple[int, int], kernel: int, stride: int, dilation: int
) -> None:
    x = torch.randn(3, 6, *size).to(memory_format=torch.channels_last)
    weight = torch.randn(6, 1, kernel, kernel)
    padding = dilation * (kernel - 1) // 2
    ours = gradients(lambda a, w: cpu_kernels.depthwise_conv(a, w, stride, dilation), x, weight)
    theirs = gradients(lambda a, w: F.conv2d(a, w, None, stride, padding, dilation, 6), x, weight)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(16, 16), (5, 4), (1, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_pools_equal_pytorch(size: tuple[int, int], stride: int) -> None:
    x = torch.randn(3, 6, *size).to(memory_format=torch.channels_last)
    ours = gradients(lambda a: cpu_kernels.avg_pool(a, 3, stride), x)
    theirs = gradients(lambda a: F.avg_pool2d(a, 3, stride, 1, count_include_pad=False), x)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        expected = F.max_pool2d(x, 3, stride, 1)
        torch.testing.assert_close(cpu_kernels.max_pool(x, 3, stride), expected)
