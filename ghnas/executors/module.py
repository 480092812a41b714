"""The reference executor: one network after the other with PyTorch's own operations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ghnas.architectures.graph import Graph
from ghnas.architectures.network import forward
from ghnas.executors.base import Parameters, by_name, losses_of


class ModuleExecutor:
    """Runs every operation of every graph, on any device, with gradients if they are wanted."""

    def run(
        self,
        graphs: Sequence[Graph],
        weights: Sequence[Parameters],
        images: Tensor,
        batches: int = 1,
    ) -> Tensor:
        """See `ghnas.executors.base.Executor`."""
        parts, logits = images.chunk(batches), []
        for graph, own in zip(graphs, by_name(weights), strict=True):
            logits.append(torch.cat([forward(graph, own, part) for part in parts]))
        return torch.stack(logits)

    def losses(
        self,
        graphs: Sequence[Graph],
        weights: Sequence[Parameters],
        images: Tensor,
        labels: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """See `ghnas.executors.base.Executor`."""
        return losses_of(self.run(graphs, weights, images), labels)
