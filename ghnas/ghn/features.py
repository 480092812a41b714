"""What the hypernetwork reads of a graph, and graphs batched with torch_geometric."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ghnas.architectures.graph import Graph, Shape
from ghnas.architectures.paths import CUTOFF, levels, shortest_paths

with warnings.catch_warnings():  # of torch.jit.script, which this import calls
    warnings.simplefilter("ignore", FutureWarning)
    from torch_geometric.data import Batch, Data

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
_CODES: dict[str | None, int] = {name: code for code, name in enumerate(PRIMITIVES)}


@dataclass(frozen=True)
class GraphFeatures:
    """What the hypernetwork reads of a graph.

    Args:
        graph: The architecture.
        data: For torch_geometric: `primitive` (n,) node types; `shape` (n, 4) parameter shapes,
            out, in, height, width, 0 where there is none; `path_index` (2, p: from, to) pairs with
            a path, `path_length` (p,) of the shortest; `level` (n,) longest path from a source;
            `height` (n,) longest path to a sink.
        kept_head: Whether the classifier is left out of what is predicted.
    """

    graph: Graph
    data: Data
    kept_head: bool = False

    def slots(self) -> Iterator[tuple[str, Shape, str, int]]:
        """The parameters to predict: role, shape, full name, position in the primitive graph."""
        heads = _heads(self.graph)
        for position, index in enumerate(self.graph.primitives.nodes):
            if not (self.kept_head and position in heads):
                node = self.graph.nodes[index]
                for name, shape in node.parameters:
                    role = heads.get(position) or _role(node.spec.primitive, name)
                    yield role, shape, name, position


def graph_features(
    graphs: Sequence[Graph], cutoff: int = CUTOFF, kept_head: int | None = None
) -> list[GraphFeatures]:
    """Read graphs.

    Args:
        graphs: The architectures.
        cutoff: Longest virtual edge; 1 leaves direct edges alone (GHN-1).
        kept_head: Classes of the hypernetwork, where the classifier is not to be predicted: it
            is read as if it had so many outputs, and has no slots.
    """
    views = [(len(graph.primitives.nodes), graph.primitives.edges) for graph in graphs]
    distances = shortest_paths(views, cutoff)
    return [
        _read(graph, distance, kept_head) for graph, distance in zip(graphs, distances, strict=True)
    ]


def _read(graph: Graph, distance: np.ndarray, kept_head: int | None) -> GraphFeatures:
    view = graph.primitives
    count = len(view.nodes)
    specs = [graph.nodes[i].spec for i in view.nodes]
    shapes = [spec.padded_feature_shape for spec in specs]
    if kept_head is not None:
        for position in _heads(graph):
            shapes[position] = (kept_head, *shapes[position][1:])
    above, below = levels(count, view.edges)
    targets, sources = np.nonzero(distance != 0)
    shape = np.fromiter(chain.from_iterable(shapes), np.int64, 4 * count).reshape(count, 4)
    data = Data(
        primitive=torch.tensor([_CODES[spec.primitive] for spec in specs]),
        shape=torch.from_numpy(shape),
        path_index=torch.from_numpy(np.stack([sources, targets])),
        path_length=torch.from_numpy(distance[targets, sources]),
        level=torch.from_numpy(above),
        height=torch.from_numpy(below),
        num_nodes=count,
    )
    return GraphFeatures(graph, data, kept_head is not None)


def _heads(graph: Graph) -> dict[int, str]:
    """The classifier, for which the published decoder has heads: a final bias and its matrix."""
    kept = graph.primitives.nodes
    last = len(kept) - 1
    if graph.nodes[kept[last]].spec.primitive != "bias":
        return {}
    heads = {last: "head_bias"}
    sources = [a for a, b in graph.primitives.edges if b == last]
    for source in sources:
        shapes = [shape for _, shape in graph.nodes[kept[source]].parameters]
        if [len(shape) for shape in shapes] == [2]:
            heads[source] = "head_weight"
    return heads


def _role(primitive: str | None, name: str) -> str:
    if primitive in ("bn", "ln") and not name.endswith("bias"):
        return "norm_weight"
    if primitive in ("bn", "ln", "bias"):
        return "bias"
    return "pos_enc" if primitive == "pos_enc" else "weight"


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

    def receive(self, messages: Tensor, level: int, start: int, end: int) -> Tensor:
        """Sum the weighted messages into the nodes of one level.

        Args:
            messages: (M, width).
            level: Index of the level.
            start: Its first rank.
            end: The first rank after it.

        Returns:
            (end - start, width).
        """
        first, last = self.edge_ends[level - 1] if level else 0, self.edge_ends[level]
        if first == last:
            return messages.new_zeros(end - start, messages.shape[1])
        sources, weights = self.sources[first:last], self.weights[first:last]
        if messages.is_cuda and messages.requires_grad:
            # the backward pass of embedding_bag sorts, which is slow on a GPU; the sums of this
            # one can differ in their last digits from run to run
            zeros = messages.new_zeros(end - start, messages.shape[1])
            terms = messages[sources] * weights[:, None]
            return zeros.index_add(0, self.targets[first:last], terms)
        return F.embedding_bag(
            sources, messages, self.starts[start:end], mode="sum", per_sample_weights=weights
        )


@dataclass(frozen=True)
class DecodeGroup:
    """Parameters of one role and shape, of all graphs of a batch: decoded together.

    Args:
        role: `weight`, `head_weight`, `pos_enc`, `norm_weight`, `bias` or `head_bias`.
        shape: Of each.
        members: (index of the graph, name) of each parameter.
    """

    role: str
    shape: Shape
    members: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class FeatureBatch:
    """Features of several graphs, ready for the hypernetwork.

    Args:
        primitive: (N,) node types.
        shape: (N, 4) parameter shapes.
        graph: (N,) which graph a node belongs to.
        forward: Traversal along the edges.
        backward: Traversal against them.
        groups: The parameters to predict.
        nodes: The node of each member of each group, one group after the other.
    """

    primitive: Tensor
    shape: Tensor
    graph: Tensor
    forward: Traversal
    backward: Traversal
    groups: tuple[DecodeGroup, ...]
    nodes: Tensor

    @property
    def rows(self) -> tuple[tuple[tuple[int, str], ...], ...]:
        """For each of `groups` (index of the graph, name) of its parameters."""
        return tuple([group.members for group in self.groups])

    def by_graph(self, stacks: Sequence[Tensor], count: int) -> list[dict[str, Tensor]]:
        """The parameters of each graph by name.

        Args:
            stacks: For each of `groups` its parameters (members, *shape), as predicted.
            count: Graphs of the batch.
        """
        result: list[dict[str, Tensor]] = [{} for _ in range(count)]
        for group, stack in zip(self.groups, stacks, strict=True):
            for (index, name), tensor in zip(group.members, stack.unbind(0), strict=True):
                result[index][name] = tensor
        return result

    def to(self, device: torch.device) -> FeatureBatch:
        """The same on another device."""
        moved: FeatureBatch = _moved(self, device)
        return moved


def _moved(value: Any, device: torch.device) -> Any:
    """A tensor, or a dataclass with the tensors in it, on another device."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if not is_dataclass(value) or isinstance(value, type):
        return value
    parts = {item.name: _moved(getattr(value, item.name), device) for item in fields(value)}
    return replace(value, **parts)


