"""From node states to parameters: decoding, slicing and tiling, normalisation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghnas.graph import Shape


class ConvDecoder(nn.Module):
    """A linear layer to a small spatial map, then 1x1 convolutions to out x in channels.

    Only what a shape needs is computed: the rows of the first layer for its kernel window and
    the rows of the last for its channels, which changes no result.
    """

    def __init__(self, width: int, max_shape: tuple[int, int, int, int], classes: int) -> None:
        super().__init__()
        self.max_shape = max_shape
        out, fan_in, height, width_max = max_shape
        hidden = (width * 4, width * 8)
        self.fc = nn.Sequential(nn.Linear(width, hidden[0] * height * width_max), nn.ReLU())
        self.conv = nn.Sequential(
            nn.Conv2d(hidden[0], hidden[1], 1), nn.ReLU(), nn.Conv2d(hidden[1], out * fan_in, 1)
        )
        self.class_layer_predictor = nn.Sequential(nn.ReLU(), nn.Conv2d(out, classes, 1))

    def forward(self, x: Tensor, shape: Shape) -> Tensor:
        """Predict weights.

        Args:
            x: (K, width) node states.
            shape: (out, in, height, width) that is wanted.

        Returns:
            (K, o, i, h, w), each the smaller of wanted and `max_shape`.
        """
        out, fan_in, height, width = (
            min(a, b) for a, b in zip(shape, self.max_shape, strict=True)
        )
        first, middle, last = self.fc[0], self.conv[0], self.conv[2]
        rows = first.weight.view(-1, *self.max_shape[2:], x.shape[1])[:, :height, :width]
        bias = first.bias.view(-1, *self.max_shape[2:])[:, :height, :width]
        count, positions = len(rows), height * width
        # (K, positions, hidden): positions before channels, so that both layers are products
        rows = rows.reshape(count, positions, -1).transpose(0, 1).flatten(0, 1)
        bias = bias.reshape(count, positions).t().flatten()
        hidden = F.relu(F.linear(x, rows, bias)).view(len(x), positions, count)
        hidden = F.relu(F.linear(hidden, middle.weight.flatten(1), middle.bias))
        final = last.weight.view(*self.max_shape[:2], -1)[:out, :fan_in]
        final_bias = last.bias.view(*self.max_shape[:2])[:out, :fan_in]
        result = F.linear(hidden, final.reshape(out * fan_in, -1), final_bias.flatten())
        return result.transpose(1, 2).reshape(len(x), out, fan_in, height, width)

    def head(self, x: Tensor, fan_in: int) -> Tensor:
        """Classifier weights: (K, width) -> (K, classes, at most `fan_in`)."""
        weights = self.forward(x, (self.max_shape[0], fan_in, 1, 1))[..., 0]
        result: Tensor = self.class_layer_predictor(weights)
        return result[..., 0]


class MLPDecoder(nn.Module):
    """One hidden layer to the largest shape (the paper's MLP decoder)."""

    def __init__(self, width: int, max_shape: tuple[int, int, int, int], classes: int) -> None:
        super().__init__()
        self.max_shape = max_shape
        self.classes = classes
        self.mlp = nn.Module()
        self.mlp.fc = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, math.prod(max_shape))
        )
        self.class_layer_predictor = nn.Sequential(
            nn.ReLU(), nn.Linear(2 * width, classes * max_shape[0])
        )

    def forward(self, x: Tensor, shape: Shape) -> Tensor:
        """As `ConvDecoder.forward`."""
        weights = self.mlp.fc(x).view(-1, *self.max_shape)
        result: Tensor = weights[:, : shape[0], : shape[1], : shape[2], : shape[3]]
        return result

    def head(self, x: Tensor, fan_in: int) -> Tensor:
        """As `ConvDecoder.head`."""
        hidden = self.mlp.fc[0](x)
        weights = self.class_layer_predictor(hidden).view(len(x), self.classes, -1)
        result: Tensor = weights[:, :, :fan_in]
        return result


def tile(weights: Tensor, shape: Shape) -> Tensor:
    """Repeat and cut (K, ...) tensors to (K, *shape) along the first dimensions."""
    for dimension, size in enumerate(shape, start=1):
        have = weights.shape[dimension]
        if have < size:
            repeats = [1] * weights.dim()
            repeats[dimension] = -(-size // have)
            weights = weights.repeat(repeats)
        if weights.shape[dimension] > size:
            weights = weights.narrow(dimension, 0, size)
    return weights


def normalise(weights: Tensor, role: str, shape: Shape) -> Tensor:
    """Scale predictions as the paper does (section 4.2): fan-in for weights, bounded for vectors.

    Args:
        weights: (K, *shape).
        role: A slot's role.
        shape: A parameter's shape.
    """
    if len(shape) > 1:
        # depthwise and 1xn convolutions are not followed by a ReLU
        linear = len(shape) == 4 and (shape[1] == 1 or shape[2] < shape[3])
        gain = 1.0 if linear else 2.0
        return weights * math.sqrt(gain / math.prod(shape[1:]))
    if role == "norm_weight":
        return 2 * torch.sigmoid(0.5 * weights)
    return torch.tanh(0.2 * weights)
