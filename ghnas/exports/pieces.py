"""Layers that PyTorch does not have; their source is copied into an exported file as it stands."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Bias(nn.Module):
    """Adds a value to each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias.view(-1, *[1] * (x.dim() - 2))


class PositionEncoding(nn.Module):
    """A learned value for each channel and position, the same for every image."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, channels, height, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight.expand(x.shape[0], -1, -1, -1)


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.permute(0, 2, 3, 1)
        normal = F.layer_norm(tokens, self.weight.shape, self.weight, self.bias)
        return normal.permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Multi-head self-attention between positions: (B, 3 C, H, W) -> (B, C, H, W)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        parts = x.reshape(-1, 3, self.heads, channels // (3 * self.heads), height * width)
        query, key, value = parts.transpose(-1, -2).unbind(1)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return mixed.transpose(-1, -2).reshape(-1, channels // 3, height, width)


PIECES: dict[str, type[nn.Module]] = {
    item.__name__: item for item in (Bias, PositionEncoding, ChannelNorm, Attention)
}
