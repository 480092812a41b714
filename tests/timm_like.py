"""A network as model libraries make them: a factory with keywords, and blocks of its own."""

from __future__ import annotations

from torch import Tensor, nn


class Block(nn.Module):
    """Two convolutions and a sum."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.act = nn.SiLU(inplace=True)
        self.second = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) of one shape."""
        return x + self.second(self.act(self.norm(self.first(x))))


class ResidualNetwork(nn.Module):
    """A stem, blocks and a head."""

    def __init__(self, width: int, depth: int, kernel: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList([Block(width, kernel) for _ in range(depth)])
        self.head = nn.Linear(width, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> (B, width, H, W)."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> logits."""
        return self.head(self.forward_features(x).mean((2, 3)))


def residual_network(
    width: int = 16, depth: int = 2, kernel: int = 3, num_classes: int = 10
) -> ResidualNetwork:
    """The factory."""
    return ResidualNetwork(width, depth, kernel, num_classes)
