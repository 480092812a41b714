"""The parameters of a population, those of one shape in one tensor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from ghnas.architectures.graph import Graph, Shape
from ghnas.executors.base import Parameters, by_name

Row = tuple[int, str]
"""(index of the network, name of its parameter)."""
Rows = Sequence[Sequence[Row]]
"""For each stacked tensor which parameter each of its rows is."""


class StackedParameters(Sequence[Parameters]):
    """The parameters of many networks; each can also be had by name, as views.

    Args:
        tensors: (K, *shape) each: parameters of one shape.
        rows: For each tensor which parameter each of its K rows is.
        networks: The indices in `rows` of the networks that are meant, in order.
    """

    def __init__(self, tensors: Sequence[Tensor], rows: Rows, networks: Sequence[int]) -> None:
        self.tensors, self.rows, self.networks = tuple(tensors), rows, tuple(networks)

    @classmethod
    def of(cls, weights: Sequence[Parameters], rows: Rows) -> StackedParameters:
        """Parameters by name, stacked; gradients go through.

        Args:
            weights: The parameters of each network.
            rows: As `rows_of` gives them for the networks' graphs.
        """
        named = by_name(weights)
        tensors = [torch.stack([named[index][name] for index, name in own]) for own in rows]
        return cls(tensors, rows, range(len(weights)))

    def take(self, positions: Sequence[int]) -> StackedParameters:
        """Those of some of the networks."""
        return StackedParameters(self.tensors, self.rows, [self.networks[i] for i in positions])

    def __len__(self) -> int:
        return len(self.networks)

    @overload
    def __getitem__(self, index: int) -> Parameters: ...
    @overload
    def __getitem__(self, index: slice) -> StackedParameters: ...
    def __getitem__(self, index: int | slice) -> Parameters | StackedParameters:
        if isinstance(index, slice):
            return self.take(range(*index.indices(len(self))))
        network = self.networks[index]
        return {
            name: tensor[row]
            for tensor, rows in zip(self.tensors, self.rows, strict=True)
            for row, (owner, name) in enumerate(rows)
            if owner == network
        }


def rows_of(graphs: Sequence[Graph]) -> list[list[Row]]:
    """The parameters of each shape, network after network."""
    found: dict[Shape, list[Row]] = defaultdict(list)
    for index, graph in enumerate(graphs):
        for name, shape in graph.parameters.items():
            found[shape].append((index, name))
    return list(found.values())


def take(weights: Sequence[Parameters], positions: Sequence[int]) -> Sequence[Parameters]:
    """The parameters of some of the networks."""
    if isinstance(weights, StackedParameters):
        return weights.take(positions)
    return [weights[i] for i in positions]
