"""Longest and shortest paths of directed acyclic graphs, of many graphs at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

CUTOFF = 50
"""Longest shortest path that becomes a virtual edge (arXiv 2110.13100, section 4.1)."""


def levels(count: int, edges: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Longest paths, in edges, from any source to each node and from each node to any sink.

    Args:
        count: Number of nodes.
        edges: Pairs (from, to) with from < to, in the order of `to`.

    Returns:
        Two int64 arrays (count,).
    """
    above, below = [0] * count, [0] * count
    for source, target in edges:
        length = above[source] + 1
        if length > above[target]:
            above[target] = length
    for source, target in reversed(edges):
        length = below[target] + 1
        if length > below[source]:
            below[source] = length
    return np.array(above), np.array(below)


def shortest_paths(
    graphs: Sequence[tuple[int, Sequence[tuple[int, int]]]], cutoff: int
) -> list[np.ndarray]:
    """Directed shortest-path lengths between all pairs of nodes, of many graphs at once.

    Args:
        graphs: For each its number of nodes and its pairs (from, to) with from < to, in the
            order of `to`.
        cutoff: Longer paths are left out.

    Returns:
        For each graph a uint8 array (count, count); entry [to, from] is the length, 0 where
        there is no path of at most `cutoff` edges.

    Raises:
        ValueError: If `cutoff` is over 254.
    """
    if cutoff > 254:
        raise ValueError("cutoff must be at most 254")
    order = sorted(range(len(graphs)), key=lambda index: graphs[index][0])
    result: dict[int, np.ndarray] = {}
    for start in range(0, len(order), _TOGETHER):
        chosen = order[start : start + _TOGETHER]
        found = _shortest_paths([graphs[index] for index in chosen], cutoff)
        result |= zip(chosen, found, strict=True)
    return [result[index] for index in range(len(graphs))]


_TOGETHER = 32
"""Graphs of about one size in one array: more would not fit a core's cache."""


def _shortest_paths(
    graphs: Sequence[tuple[int, Sequence[tuple[int, int]]]], cutoff: int
) -> list[np.ndarray]:
    size, many = max((count for count, _ in graphs), default=0), len(graphs)
    # row `size` stands for no node: from there to anywhere is too far
    distance = np.full((size + 1, many, size), cutoff, dtype=np.uint8)
    sources = _sources_by_target(graphs, size)
    used = (sources < size).any(axis=2).sum(axis=1).tolist()
    flat, rows = distance.reshape(-1, size), sources * many + np.arange(many)
    reached = np.empty((many, size), dtype=np.uint8)
    for node in range(size):
        nearest = distance[node]
        for number in range(used[node]):
            np.take(flat, rows[node, number], axis=0, out=reached, mode="clip")
            np.minimum(nearest, reached, out=nearest)
        nearest += 1
        nearest[:, node] = 0
    np.multiply(distance, distance <= cutoff, out=distance)
    return [distance[:count, index, :count].copy() for index, (count, _) in enumerate(graphs)]


def _sources_by_target(
    graphs: Sequence[tuple[int, Sequence[tuple[int, int]]]], size: int
) -> np.ndarray:
    """(target, number, graph): the number-th source of a target, `size` where there is none."""
    edges = [
        np.fromiter(chain.from_iterable(item), np.int64, 2 * len(item)).reshape(-1, 2)
        for _, item in graphs
    ]
    numbers: list[np.ndarray] = []
    for pairs in edges:
        targets = pairs[:, 1]
        numbers.append(np.arange(len(targets)) - np.searchsorted(targets, targets))
    most = max((int(item.max()) + 1 for item in numbers if len(item)), default=0)
    table = np.full((size, most, len(graphs)), size)
    for index, (pairs, number) in enumerate(zip(edges, numbers, strict=True)):
        table[pairs[:, 1], number, index] = pairs[:, 0]
    return table
