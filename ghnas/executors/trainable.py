"""One network that trains, with the kernels that suit its operations and its device."""

from __future__ import annotations

from functools import cache
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ghnas.architectures.network import Network
from ghnas.executors.base import Executor
from ghnas.executors.fused import FusedExecutor, FusedNetwork, Unsupported
from ghnas.executors.grouped import GroupedExecutor


class TrainableNetwork(Protocol):
    """A network that is trained step by step, and keeps running statistics."""

    @property
    def parameters(self) -> list[Tensor]:
        """What to train."""

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The mean cross-entropy in nats, with gradients; batch-norm sees the batch.

        Args:
            images: (B, C, H, W), normalised.
            labels: (B,).
        """

    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, classes) with running statistics, without gradients."""


class PlainNetwork(TrainableNetwork):
    """Trains a network with PyTorch's own operations, on any device."""

    def __init__(self, network: Network) -> None:
        self.network = network

    @property
    def parameters(self) -> list[Tensor]:
        """All parameters, in the order of the graph."""
        named = dict(self.network.named_parameters())
        return [named[name] for name in self.network.graph.parameters]

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.network.train()(images), labels)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network.eval()(images)
        return logits


def trainable(network: Network) -> TrainableNetwork:
    """A network that trains: fused on a CPU, where there are kernels for all of its operations.

    Args:
        network: Its own tensors are trained.
    """
    if any(item.device.type != "cpu" for item in network.parameters()):
        return PlainNetwork(network)
    try:
        return FusedNetwork(network)
    except Unsupported:
        return PlainNetwork(network)


@cache
def executor_for(device: str) -> Executor:
    """The executor for a type of device, such as `cpu`."""
    return FusedExecutor() if device == "cpu" else GroupedExecutor()
