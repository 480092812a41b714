"""Graph features: cells worked out by hand, all paths listed, isomorphic cells."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from searching import DARTS_V2

from ghnas.architectures.labelled_dag import DagKind, LabelledDag, with_operations_on_vertices
from ghnas.spaces import list_spaces, load_space
from ghnas.spaces.features import feature_names, graph_features

DARTS, DENSE = load_space("darts"), load_space("nasbench201")
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


def features_of(space_name: str, text: str, cell: str) -> dict[str, float]:
    """Of a cell, without those that are zero."""
    space = load_space(space_name)
    [row] = graph_features(space, [space.parse(text)])
    named = dict(zip(feature_names(space), row, strict=True))
    return {
        name.removeprefix(f"{cell} "): value
        for name, value in named.items()
        if name.startswith(f"{cell} ") and value
    }


DARTS_OPERATIONS = (
    "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5",
    "dil_conv_3x3", "dil_conv_5x5",
)  # fmt: skip
DARTS_USED = ("skip_connect", "sep_conv_3x3", "dil_conv_3x3")


def with_others(operations: tuple[str, ...], *used: str, kind: str) -> list[str]:
    """Features of each of the operations used in DARTS_V2 with one that is not."""
    pairs = itertools.combinations(operations, 2)
    return [
        f"{kind} {a}+{b}"
        for a, b in pairs
        if (a in used and b not in DARTS_USED) or (b in used and a not in DARTS_USED)
    ]


def test_a_darts_cell_by_hand() -> None:
    assert features_of("darts", DARTS_V2, "normal") == pytest.approx(
        {
            "count skip_connect": 2,
            "count sep_conv_3x3": 5,
            "count dil_conv_3x3": 1,
            "input0 skip_connect": 2,
            "input0 sep_conv_3x3": 2,
            "input1 sep_conv_3x3": 3,
            "output skip_connect": 2,
            "output sep_conv_3x3": 5,
            "output dil_conv_3x3": 1,
            "edges": 8,
            "nodes": 4,
            "depth any": 2,
            "depth weighted": 2,
            "depth skip_connect": 1,
            "depth sep_conv_3x3": 1,
            "depth dil_conv_3x3": 1,
            "depth skip_connect+sep_conv_3x3": 1,
            "depth skip_connect+dil_conv_3x3": 1,
            "depth sep_conv_3x3+dil_conv_3x3": 2,
            **dict.fromkeys(with_others(DARTS_OPERATIONS, *DARTS_USED, kind="depth"), 1),
            "shortest any": 1,  # weighted: 0, by the skip connection to node 4
            "mean depth any": 5 / 4,
            "mean depth weighted": 5 / 4,
            "first nodes": 3,
            "paths any": 9,  # 2, 2 and 2 to the first three nodes, 1 + 2 to the last
            "paths weighted": 7,
            "paths weightless": 2,
            "paths skip_connect": 2,
            "paths sep_conv_3x3": 5,
            "paths skip_connect+sep_conv_3x3": 7,
            "paths skip_connect+dil_conv_3x3": 2,
            "paths sep_conv_3x3+dil_conv_3x3": 7,
            **dict.fromkeys(with_others(DARTS_OPERATIONS, "skip_connect", kind="paths"), 2),
            **dict.fromkeys(with_others(DARTS_OPERATIONS, "sep_conv_3x3", kind="paths"), 5),
            "on paths skip_connect": 2 / 9,
            "on paths sep_conv_3x3": 7 / 9,
            "on paths dil_conv_3x3": 2 / 9,
            "most in": 2,
            "most out": 4,
            "out of input0": 4,
            "out of input1": 3,
        }
    )


def test_a_dense_cell_by_hand() -> None:
    """Three paths: conv 3x3 and pooling, conv 3x3 twice, conv 1x1."""
    text = "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_3x3~2|"
    assert features_of("nasbench201", text, "cell") == pytest.approx(
        {
            "count nor_conv_1x1": 1,
            "count nor_conv_3x3": 3,
            "count avg_pool_3x3": 1,
            "input nor_conv_1x1": 1,
            "input nor_conv_3x3": 2,
            "output nor_conv_1x1": 1,
            "output nor_conv_3x3": 1,
            "output avg_pool_3x3": 1,
            "edges": 5,
            "nodes": 3,
            "depth any": 2,
            "depth weighted": 2,
            "depth nor_conv_1x1": 1,
            "depth nor_conv_3x3": 2,
            "depth avg_pool_3x3": 1,
            "depth skip_connect+nor_conv_1x1": 1,
            "depth skip_connect+nor_conv_3x3": 2,
            "depth skip_connect+avg_pool_3x3": 1,
            "depth nor_conv_1x1+nor_conv_3x3": 2,
            "depth nor_conv_1x1+avg_pool_3x3": 1,
            "depth nor_conv_3x3+avg_pool_3x3": 2,
            "shortest any": 1,
            "shortest weighted": 1,
            "mean depth any": 4 / 3,
            "mean depth weighted": 4 / 3,
            "first nodes": 2,
            "paths any": 3,
            "paths weighted": 2,
            "paths nor_conv_1x1": 1,
            "paths nor_conv_3x3": 1,
            "paths skip_connect+nor_conv_1x1": 1,
            "paths skip_connect+nor_conv_3x3": 1,
            "paths nor_conv_1x1+nor_conv_3x3": 2,
            "paths nor_conv_1x1+avg_pool_3x3": 1,
            "paths nor_conv_3x3+avg_pool_3x3": 2,
            "on paths nor_conv_1x1": 1 / 3,
            "on paths nor_conv_3x3": 1,
            "on paths avg_pool_3x3": 1 / 3,
            "most in": 3,
            "most out": 3,
            "out of input": 3,
        }
    )


def test_what_leads_nowhere_does_not_count() -> None:
    dead = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|none~2|"
    alone = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    assert features_of("nasbench201", dead, "cell") == features_of("nasbench201", alone, "cell")


def test_a_cell_with_operations_on_its_vertices_by_hand() -> None:
    """From the input to a (1) and b (2), from a to b, from b and the input to the output (3)."""
    cell = with_operations_on_vertices(["a", "b"], [(0, 1), (0, 2), (1, 2), (2, 3), (0, 3)])
    kind = DagKind(("a", "b"), frozenset("a"), inputs=1, nodes=6)
    [row] = kind.features([cell])
    found = {name: value for name, value in zip(kind.names, row, strict=True) if value}
    assert found == pytest.approx(
        {
            "count a": 1,
            "count b": 1,
            "input a": 1,
            "input b": 1,
            "output b": 1,
            "edges": 2,
            "nodes": 2,
            "depth any": 2,
            "depth weighted": 1,
            "depth a": 1,
            "depth b": 1,
            "depth a+b": 2,
            "mean depth any": 3 / 2,
            "mean depth weighted": 1,
            "first nodes": 1,
            "paths any": 3,  # b; a and b; none, from the input to the output
            "paths weighted": 1,
            "paths weightless": 2,
            "paths a": 1,
            "paths b": 2,
            "paths a+b": 3,
            "on paths a": 1 / 3,
            "on paths b": 2 / 3,
            "most in": 1,
            "most out": 1,
            "out of input": 2,
        }
    )


KIND = DagKind(("a", "b", "c"), frozenset("ab"), inputs=2, nodes=6)
cells = st.lists(st.sampled_from(["a", "b", "c", "plain", "none"]), min_size=14, max_size=14)


def drawn(labels: list[str]) -> LabelledDag:
    pairs = [(i, j) for j in range(2, 6) for i in range(j)]
    edges = [(*pair, label) for pair, label in zip(pairs, labels, strict=True) if label != "none"]
    named = tuple((None if label == "plain" else label, i, j) for i, j, label in edges)
    return LabelledDag(named, output=5)


def paths_to(cell: LabelledDag, node: int) -> Iterator[list[str]]:
    """The operations of every path from an input, by following each edge backwards."""
    if node < 2:
        yield []
    for operation, source, target in cell.edges:
        if target == node:
            for before in paths_to(cell, source):
                yield [*before, *([operation] if operation else [])]


@given(st.lists(cells, min_size=1, max_size=5))
@settings(deadline=None)
def test_paths_are_those_that_a_list_of_all_has(many: list[list[str]]) -> None:
    for labels, row in zip(many, KIND.features([drawn(item) for item in many]), strict=True):
        found = dict(zip(KIND.names, row, strict=True))
        paths = list(paths_to(drawn(labels), 5))
        weights = [sum(op in "ab" for op in path) for path in paths]
        assert found["paths any"] == len(paths)
        assert found["depth any"] == max(map(len, paths), default=0)
        assert found["shortest any"] == min(map(len, paths), default=0)
        assert found["depth weighted"] == max(weights, default=0)
        assert found["shortest weighted"] == min(weights, default=0)
        assert found["paths weightless"] == sum(set(path) <= {"c"} for path in paths)
        assert found["paths weighted"] == sum(set(path) <= {"a", "b"} for path in paths)
        for op in "abc":
            assert found[f"depth {op}"] == max((path.count(op) for path in paths), default=0)
            assert found[f"paths {op}"] == sum(set(path) <= {op} for path in paths)
            mean = sum(path.count(op) for path in paths) / max(len(paths), 1)
            for other in "abc"["abc".index(op) + 1 :]:
                both, name = {op, other}, f"{op}+{other}"
                counts = (sum(step in both for step in path) for path in paths)
                assert found[f"depth {name}"] == max(counts, default=0)
                assert found[f"paths {name}"] == sum(set(path) <= both for path in paths)
            assert found[f"on paths {op}"] == pytest.approx(mean)


@given(st.tuples(*[st.sampled_from(OPERATIONS)] * 5))
@settings(deadline=None)
def test_dense_cells_with_exchanged_nodes(operations: tuple[str, ...]) -> None:
    a, b, c, d, e = operations  # of 0-1, 0-2, 0-3, 1-3, 2-3; nothing between 1 and 2
    one = {"0-1": a, "0-2": b, "1-2": "none", "0-3": c, "1-3": d, "2-3": e}
    other = {"0-1": b, "0-2": a, "1-2": "none", "0-3": c, "1-3": e, "2-3": d}
    first, second = graph_features(DENSE, [DENSE.architecture(item) for item in (one, other)])
    assert np.array_equal(first, second)


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=30)
def test_darts_cells_with_exchanged_nodes(seed: int) -> None:
    """Nodes 2 and 3 change places, and whoever reads one reads the other."""
    choices = dict(DARTS.sample(random.Random(seed)).choices) | {"normal.3.inputs": "0+1"}
    other = dict(choices)
    for side in ("first", "second"):
        two, three = f"normal.2.{side}", f"normal.3.{side}"
        other[two], other[three] = choices[three], choices[two]
    for node in (4, 5):
        sides = [f"normal.{node}.{side}" for side in ("first", "second")]
        sources = [
            {2: 3, 3: 2}.get(int(s), int(s)) for s in choices[f"normal.{node}.inputs"].split("+")
        ]
        order = sorted(range(2), key=lambda i: sources[i])
        other[f"normal.{node}.inputs"] = "+".join(str(sources[i]) for i in order)
        other |= {sides[place]: choices[sides[i]] for place, i in enumerate(order)}
    first, second = graph_features(DARTS, [DARTS.architecture(item) for item in (choices, other)])
    assert np.array_equal(first, second)


@pytest.mark.parametrize("name", list_spaces())
def test_every_space_has_features_that_do_not_depend_on_the_batch(name: str) -> None:
    space = load_space(name)
    some = [space.sample(seed) for seed in range(6)]
    rows = graph_features(space, some)
    assert rows.shape == (6, len(feature_names(space)))
    assert len(set(feature_names(space))) == rows.shape[1]
    assert np.isfinite(rows).all()
    assert len(np.unique(rows, axis=0)) > 1
    assert np.array_equal(rows, np.concatenate([graph_features(space, [item]) for item in some]))
    resized = [item.for_images((3, 64, 64), 5) for item in some]
    assert np.array_equal(rows, graph_features(space, resized))
    assert graph_features(space, []).shape == (0, rows.shape[1])


def test_features_do_not_depend_on_the_skeleton() -> None:
    deep = DARTS.with_skeleton(cells=8, channels=4)
    rows = [graph_features(space, [space.sample(0)]) for space in (DARTS, deep)]
    assert np.array_equal(*rows)


def test_numbers_that_are_chosen_are_features() -> None:
    space = load_space("mobile")
    architecture = space.sample(3)
    [row] = graph_features(space, [architecture])
    named = dict(zip(feature_names(space), row, strict=True))
    assert {name: named[name] for name in architecture.choices} == dict(architecture.choices)
