"""From node states to parameters: decoding, slicing and tiling, normalisation."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghnas.architectures.graph import Shape
from ghnas.ghn.encoder import MLP


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

    def forward(self, states: Sequence[Tensor], shapes: Sequence[Shape]) -> list[Tensor]:
        """Predict weights.

        Args:
            states: For each shape the (K, width) states of its nodes.
            shapes: (out, in, height, width) that are wanted.

        Returns:
            For each shape (K, o, i, h, w), each the smaller of wanted and `max_shape`.
        """
        sizes = [
            tuple(min(a, b) for a, b in zip(shape, self.max_shape, strict=True)) for shape in shapes
        ]
        windows: dict[Shape, list[int]] = defaultdict(list)
        for index, size in enumerate(sizes):
            windows[size[2:]].append(index)
        rows = self._rows(tuple(dict.fromkeys(size[:2] for size in sizes)))
        result: dict[int, Tensor] = {}
        for window, members in windows.items():
            hidden = self._hidden(torch.cat([states[i] for i in members]), window)
            parts = hidden.split([len(states[i]) for i in members])
            for index, part in zip(members, parts, strict=True):
                weights = F.linear(part, *rows[sizes[index][:2]]).transpose(1, 2)
                result[index] = weights.reshape(-1, *sizes[index])
        return [result[index] for index in range(len(shapes))]

    def _hidden(self, x: Tensor, window: Shape) -> Tensor:
        """(K, width) -> (K, height * width, hidden): positions before channels, so that both
        layers are matrix products."""
        first, middle = cast(nn.Linear, self.fc[0]), cast(nn.Conv2d, self.conv[0])
        height, width = window
        rows = first.weight.view(-1, *self.max_shape[2:], x.shape[1])[:, :height, :width]
        bias = first.bias.view(-1, *self.max_shape[2:])[:, :height, :width]
        count, positions = len(rows), height * width
        rows = rows.reshape(count, positions, -1).transpose(0, 1).flatten(0, 1)
        bias = bias.reshape(count, positions).t().flatten()
        hidden = F.linear(x, rows, bias).relu_().view(len(x), positions, count)
        return F.linear(hidden, middle.weight.flatten(1), middle.bias).relu_()

    def _rows(self, sizes: Sequence[Shape]) -> dict[Shape, tuple[Tensor, Tensor]]:
        """The last layer's rows and biases for each (out, in).

        For the largest `in` they are its first ones; all others are taken at once: one gather
        costs a single pass over the layer's gradient.
        """
        last = cast(nn.Conv2d, self.conv[2])
        weight, bias = last.weight.flatten(1), cast(Tensor, last.bias)
        whole = self.max_shape[1]
        result: dict[Shape, tuple[Tensor, Tensor]] = {
            (out, whole): (weight[: out * whole], bias[: out * whole])
            for out, fan_in in sizes
            if fan_in == whole
        }
        rest = [size for size in sizes if size not in result]
        if rest:
            table = torch.arange(last.out_channels, device=weight.device).view(self.max_shape[:2])
            indices = [table[:out, :fan_in].flatten() for out, fan_in in rest]
            chosen, lengths = torch.cat(indices), [len(item) for item in indices]
            parts = (item.index_select(0, chosen).split(lengths) for item in (weight, bias))
            result |= zip(rest, zip(*parts, strict=True), strict=True)
        return result

    def head(self, states: Tensor, weights: Tensor) -> Tensor:
        """Classifier weights (K, classes, i) from `forward`'s for (max out, in, 1, 1)."""
        result: Tensor = self.class_layer_predictor(weights[..., 0])
        return result[..., 0]


class MLPDecoder(nn.Module):
    """One hidden layer to the largest shape (the paper's MLP decoder)."""

    def __init__(self, width: int, max_shape: tuple[int, int, int, int], classes: int) -> None:
        super().__init__()
        self.max_shape = max_shape
        self.classes = classes
        self.mlp = MLP(width, (2 * width, math.prod(max_shape)), last=False)
        self.class_layer_predictor = nn.Sequential(
            nn.ReLU(), nn.Linear(2 * width, classes * max_shape[0])
        )

    def forward(self, states: Sequence[Tensor], shapes: Sequence[Shape]) -> list[Tensor]:
        """As `ConvDecoder.forward`."""
        weights = self.mlp.fc(torch.cat(list(states))).view(-1, *self.max_shape)
        parts = weights.split([len(item) for item in states])
        return [
            part[:, : shape[0], : shape[1], : shape[2], : shape[3]]
            for part, shape in zip(parts, shapes, strict=True)
        ]

    def head(self, states: Tensor, weights: Tensor) -> Tensor:
        """As `ConvDecoder.head`; made from the hidden layer, not from the weights."""
        hidden = self.mlp.fc[0](states)
        heads: Tensor = self.class_layer_predictor(hidden)
        return heads.view(len(states), self.classes, -1)[..., : weights.shape[2]]


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


VECTORS = ("norm_weight", "bias", "head_bias")
"""Roles that the one-dimensional decoder predicts."""


def decoded_shape(role: str, shape: Shape) -> Shape:
    """The shape in which a parameter is decoded: four dimensions, or one for vectors.

    Args:
        role: As of `ghnas.ghn.features.DecodeGroup`.
        shape: The parameter's shape. Position encodings (1, tokens, channels) are decoded as a
            square grid; a 3-d convolution as a 2-d one; what has no such reading as a matrix.
    """
    if role in VECTORS:
        return (math.prod(shape),)
    if role == "head_weight":
        return shape
    if role == "pos_enc" and len(shape) == 3 and shape[0] == 1:
        side = max(math.isqrt(shape[1]), 1)
        return (1, shape[2], side, side)
    if 2 <= len(shape) <= 4:
        return (*shape, 1, 1)[:4]
    if len(shape) == 5:
        return (*shape[:2], *shape[3:])
    return (shape[0], math.prod(shape[1:]), 1, 1)


def fit(weights: Tensor, role: str, shape: Shape) -> Tensor:
    """From the decoded shape to the parameter's: (K, *decoded) -> (K, *shape)."""
    if role == "pos_enc" and len(shape) == 3 and shape[0] == 1:
        tokens = weights.flatten(3).transpose(2, 3)
        extra = shape[1] - tokens.shape[2]  # class tokens stand in front of the grid
        return tile(tokens, shape).roll(extra, 2)
    if len(shape) == 5:
        return weights.unsqueeze(3).expand(-1, *shape)
    return weights.reshape(-1, *shape)


def normalise(weights: Tensor, role: str, shape: Shape) -> Tensor:
    """Scale predictions as the paper does (section 4.2): fan-in for weights, bounded for vectors.

    Args:
        weights: (K, *shape).
        role: As in `decoded_shape`.
        shape: A parameter's shape.
    """
    if role == "norm_weight":
        return 2 * torch.sigmoid(0.5 * weights)
    if role in VECTORS:
        return torch.tanh(0.2 * weights)
    if role == "pos_enc" and not (len(shape) == 4 and shape[2] < 11):
        return weights  # as published: large grids are left as they are
    # depthwise and 1xn convolutions are not followed by a ReLU
    linear = len(shape) > 2 and (shape[1] == 1 or (len(shape) > 3 and shape[2] < shape[3]))
    gain = 1.0 if linear else 2.0
    return weights * math.sqrt(gain / math.prod(shape[1:]))
