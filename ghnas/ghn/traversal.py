"""In what order the hypernetwork passes messages, and their sums."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ghnas.utils.memory import require_memory


@dataclass(frozen=True)
class Traversal:
    """One direction through a batch of graphs, a step for each level.

    Its edges are the graphs' own (kind 0) and, with virtual edges, all pairs with a path (kind 1),
    in one list sorted by the rank of their target.

    Args:
        order: (N,) node of each rank: nodes are ranked by level.
        rank: (N,) rank of each node.
        ends: First rank after each level.
        kinds: 2 with virtual edges, 1 without.
        sources: (E,) row of each edge's message: kinds * rank of the source + kind.
        targets: (E,) rank of each edge's target, counted from its level's first.
        starts: (N,) first edge of each target, counted from its level's first edge.
        weights: (E,) factor of each edge's message: one over the length of its path.
        edge_ends: First edge after each level.
    """

    order: Tensor
    rank: Tensor
    ends: tuple[int, ...]
    kinds: int
    sources: Tensor
    targets: Tensor
    starts: Tensor
    weights: Tensor
    edge_ends: tuple[int, ...]

    @property
    def sizes(self) -> list[int]:
        """Nodes of each level."""
        return _steps(self.ends)

    def edges(self) -> Iterator[Edges]:
        """The edges into each level."""
        sizes = _steps(self.edge_ends)
        parts = (item.split(sizes) for item in (self.sources, self.targets, self.weights))
        return map(Edges, *parts, self.starts.split(self.sizes))


def _steps(ends: Sequence[int]) -> list[int]:
    return [end - begin for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


class Edges(NamedTuple):
    """The edges into the nodes of one level; as in `Traversal`.

    Args:
        sources, targets, weights: (E,).
        starts: (N,).
    """

    sources: Tensor
    targets: Tensor
    weights: Tensor
    starts: Tensor

    def receive(self, messages: Tensor) -> Tensor:
        """The weighted sum of what each node is sent: (M, width) -> (N, width)."""
        if not len(self.sources):
            return messages.new_zeros(len(self.starts), messages.shape[1])
        if messages.is_cuda and messages.requires_grad:
            # the backward pass of embedding_bag sorts, which is slow on a GPU; the sums of this
            # one can differ in their last digits from run to run
            zeros = messages.new_zeros(len(self.starts), messages.shape[1])
            terms = messages[self.sources] * self.weights[:, None]
            return zeros.index_add(0, self.targets, terms)
        if messages.device.type == "cpu":
            _compile_sum(messages.shape[1], messages.dtype)
        return F.embedding_bag(
            self.sources, messages, self.starts, mode="sum", per_sample_weights=self.weights
        )


_ROOM = 2**20
"""Bytes of memory that are enough for a compiled sum, which takes a few pages."""


@functools.cache
def _compile_sum(width: int, dtype: torch.dtype) -> None:
    """Have torch compile its sum of rows of a width, as it does at its first one on a CPU.

    Raises:
        MemoryError: If there is no memory for that, where torch would end the process with a
            segmentation fault.
    """
    require_memory(_ROOM, "compile a sum")
    rows, one = torch.zeros(1, width, dtype=dtype), torch.zeros(1, dtype=torch.int64)
    F.embedding_bag(one, rows, one, mode="sum", per_sample_weights=rows.new_ones(1))


_RECIPROCALS = 1 / torch.arange(256).float().clamp(min=1).numpy()


def traversal(
    level: Sequence[np.ndarray], distances: Sequence[np.ndarray], starts: np.ndarray, kinds: int
) -> Traversal:
    """One direction of a batch of graphs.

    Args:
        level: By graph, (n,) level of each node.
        distances: By graph, (n, n) length of the path to a node from another, 0 where none is.
        starts: First node of each graph, and the number of all.
        kinds: 2 with virtual edges, 1 without.
    """
    levels = np.concatenate(level)
    order = np.argsort(levels, kind="stable")
    ranks = np.arange(len(order))
    rank = np.empty_like(order)
    rank[order] = ranks
    sizes = np.bincount(levels)
    ends = np.cumsum(sizes)
    # a row for each target in the order of rank, its direct edges before its virtual ones: what
    # is found row by row is sorted
    width = max(map(len, level))
    table = np.zeros((len(order), kinds, width), np.uint8)
    messages = np.zeros((len(level), kinds, width), np.int64)
    for index, distance in enumerate(distances):
        own = rank[starts[index] : starts[index + 1]]
        table[own, -1, : len(own)] = distance
        messages[index, :, : len(own)] = own * kinds + np.arange(kinds)[:, None]
    np.equal(table[:, -1], 1, out=table[:, 0])
    received = np.count_nonzero(table, axis=(1, 2))
    edges = np.flatnonzero(table != 0)
    graph = np.repeat(np.arange(len(level)), np.diff(starts))[order]
    shift = (graph - ranks) * kinds * width
    after = np.cumsum(received)
    edge_ends = after[ends - 1]
    edge_begins = np.concatenate([[0], edge_ends[:-1]])
    return Traversal(
        torch.from_numpy(order),
        torch.from_numpy(rank),
        tuple(ends.tolist()),
        kinds,
        sources=torch.from_numpy(messages.ravel()[edges + np.repeat(shift, received)]),
        targets=torch.from_numpy(np.repeat(ranks - np.repeat(ends - sizes, sizes), received)),
        starts=torch.from_numpy(after - received - np.repeat(edge_begins, sizes)),
        weights=torch.from_numpy(_RECIPROCALS[table.ravel()[edges]]),
        edge_ends=tuple(edge_ends.tolist()),
    )
