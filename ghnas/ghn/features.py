"""What the hypernetwork reads of a graph, and graphs batched with torch_geometric."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ghnas.architectures.graph import Graph, Shape
from ghnas.architectures.paths import CUTOFF, levels, shortest_paths
from ghnas.ghn.traversal import Traversal, traversal

if TYPE_CHECKING:
    from torch_geometric.data import Data

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
        primitive: (n,) node types.
        shape: (n, 4) parameter shapes, out, in, height, width, 0 where there is none.
        distance: (n, n: to, from) length of the shortest path, 0 where there is none.
        level: (n,) longest path from a source.
        height: (n,) longest path to a sink.
        kept_head: Whether the classifier is left out of what is predicted.
    """

    graph: Graph
    primitive: np.ndarray
    shape: np.ndarray
    distance: np.ndarray
    level: np.ndarray
    height: np.ndarray
    kept_head: bool = False

    @property
    def data(self) -> Data:
        """The same for torch_geometric, with `path_index` (2, p: from, to), the pairs with a path,
        and `path_length` (p,)."""
        from torch_geometric.data import Data

        targets, sources = np.nonzero(self.distance)
        arrays = {
            "primitive": self.primitive,
            "shape": self.shape,
            "path_index": np.stack([sources, targets]),
            "path_length": self.distance[targets, sources],
            "level": self.level,
            "height": self.height,
        }
        return Data(
            num_nodes=len(self.level),
            **{name: torch.from_numpy(array) for name, array in arrays.items()},
        )


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
    level, height = levels(count, view.edges)
    return GraphFeatures(
        graph,
        primitive=np.array([_CODES[spec.primitive] for spec in specs]),
        shape=np.fromiter(chain.from_iterable(shapes), np.int64, 4 * count).reshape(count, 4),
        distance=distance,
        level=level,
        height=height,
        kept_head=kept_head is not None,
    )


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
    counts = [len(item.level) for item in features]
    starts = np.cumsum([0, *counts])
    groups, nodes = _decode_groups(features, starts.tolist())
    distances = [item.distance for item in features]
    return FeatureBatch(
        primitive=torch.from_numpy(np.concatenate([item.primitive for item in features])),
        shape=torch.from_numpy(np.concatenate([item.shape for item in features])),
        graph=torch.from_numpy(np.repeat(np.arange(len(features)), counts)),
        forward=traversal([item.level for item in features], distances, starts, kinds),
        backward=traversal(
            [item.height for item in features], [item.T for item in distances], starts, kinds
        ),
        groups=groups,
        nodes=nodes,
    )


def _decode_groups(
    features: Sequence[GraphFeatures], starts: Sequence[int]
) -> tuple[tuple[DecodeGroup, ...], Tensor]:
    """The parameters to predict by role and shape, and the node of each."""
    found: dict[tuple[str, Shape], tuple[list[tuple[int, str]], list[int]]]
    found = defaultdict(lambda: ([], []))
    known: dict[int, list[tuple[str, list[tuple[int, str]], list[int]]]] = {}
    for index, item in enumerate(features):
        nodes, heads = item.graph.nodes, _heads(item.graph)
        for position, number in enumerate(item.graph.primitives.nodes):
            spec, _, name, _ = nodes[number]
            if position in heads:
                if item.kept_head:
                    continue
                role = heads[position]
                slots = [(key, *found[role, shape]) for key, shape in spec.parameter_shapes]
            elif id(spec) in known:  # many nodes share it
                slots = known[id(spec)]
            else:
                slots = known[id(spec)] = [
                    (key, *found[_role(spec.primitive, key), shape])
                    for key, shape in spec.parameter_shapes
                ]
            for key, members, owners in slots:
                members.append((index, f"{name}.{key}" if name else key))
                owners.append(starts[index] + position)
    groups = tuple(DecodeGroup(*key, tuple(members)) for key, (members, _) in found.items())
    owners = [node for _, nodes in found.values() for node in nodes]
    return groups, torch.tensor(owners, dtype=torch.int64)
