"""What the hypernetwork reads of a graph, and graphs batched with torch_geometric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from ghnas.graph import Graph, Shape, levels, shortest_paths

PRIMITIVES = (
    "max_pool",
    "avg_pool",
    "sep_conv",
    "dil_conv",
    "conv",
    "msa",
    "cse",
    "sum",
    "concat",
    "input",
    "bias",
    "bn",
    "ln",
    "pos_enc",
    "glob_avg",
)
"""Node types, in the order of the published embedding table."""
CUTOFF = 50
"""Longest shortest path that becomes a virtual edge (section 4.1 of the paper)."""


@dataclass(frozen=True)
class Slot:
    """A parameter to predict.

    Args:
        name: Its full name.
        shape: Its shape.
        node: Position of its node in the primitive graph.
        role: `weight`, `head_weight`, `norm_weight`, `bias` or `head_bias`.
    """

    name: str
    shape: Shape
    node: int
    role: str


@dataclass(frozen=True)
class GraphFeatures:
    """A graph for the hypernetwork: `data` for torch_geometric, `slots` to name the results."""

    data: Data
    slots: tuple[Slot, ...]


def graph_features(graph: Graph, cutoff: int = CUTOFF) -> GraphFeatures:
    """Read a graph.

    Args:
        graph: The architecture.
        cutoff: Longest virtual edge; 1 leaves direct edges alone (GHN-1).

    Returns:
        `data` with `primitive` (n,), `shape` (n, 4; out, in, height, width; 0 where there is
        none), `path_index` (2, p: from, to), `path_length` (p,), `level` and `height` (n,):
        longest path from a source and to a sink.
    """
    view = graph.primitives
    count = len(view.nodes)
    # a node of zeros reads the graph only for its size
    edges = [
        edge for edge in view.edges if graph.nodes[view.nodes[edge[1]]].spec.op.kind != "zeros"  # type: ignore[attr-defined]
    ]
    above = levels(count, edges)
    mirrored = [(count - 1 - b, count - 1 - a) for a, b in edges]
    below = levels(count, mirrored)[::-1].copy()
    distance = shortest_paths(count, edges, cutoff)
    targets, sources = np.nonzero(distance)
    primitive = [PRIMITIVES.index(graph.nodes[i].op.primitive or "") for i in view.nodes]
    shapes = [_four(graph.nodes[i].spec.feature_shape) for i in view.nodes]
    data = Data(
        primitive=torch.tensor(primitive),
        shape=torch.tensor(shapes),
        path_index=torch.from_numpy(np.stack([sources, targets])),
        path_length=torch.from_numpy(distance[targets, sources]),
        level=torch.from_numpy(above),
        height=torch.from_numpy(below),
        num_nodes=count,
    )
    return GraphFeatures(data, tuple(_slots(graph, view.nodes)))


def _four(shape: Shape | None) -> tuple[int, int, int, int]:
    """A parameter's shape as (out, in, height, width)."""
    if shape is None:
        return (0, 0, 0, 0)
    out, fan_in, height, width = (*shape, *(1, 1, 1, 1)[len(shape) :])
    return (out, fan_in, height, width)


def _slots(graph: Graph, kept: Sequence[int]) -> list[Slot]:
    # the classifier is the last matrix and the last bias: the published decoder has heads for both
    kinds = [graph.nodes[i].op.kind for i in kept]  # type: ignore[attr-defined]
    heads = {
        max((p for p, kind in enumerate(kinds) if kind == wanted), default=-1)
        for wanted in ("linear", "bias")
    }
    result = []
    for position, index in enumerate(kept):
        for name, shape in graph.nodes[index].parameters:
            key = name.rpartition(".")[2]
            if len(shape) == 1 and key == "weight":
                role = "norm_weight"
            else:
                role = f"head_{key}" if position in heads else key
            result.append(Slot(name, shape, position, role))
    return result


@dataclass(frozen=True)
class Traversal:
    """One direction through a batch of graphs, a step for each level.

    Nodes are numbered by rank: sorted by level. Edges are sorted by the rank of their target.

    Args:
        order: (N,) node of each rank.
        rank: (N,) rank of each node.
        node_ends: First rank after each level.
        sources: (E,) rank of each edge's source.
        targets: (E,) rank of each edge's target, counted from its level's first.
        lengths: (E,) shortest-path lengths as floats.
        edge_ends: First edge after each level.
    """

    order: Tensor
    rank: Tensor
    node_ends: tuple[int, ...]
    sources: Tensor
    targets: Tensor
    lengths: Tensor
    edge_ends: tuple[int, ...]

    def to(self, device: torch.device) -> Traversal:
        """The same on another device."""
        moved = {
            key: getattr(self, key).to(device, non_blocking=True)
            for key in ("order", "rank", "sources", "targets", "lengths")
        }
        return Traversal(node_ends=self.node_ends, edge_ends=self.edge_ends, **moved)


@dataclass(frozen=True)
class FeatureBatch:
    """Features of several graphs, ready for the hypernetwork.

    Args:
        primitive: (N,) node types.
        shape: (N, 4) parameter shapes.
        graph: (N,) which graph a node belongs to.
        forward: Traversal along the edges.
        backward: Traversal against them.
        slots: For each graph the parameters to predict, their nodes counted over the batch.
    """

    primitive: Tensor
    shape: Tensor
    graph: Tensor
    forward: Traversal
    backward: Traversal
    slots: tuple[tuple[Slot, ...], ...]

    def to(self, device: torch.device) -> FeatureBatch:
        """The same on another device."""
        return FeatureBatch(
            self.primitive.to(device, non_blocking=True),
            self.shape.to(device, non_blocking=True),
            self.graph.to(device, non_blocking=True),
            self.forward.to(device),
            self.backward.to(device),
            self.slots,
        )


def batch_features(features: Sequence[GraphFeatures]) -> FeatureBatch:
    """Put graphs into one batch and sort their nodes into levels."""
    batch = Batch.from_data_list([item.data for item in features])
    starts = batch.ptr.tolist()
    slots = tuple(
        tuple(Slot(s.name, s.shape, s.node + start, s.role) for s in item.slots)
        for item, start in zip(features, starts, strict=False)
    )
    source, target = batch.path_index
    return FeatureBatch(
        primitive=batch.primitive,
        shape=batch.shape,
        graph=batch.batch,
        forward=_traversal(batch.level, source, target, batch.path_length),
        backward=_traversal(batch.height, target, source, batch.path_length),
        slots=slots,
    )


def _traversal(level: Tensor, source: Tensor, target: Tensor, length: Tensor) -> Traversal:
    order = torch.argsort(level, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    node_ends = torch.cumsum(torch.bincount(level), 0)
    sources, targets = rank[source], rank[target]
    by_target = torch.argsort(targets, stable=True)
    sources, targets, length = sources[by_target], targets[by_target], length[by_target]
    edge_ends = torch.searchsorted(targets, node_ends)
    starts = torch.cat([node_ends.new_zeros(1), node_ends[:-1]])
    local = targets - starts[level[order[targets]]]
    return Traversal(
        order,
        rank,
        tuple(node_ends.tolist()),
        sources,
        local,
        length.float(),
        tuple(edge_ends.tolist()),
    )
