"""The mixture of spaces: what it draws is repeatable, bounded, of every family, and can be run."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ghnas.architectures.architecture import Architecture
from ghnas.spaces.base import Space
from ghnas.spaces.registry import FAMILIES
from ghnas.training.hypernetwork.mixture import (
    CLASSES,
    IMAGE,
    KINDS,
    MOST_FLOPS,
    MOST_NODES,
    MOST_PARAMETERS,
    Mixture,
)


def family(architecture: Architecture) -> str:
    assert isinstance(architecture.space, Space)
    return architecture.space.file.family


@given(seed=st.integers(0, 2**32), kind=st.sampled_from(sorted(KINDS)))
@settings(max_examples=60, deadline=None)
def test_a_draw_is_a_valid_network_within_the_limits(seed: int, kind: str) -> None:
    architecture = Mixture({kind: 1}).sample(seed)
    graph = architecture.graph
    assert graph.nodes[-1].shape == (CLASSES,)
    assert 0 < graph.parameter_count <= MOST_PARAMETERS
    assert graph.flops <= MOST_FLOPS
    assert len(graph.nodes) <= MOST_NODES
    with torch.no_grad():
        logits = architecture.build(seed=0).train()(torch.randn(2, *IMAGE))
    assert logits.shape == (2, CLASSES)


def test_equal_seeds_draw_equal_networks() -> None:
    first, second = (
        [Mixture().sample(random.Random(f"1:{step}")).graph.hash for step in range(12)]
        for _ in range(2)
    )
    assert first == second
    assert len(set(first)) == len(first)


def test_every_family_is_drawn_and_no_kind_is_without_variety() -> None:
    rng = random.Random(0)
    drawn = Counter(family(Mixture().sample(rng)) for _ in range(200))
    assert drawn.keys() == FAMILIES.keys()
    for kind in KINDS:
        networks = [Mixture({kind: 1}).sample(seed) for seed in range(8)]
        assert len({item.graph.hash for item in networks}) == len(networks)


def test_the_shares_are_kept_although_large_networks_are_drawn_again() -> None:
    rng, mixture = random.Random(1), Mixture({"nasbench201": 3, "mobile": 1})
    drawn = Counter(family(mixture.sample(rng)) for _ in range(400))
    assert drawn["dense_cells"] / 400 == pytest.approx(0.75, abs=0.08)
    assert set(drawn) == {"dense_cells", "stages"}


def test_widths_depths_and_kernels_vary() -> None:
    graphs = [Mixture({"darts": 1}).sample(seed).graph for seed in range(60)]
    cells = {1 + max(node.cell for node in graph.nodes) for graph in graphs}
    assert min(cells) <= 4
    assert max(cells) >= 9
    stems = {graph.parameters["stem.0.weight"][0] for graph in graphs}
    assert {12, 24, 48} <= stems
