"""Graphs: contraction, shortest paths, canonical hash."""

from __future__ import annotations

import random

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from searching import DARTS_V2

from ghnas.architectures.genotypes import parse_genotype
from ghnas.architectures.graph import Graph, GraphBuilder
from ghnas.architectures.ops import Activation, BatchNorm, Concat, Conv, Input, Sum
from ghnas.architectures.paths import levels, shortest_paths
from ghnas.spaces import load_space

DARTS = load_space("darts")


def build(first: int, second: int) -> Graph:
    """Two branches of the given kernels, summed."""
    graph = GraphBuilder()
    image = graph.add(Input(3, 8, 8), name="input")
    left = graph.add(Conv(4, first), image, name="left")
    right = graph.add(Conv(4, second), image, name="right")
    graph.add(Sum(), left, right)
    return graph.build()


def test_counts_by_hand() -> None:
    graph = build(1, 3)
    assert graph.parameters == {"left.weight": (4, 3, 1, 1), "right.weight": (4, 3, 3, 3)}
    assert graph.parameter_count == 12 + 108
    assert graph.flops == 2 * 64 * (12 + 108)


def test_contraction_skips_activations() -> None:
    graph = GraphBuilder()
    image = graph.add(Input(3, 8, 8), name="input")
    conv = graph.add(Conv(3, 3), image, name="conv")
    relu = graph.add(Activation(), conv)
    assert graph.add(Activation(), conv) == relu  # equal ones are one node
    norm = graph.add(BatchNorm(), relu, name="bn")
    graph.add(Concat(), norm, relu)
    view = graph.build().primitives
    assert view.nodes == (0, 1, 3, 4)
    assert set(view.edges) == {(0, 1), (1, 2), (2, 3), (1, 3)}


def test_unused_nodes_are_dropped() -> None:
    graph = GraphBuilder()
    image = graph.add(Input(3, 8, 8), name="input")
    graph.add(Conv(4, 3), image, name="unused")
    graph.add(Conv(5, 3), image, name="used")
    assert list(graph.build().parameters) == ["used.weight"]


def test_hash_ignores_order_and_names_only() -> None:
    assert build(1, 3).hash == build(3, 1).hash
    assert build(1, 3).hash != build(1, 1).hash != build(3, 3).hash


def test_hash_tells_a_shared_node_from_two_equal_ones() -> None:
    def diamond(shared: bool) -> str:
        graph = GraphBuilder()
        image = graph.add(Input(3, 8, 8), name="input")
        a = graph.add(Conv(3, 3), image, name="a")
        b = graph.add(Conv(3, 3), image, name="b")
        c = graph.add(Conv(3, 1), a, name="c")
        d = graph.add(Conv(3, 1), a if shared else b, name="d")
        graph.add(Concat(), a, b, c, d)
        return graph.build().hash

    assert diamond(True) != diamond(False)


def test_isomorphic_genotypes_have_one_hash() -> None:
    rng = random.Random(0)
    candidate = dict(DARTS.sample(rng).choices)
    # nodes 2 and 3 both read the inputs alone, so that they can change places
    candidate |= {"normal.3.inputs": "0+1", "normal.4.inputs": "0+2", "normal.5.inputs": "1+3"}
    candidate |= {"normal.2.first": "sep_conv_3x3", "normal.3.first": "skip_connect"}
    twin = dict(candidate)
    for side in ("first", "second"):
        twin[f"normal.2.{side}"] = candidate[f"normal.3.{side}"]
        twin[f"normal.3.{side}"] = candidate[f"normal.2.{side}"]
    twin |= {"normal.4.inputs": "0+3", "normal.5.inputs": "1+2"}
    same = [DARTS.architecture(item).for_images((3, 16, 16), 10).hash for item in (candidate, twin)]
    assert same[0] == same[1]


def test_a_hash_is_that_of_recorded_runs() -> None:
    genotype = parse_genotype(DARTS_V2)
    graph = DARTS.genotype_graph(genotype, (3, 16, 16), 10)  # type: ignore[attr-defined]
    assert graph.hash == "976343f2ff2a82c75c7ad0329fb14fbe"


@st.composite
def dags(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    count = draw(st.integers(1, 14))
    pairs = [(a, b) for b in range(count) for a in range(b)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    return count, sorted(chosen, key=lambda edge: edge[1])


@given(st.lists(dags(), max_size=4), st.integers(1, 5))
@settings(deadline=None)
def test_shortest_paths_and_levels_match_networkx(
    graphs: list[tuple[int, list[tuple[int, int]]]], cutoff: int
) -> None:
    found = shortest_paths(graphs, cutoff)
    assert len(found) == len(graphs)
    for (count, edges), distance in zip(graphs, found, strict=True):
        reference = networkx.DiGraph(edges)
        reference.add_nodes_from(range(count))
        expected = np.zeros((count, count), dtype=np.uint8)
        for source, targets in networkx.all_pairs_shortest_path_length(reference, cutoff=cutoff):
            for target, length in targets.items():
                expected[target, source] = length
        assert (distance == expected).all()
        above, below = levels(count, edges)
        for layer, nodes in enumerate(networkx.topological_generations(reference)):
            assert all(above[node] == layer for node in nodes)
        for layer, nodes in enumerate(networkx.topological_generations(reference.reverse())):
            assert all(below[node] == layer for node in nodes)


def test_cutoff_has_a_limit() -> None:
    with pytest.raises(ValueError, match="254"):
        shortest_paths([(2, [(0, 1)])], 255)
