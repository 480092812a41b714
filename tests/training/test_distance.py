"""How far candidates are from what a hypernetwork was trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ghnas.ghn.checkpoint import load_ghn
from ghnas.ghn.config import GHNConfig, GHNInfo
from ghnas.ghn.model import GHN, read_graphs
from ghnas.spaces import Space, load_space, parse_space
from ghnas.training.hypernetwork.distance import embed, training_distances
from ghnas.utils.errors import UserError


@pytest.fixture(scope="module")
def ghn() -> GHN:
    return load_ghn("darts-embedded")


@pytest.fixture(scope="module")
def darts(ghn: GHN) -> Space:
    return load_space("darts").for_images(ghn.info.image_shape, 10)


def test_architectures_of_the_training_are_near_and_others_far(ghn: GHN, darts: Space) -> None:
    trained = training_distances(ghn, [darts.sample(seed) for seed in range(100)])
    assert sum(item.far for item in trained) <= 15  # 5 in a hundred are expected
    others = [darts.with_skeleton(channels=16).sample(0), load_space("mobile").sample(0)]
    for distance in training_distances(ghn, others):
        assert distance.far
        assert distance.farther_than == 1.0
        assert distance.ratio > np.median([item.ratio for item in trained])


def test_a_distance_depends_on_nothing_but_the_architecture(ghn: GHN, darts: Space) -> None:
    first, second = darts.sample(0), darts.sample(1)
    (alone,) = training_distances(ghn, [first])
    (again,) = training_distances(load_ghn("darts-embedded"), [first.graph])
    together = training_distances(ghn, [second, first])[1]
    assert alone.value == again.value
    assert together.value == pytest.approx(alone.value, rel=1e-4)


def test_an_embedding_is_the_mean_of_the_node_states(ghn: GHN, darts: Space) -> None:
    graphs = [darts.sample(seed).graph for seed in range(3)]
    found = embed(ghn, graphs)
    for graph, row in zip(graphs, found, strict=True):
        with torch.no_grad():
            states = ghn.embeddings(read_graphs([graph], ghn.config))
        assert row == pytest.approx(states.mean(dim=0).double().numpy(), abs=1e-5)


def test_a_space_that_does_not_ship_must_be_given() -> None:
    text = load_space("nasbench201").text.replace("name: nasbench201", "name: mine", 1)
    mine = parse_space(text, "mine.yaml")
    torch.manual_seed(0)
    ghn = GHN(GHNConfig(hid=8), GHNInfo(space="mine", image_shape=(3, 16, 16))).eval()
    with pytest.raises(UserError, match="'mine', which does not ship"):
        training_distances(ghn, [mine.sample(0)])
    (distance,) = training_distances(ghn, [mine.sample(0)], mine)
    assert 0 <= distance.farther_than <= 1
    ghn.info = replace(ghn.info, space="")  # as a published checkpoint
    assert training_distances(ghn, [load_space("mobile").sample(0)])[0].value > 0
