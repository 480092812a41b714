"""The interface of all executors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

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

    def run(self, graphs: Sequence[Graph], weights: Sequence[Parameters], images: Tensor) -> Tensor:
        """Logits of every network; batch-norm uses the statistics of the batch.

        Args:
            graphs: Architectures for images of one shape and with equally many classes.
            weights: The parameters of each.
            images: (B, C, H, W), the same for all.

        Returns:
            (networks, B, classes).
        """
