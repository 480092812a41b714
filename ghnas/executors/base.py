"""The interface of all executors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ghnas.architectures.graph import Graph

Parameters = Mapping[str, Tensor]
"""A network's parameters by name."""


class Executor(Protocol):
    """Runs many networks with given weights on the same images.

    An executor may keep what it works out for the graphs of a call until the next call. Running
    the same `Graph` objects, or some of them, batch after batch therefore prepares them once.
    Several threads may use one executor.
    """

    def run(
        self,
        graphs: Sequence[Graph],
        weights: Sequence[Parameters],
        images: Tensor,
        batches: int = 1,
    ) -> Tensor:
        """Logits of every network; batch-norm uses the statistics of the batch.

        Args:
            graphs: Architectures for images of one shape and with equally many classes.
            weights: The parameters of each.
            images: (batches * B, C, H, W), batch after batch, the same for all.
            batches: How many batches of equal size the images are.

        Returns:
            (networks, batches * B, classes).
        """

    def losses(
        self,
        graphs: Sequence[Graph],
        weights: Sequence[Parameters],
        images: Tensor,
        labels: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy of every network, with gradients with respect to its weights.

        Args:
            graphs: As in `run`.
            weights: As in `run`.
            images: (B, C, H, W), one batch.
            labels: (B,), the same for all.

        Returns:
            The mean over the images in nats, (networks,), and logits (networks, B, classes)
            without gradients.
        """


def losses_of(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """What `Executor.losses` returns, from logits (networks, B, classes) with gradients."""
    flat = F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)), reduction="none")
    return flat.view(len(logits), -1).mean(dim=1), logits.detach()


class FlatParameters(Mapping[str, Tensor]):
    """A network's parameters by name as views of one vector.

    Args:
        graph: The architecture.
        flat: All parameters, in the order of the graph's.
    """

    def __init__(self, graph: Graph, flat: Tensor) -> None:
        self.flat = flat
        self._shapes = graph.parameters

    @classmethod
    @torch.no_grad()
    def joined(cls, graph: Graph, parameters: Parameters) -> FlatParameters:
        """A copy of given parameters."""
        return cls(graph, torch.cat([parameters[name].reshape(-1) for name in graph.parameters]))

    @classmethod
    def copied(cls, graph: Graph, parameters: Parameters) -> FlatParameters:
        """A copy of given parameters, a leaf that wants gradients."""
        made = cls.joined(graph, parameters)
        made.flat.requires_grad_()
        return made

    def __getitem__(self, name: str) -> Tensor:
        return self.as_dict()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def as_dict(self) -> dict[str, Tensor]:
        """All views, far cheaper than one after the other."""
        parts = self.flat.split([math.prod(shape) for shape in self._shapes.values()])
        items = zip(self._shapes.items(), parts, strict=True)
        return {name: part.view(shape) for (name, shape), part in items}


def by_name(weights: Sequence[Parameters]) -> list[Parameters]:
    """Parameters that can be looked up one after the other at no cost."""
    return [item.as_dict() if isinstance(item, FlatParameters) else item for item in weights]