def batch_features(features: Sequence[GraphFeatures], virtual_edges: bool = True) -> FeatureBatch:
    """Put graphs into one batch and sort their nodes into levels."""
    kinds = 2 if virtual_edges else 1
    batch = Batch.from_data_list([item.data for item in features])
    groups, nodes = _decode_groups(features, batch.ptr.tolist())
    source, target = batch.path_index
    return FeatureBatch(
        primitive=batch.primitive,
        shape=batch.shape,
        graph=batch.batch,
        forward=_traversal(batch.level, source, target, batch.path_length, kinds),
        backward=_traversal(batch.height, target, source, batch.path_length, kinds),
        groups=groups,
        nodes=nodes,
    )


def _decode_groups(
    features: Sequence[GraphFeatures], starts: Sequence[int]
) -> tuple[tuple[DecodeGroup, ...], Tensor]:
    found: dict[tuple[str, Shape], list[tuple[int, str, int]]] = defaultdict(list)
    for index, item in enumerate(features):
        for role, shape, name, position in item.slots():
            found[role, shape].append((index, name, position + starts[index]))
    groups = tuple(
        DecodeGroup(role, shape, tuple((index, name) for index, name, _ in members))
        for (role, shape), members in found.items()
    )
    nodes = [node for members in found.values() for _, _, node in members]
    return groups, torch.tensor(nodes, dtype=torch.int64)


def _traversal(
    level: Tensor, source: Tensor, target: Tensor, length: Tensor, kinds: int
) -> Traversal:
    order = torch.argsort(level, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    ends = torch.cumsum(torch.bincount(level), 0)
    sources, targets, weights = rank[source], rank[target], 1 / length.float()
    near = length == 1
    rows, goals, factors = sources[near] * kinds, targets[near], weights[near]
    if kinds == 2:
        rows = torch.cat([rows, sources * 2 + 1])
        goals, factors = torch.cat([goals, targets]), torch.cat([factors, weights])
    by_target = torch.argsort(goals, stable=True)
    rows, goals, factors = rows[by_target], goals[by_target], factors[by_target]
    begins = torch.cat([ends.new_zeros(1), ends[:-1]])
    edge_begins, edge_ends = torch.searchsorted(goals, torch.stack([begins, ends]))
    ranks = torch.arange(len(order))
    level_of = torch.searchsorted(ends, ranks, right=True)
    return Traversal(
        order,
        rank,
        tuple(ends.tolist()),
        kinds,
        sources=rows,
        targets=goals - begins[level_of[goals]],
        starts=torch.searchsorted(goals, ranks) - edge_begins[level_of],
        weights=factors,
        edge_ends=tuple(edge_ends.tolist()),
    )
