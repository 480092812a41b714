"""Networks in plain PyTorch, as users write them: what tracing is tested with."""

from __future__ import annotations

import itertools

import torch
import torchvision
from torch import Tensor, nn

from ghnas.architectures.genotypes import Genotype


class Op(nn.Module):
    """One of DARTS's operations under the name `op`."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.op = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class FactorizedReduce(nn.Module):
    """Halves the size with two shifted 1x1 convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False)
        self.conv_2 = nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        return self.bn(torch.cat([self.conv_1(x), self.conv_2(x[:, :, 1:, 1:])], dim=1))


def _relu_conv_norm(inputs: int, outputs: int) -> Op:
    return Op(nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


def _separable(width: int, kernel: int, stride: int) -> Op:
    layers: list[nn.Module] = []
    for step in (stride, 1):
        layers += [
            nn.ReLU(),
            nn.Conv2d(width, width, kernel, step, kernel // 2, groups=width, bias=False),
            nn.Conv2d(width, width, 1, bias=False),
            nn.BatchNorm2d(width),
        ]
    return Op(*layers)


def _dilated(width: int, kernel: int, stride: int) -> Op:
    depthwise = nn.Conv2d(
        width, width, kernel, stride, kernel - 1, dilation=2, groups=width, bias=False
    )
    return Op(nn.ReLU(), depthwise, nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))


def _operation(name: str, width: int, stride: int) -> nn.Module:
    match name.split("_"):
        case ["skip", "connect"]:
            return nn.Identity() if stride == 1 else FactorizedReduce(width, width)
        case ["max", "pool", _]:
            return nn.MaxPool2d(3, stride, 1)
        case ["avg", "pool", _]:
            return nn.AvgPool2d(3, stride, 1, count_include_pad=False)
        case ["sep", "conv", size]:
            return _separable(width, int(size[0]), stride)
        case ["dil", "conv", size]:
            return _dilated(width, int(size[0]), stride)
    raise ValueError(name)


class Cell(nn.Module):
    """A DARTS cell."""

    def __init__(
        self, edges: list, concat: list, before: int, last: int, width: int, reduces: bool,
        reduced: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        kind = FactorizedReduce if reduced else _relu_conv_norm
        self.preprocess0 = kind(before, width)
        self.preprocess1 = _relu_conv_norm(last, width)
        self.indices, self.concat = [index for _, index in edges], concat
        self._ops = nn.ModuleList(
            _operation(name, width, 2 if reduces and index < 2 else 1) for name, index in edges
        )

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        states = [self.preprocess0(before), self.preprocess1(last)]
        for node in range(len(self._ops) // 2):
            pair = range(2 * node, 2 * node + 2)
            first, second = (self._ops[i](states[self.indices[i]]) for i in pair)
            states.append(first + second)
        return torch.cat([states[i] for i in self.concat], dim=1)


class Darts(nn.Module):
    """The DARTS network for small images."""

    def __init__(self, genotype: Genotype, channels: int, cells: int, classes: int) -> None:
        super().__init__()
        width = 3 * channels
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )
        before = last = width
        reduced = False
        self.cells = nn.ModuleList()
        for index in range(cells):
            reduces = index in (cells // 3, 2 * cells // 3)
            channels *= 2 if reduces else 1
            edges = genotype.reduce if reduces else genotype.normal
            concat = list(range(2, 2 + len(edges) // 2))
            cell = Cell(list(edges), concat, before, last, channels, reduces, reduced)
            self.cells.append(cell)
            before, last, reduced = last, len(concat) * channels, reduces
        self.classifier = nn.Sequential(nn.Linear(last, classes))

    def forward(self, images: Tensor) -> Tensor:
        before = last = self.stem(images)
        for cell in self.cells:
            before, last = last, cell(before, last)
        return self.classifier(nn.functional.adaptive_avg_pool2d(last, 1).flatten(1))


class PositionEncoding(nn.Module):
    """Adds a learned grid."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, width, size, size))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight


class FeedForward(nn.Module):
    """Two linear layers with GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Dropout(0.0), nn.Linear(width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Transformer(nn.Module):
    """Self-attention over positions and a feed-forward block, both with a residual."""

    def __init__(self, width: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(0.0))
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(2).transpose(1, 2)
        parts = self.to_qkv(self.ln1(x)).chunk(3, dim=-1)
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        mixed = (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
        x = self.to_out(mixed) + x
        x = self.ff(self.ln2(x)) + x
        return x.transpose(1, 2).reshape(images.shape)


class VisionCell(nn.Module):
    """A convolution to the width, then attention or pooling."""

    def __init__(self, inputs: int, width: int, pools: bool) -> None:
        super().__init__()
        self.preprocess1 = _relu_conv_norm(inputs, width)
        after = _operation("avg_pool_3x3", width, 1) if pools else Transformer(width)
        self._ops = nn.ModuleList([nn.Identity(), after])

    def forward(self, x: Tensor) -> Tensor:
        return self._ops[1](self.preprocess1(x))


class VisionTransformer(nn.Module):
    """Patches, a position encoding, one attention cell and two pooling cells of twice the width."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.stem0 = nn.Conv2d(3, width, 3, stride=3, padding=1, bias=False)
        self.pos_enc = PositionEncoding(width, 11)
        widths = (width, width, 2 * width, 4 * width)
        self.cells = nn.ModuleList(
            VisionCell(inputs, outputs, pools=index > 0)
            for index, (inputs, outputs) in enumerate(itertools.pairwise(widths))
        )
        self.classifier = nn.Sequential(nn.Linear(widths[-1], classes))

    def forward(self, images: Tensor) -> Tensor:
        x = self.pos_enc(self.stem0(images))
        for cell in self.cells:
            x = cell(x)
        return self.classifier(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def small_resnet18(classes: int = 10) -> nn.Module:
    """torchvision's, for small images: a 3x3 stem and no pooling behind it."""
    network = torchvision.models.resnet18(num_classes=classes)
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


def small_mobilenet_v3(classes: int = 10) -> nn.Module:
    """torchvision's, for small images: stride 1 in the first five blocks."""
    network = torchvision.models.mobilenet_v3_small(num_classes=classes)
    for layer in network.features[:5].modules():
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
    return network
