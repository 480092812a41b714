"""Graph features: an architecture as a row of numbers, for predictors of accuracy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ghnas.architectures.architecture import Architecture
from ghnas.architectures.graph import Graph
from ghnas.architectures.labelled_dag import Matrix
from ghnas.architectures.paths import levels
from ghnas.spaces.base import Space

IMAGE, CLASSES = (3, 32, 32), 10
"""What parameters and FLOPs are counted for."""


PRIMITIVES = (
    "max_pool", "avg_pool", "sep_conv", "dil_conv", "conv", "msa", "cse", "sum", "concat", "bn",
    "ln", "pos_enc",
)  # fmt: skip
"""Node types whose number differs between architectures."""


def feature_names(space: Space) -> tuple[str, ...]:
    """What `graph_features` gives, in its order.

    - `CELL FEATURE` for each kind of cell; see `ghnas.architectures.labelled_dag.DagKind`.
    - The choices that are numbers, by their names (`Space.feature_choices`).
    - `primitive TYPE`, `nodes`, `levels`: nodes of the graph by primitive type, all of them, and
      the longest path, where the space has no cells.
    - `parameters`, `flops` and `parameters PART`, `flops PART`: natural logarithms (of 1 +), of
      the whole and of each kind of cell or stage.
    """
    cells = [f"{cell} {name}" for cell, kind in space.dag_kinds.items() for name in kind.names]
    whole = [] if space.dag_kinds else [*(f"primitive {name}" for name in PRIMITIVES), *_WHOLE]
    parts = ["", *(f" {part}" for part in _different(space.feature_parts))]
    return (
        *cells,
        *space.feature_choices,
        *whole,
        *(f"{size}{part}" for size in ("parameters", "flops") for part in parts),
    )


def graph_features(space: Space, architectures: Sequence[Architecture]) -> Matrix:
    """Graph features, which depend on the choices alone: whatever the skeleton and the images of
    the architectures, parameters and FLOPs are counted in `Space.for_features`.

    Args:
        space: Theirs.
        architectures: Of the space.

    Returns:
        (architectures, len(feature_names(space))), the same for isomorphic cells.
    """
    if not architectures:
        return np.empty((0, len(feature_names(space))))
    choices = [dict(item.choices) for item in architectures]
    dags = [space.dags(item) for item in choices]
    columns = [kind.features([d[cell] for d in dags]) for cell, kind in space.dag_kinds.items()]
    numbers = space.feature_choices
    columns.append(np.array([[item[name] for name in numbers] for item in choices], dtype=float))
    small = space.for_features.for_images(IMAGE, CLASSES)
    # a graph is dropped as soon as it is read: thousands would keep the garbage collector busy
    columns.append(np.array([_of_graph(space, small.build(c, IMAGE, CLASSES)) for c in choices]))
    return np.concatenate(columns, axis=1)


_WHOLE = ("nodes", "levels")


def _different(parts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(parts))


def _of_graph(space: Space, graph: Graph) -> list[float]:
    """What is read of the whole graph."""
    sizes = list(map(math.log1p, _sizes(graph, space.feature_parts)))
    if space.dag_kinds:
        return sizes
    counts = Counter(node.spec.primitive for node in graph.nodes)
    view = graph.primitives
    depth = float(levels(len(view.nodes), view.edges)[0][-1])
    return [*(counts[name] for name in PRIMITIVES), len(view.nodes), depth, *sizes]


def _sizes(graph: Graph, parts: Sequence[str]) -> list[int]:
    """Parameters, FLOPs: of the whole and of each part."""
    places = {part: place for place, part in enumerate(_different(parts), start=1)}
    parameters, flops = [0] * (1 + len(places)), [0] * (1 + len(places))
    parameters[0], flops[0] = graph.parameter_count, graph.flops
    if parts:
        for node in graph.nodes:
            place = places[parts[node.cell]]
            parameters[place] += node.spec.parameter_count
            flops[place] += node.spec.flops
    return parameters + flops
