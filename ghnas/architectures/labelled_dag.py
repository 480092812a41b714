"""Cells as small directed acyclic graphs with an operation on each edge, and features of them.

The features are numbers that say how a cell is made: counts, paths, depths, degrees; what a
predictor of accuracy reads (after GRAF: Kadlecova et al., ICML 2024, section 3). They are worked
out for many cells at once, and are equal for isomorphic cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

_NO_EDGE, _PLAIN, _FIRST = 0, 1, 2
"""Codes of a pair of nodes; the operations have the codes from `_FIRST` on."""


class LabelledDag(NamedTuple):
    """A cell.

    Args:
        edges: (operation, source, target) with source < target, at most one for a pair of nodes;
            the operation None is a connection without one.
        output: The node that is the cell's output.
    """

    edges: tuple[tuple[str | None, int, int], ...]
    output: int


def with_operations_on_vertices(
    operations: Sequence[str], edges: Iterable[tuple[int, int]]
) -> LabelledDag:
    """A cell of one input whose vertices, not its edges, have operations.

    Each of them is written as two nodes with its operation on the edge between; what connects
    vertices is plain.

    Args:
        operations: Of the vertices between input (0) and output (the last).
        edges: Pairs (source, target) of vertices, source < target.
    """
    inner = range(1, len(operations) + 1)
    labelled = [
        (operation, 2 * v - 1, 2 * v) for v, operation in zip(inner, operations, strict=True)
    ]
    plain = [(None, 2 * source, 2 * target - 1) for source, target in edges]
    return LabelledDag((*labelled, *plain), output=2 * len(operations) + 1)


@dataclass(frozen=True)
class DagKind:
    """What the cells of a search space have in common, and with it their features.

    Features, of what lies on a path from an input to the output:

    - `count OP`, `input OP`, `output OP`: edges with the operation; those on the cell's inputs
      (`input0 OP` and so on where there are several); those at its output.
    - `edges`, `nodes`: all operations, and the nodes that one ends at.
    - `depth KIND`, `shortest KIND`: most and fewest operations of a kind on a path from an input
      to the output. A kind is `any` operation, those `weighted` (with parameters), and for
      `depth` and `paths` also one operation, or one of two: `OP+OP`.
    - `mean depth KIND`, `first nodes`: mean over nodes of the depth; nodes of depth 1.
    - `paths KIND`: paths from an input to the output on operations of the kind alone; the kind
      `weightless` is what has no parameters.
    - `on paths OP`: how many of the operation a path has, mean over all paths.
    - `most in`, `most out`, `out of INPUT`: the largest number of operations that end or begin
      at a node, and those that begin at an input.

    Args:
        operations: What an edge can have; what is no connection is left out.
        weighted: Those with parameters.
        inputs: How many inputs a cell has; they are its first nodes.
        nodes: Most nodes of a cell, inputs and output counted.
    """

    operations: tuple[str, ...]
    weighted: frozenset[str]
    inputs: int
    nodes: int

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the features, in their order."""
        sources = ["input"] if self.inputs == 1 else [f"input{i}" for i in range(self.inputs)]
        several = ("any", "weighted")
        return (
            *(f"{place} {op}" for place in ("count", *sources, "output") for op in self.operations),
            "edges",
            "nodes",
            *(f"depth {kind}" for kind in (*several, *self._fewer)),
            *(f"shortest {kind}" for kind in several),
            *(f"mean depth {kind}" for kind in several),
            "first nodes",
            *(f"paths {kind}" for kind in (*several, "weightless", *self._fewer)),
            *(f"on paths {op}" for op in self.operations),
            "most in",
            "most out",
            *(f"out of {source}" for source in sources),
        )

    @cached_property
    def _fewer(self) -> tuple[str, ...]:
        """The kinds of one operation and of two."""
        return (*self.operations, *map("+".join, combinations(self.operations, 2)))

    def features(self, cells: Sequence[LabelledDag]) -> Matrix:
        """Features of cells of this kind.

        Returns:
            (cells, len(names)).
        """
        chunks = [cells[i : i + _TOGETHER] for i in range(0, len(cells), _TOGETHER)]
        found = [self._features(chunk) for chunk in chunks]
        return np.concatenate(found) if found else np.empty((0, len(self.names)))

    def _features(self, cells: Sequence[LabelledDag]) -> Matrix:
        edges, ends = self._codes(cells)
        edges = self._living(edges, ends)
        has_op = edges >= _FIRST
        by_op = np.stack([edges == _FIRST + i for i in range(len(self.operations))], axis=1)
        at_inputs, at_output = self._plain_reach(edges, ends)
        outgoing = has_op.sum(axis=2)
        columns = [
            by_op.sum(axis=(2, 3)),
            *((by_op * reach[:, None, :, None]).sum(axis=(2, 3)) for reach in at_inputs),
            (by_op * at_output[:, None, None, :]).sum(axis=(2, 3)),
            has_op.sum(axis=(1, 2)),
            *self._depths(edges, ends, inner=np.asarray(has_op.any(axis=1))),
            *self._paths(edges, ends, by_op),
            has_op.sum(axis=1).max(axis=1),
            outgoing.max(axis=1),
            *((outgoing * reach).sum(axis=1) for reach in at_inputs),
        ]
        return np.column_stack(columns).astype(float)

    def _depths(self, edges: Codes, ends: Codes, inner: np.ndarray) -> list[np.ndarray]:
        """From `nodes` to `first nodes`; `inner` are the nodes that an operation ends at."""
        longest, shortest = self._lengths(edges)
        least = shortest[np.arange(len(edges)), :2, ends]
        nodes = inner.sum(axis=1)
        total = (np.maximum(longest[:, :2], 0) * inner[:, None]).sum(axis=2)
        return [
            nodes,
            np.maximum(longest[np.arange(len(edges)), :, ends], 0),
            np.where(np.isfinite(least), least, 0),
            total / np.maximum(nodes, 1)[:, None],
            ((longest[:, 0] == 1) & inner).sum(axis=1),
        ]

    def _codes(self, cells: Sequence[LabelledDag]) -> tuple[Codes, Codes]:
        """For each cell the code of every pair (source, target), and its output."""
        codes = {op: _FIRST + i for i, op in enumerate(self.operations)} | {None: _PLAIN}
        rows = [
            (number, source, target, codes[operation])
            for number, cell in enumerate(cells)
            for operation, source, target in cell.edges
        ]
        result = np.zeros((len(cells), self.nodes, self.nodes), dtype=np.int64)
        if rows:
            where = np.array(rows)
            result[where[:, 0], where[:, 1], where[:, 2]] = where[:, 3]
        return result, np.array([cell.output for cell in cells])

    def _living(self, edges: Codes, ends: Codes) -> Codes:
        """Without what is on no path from an input to the output."""
        linked, batch = edges > 0, np.arange(len(edges))
        ahead = np.zeros(linked.shape[:2], dtype=bool)
        ahead[:, : self.inputs] = True
        behind = np.zeros_like(ahead)
        behind[batch, ends] = True
        for node in range(self.inputs, self.nodes):
            ahead[:, node] = (ahead & linked[:, :, node]).any(axis=1)
        for node in reversed(range(self.nodes)):
            behind[:, node] |= (behind & linked[:, node]).any(axis=1)
        return np.where(ahead[:, :, None] & behind[:, None, :], edges, _NO_EDGE)

    def _plain_reach(self, edges: Codes, ends: Codes) -> tuple[list[np.ndarray], np.ndarray]:
        """Nodes that are an input but for plain connections, for each input; and the output."""
        plain, from_inputs = edges == _PLAIN, []
        for source in range(self.inputs):
            reach = np.zeros(plain.shape[:2], dtype=bool)
            reach[:, source] = True
            for node in range(self.inputs, self.nodes):
                reach[:, node] = (reach & plain[:, :, node]).any(axis=1)
            from_inputs.append(reach)
        behind = np.zeros(plain.shape[:2], dtype=bool)
        behind[np.arange(len(edges)), ends] = True
        for node in reversed(range(self.nodes)):
            behind[:, node] |= (behind & plain[:, node]).any(axis=1)
        return from_inputs, behind

    @cached_property
    def _members(self) -> np.ndarray:
        """Which codes belong to each kind: any, weighted, weightless, then those of `_fewer`."""
        operations = np.eye(len(self.operations), dtype=bool)
        pairs = [a | b for a, b in combinations(operations, 2)]
        weighted = np.array([op in self.weighted for op in self.operations], dtype=bool)
        rows = np.vstack([np.ones_like(weighted), weighted, ~weighted, *operations, *pairs])
        return np.hstack([np.zeros((len(rows), _FIRST), dtype=bool), rows])

    def _lengths(self, edges: Codes) -> tuple[Matrix, Matrix]:
        """Most and fewest operations of each kind but `weightless` from an input to each node,
        (cells, kind, node); infinite where there is no path."""
        weights = np.delete(self._members, 2, axis=0).astype(float)
        shape = (len(edges), len(weights), self.nodes)
        longest, shortest = np.full(shape, -np.inf), np.full(shape, np.inf)
        longest[:, :, : self.inputs] = shortest[:, :, : self.inputs] = 0
        for node in range(self.inputs, self.nodes):
            codes = edges[:, :node, node]
            steps = weights[:, codes].transpose(1, 0, 2)
            linked = (codes > 0)[:, None]
            longest[:, :, node] = np.where(linked, longest[:, :, :node] + steps, -np.inf).max(
                axis=2
            )
            shortest[:, :, node] = np.where(linked, shortest[:, :, :node] + steps, np.inf).min(
                axis=2
            )
        return longest, shortest

    def _paths(self, edges: Codes, ends: Codes, by_op: np.ndarray) -> tuple[Matrix, Matrix]:
        """Paths on each kind alone, (cells, kind), and how many of each operation a path has."""
        allowed, batch = self._members.copy(), np.arange(len(edges))
        allowed[:, _PLAIN] = True
        linked = allowed[:, edges].transpose(1, 0, 2, 3)
        ahead = np.zeros((len(edges), len(allowed), self.nodes))
        ahead[:, :, : self.inputs] = 1
        for node in range(self.inputs, self.nodes):
            ahead[:, :, node] = (ahead * linked[:, :, :, node]).sum(axis=2)
        behind = np.zeros((len(edges), self.nodes))
        behind[batch, ends] = 1
        for node in reversed(range(self.nodes)):
            behind[:, node] += (behind * (edges[:, node] > 0)).sum(axis=1)
        paths = ahead[batch, :, ends]
        through = ahead[:, 0, :, None] * behind[:, None, :]
        on_paths = (by_op * through[:, None]).sum(axis=(2, 3)) / np.maximum(paths[:, :1], 1)
        return paths, on_paths


_TOGETHER = 2048
"""Cells in one array: more would not fit a core's cache."""
