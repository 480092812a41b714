"""Graph embeddings and what is predicted from them."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from ghnas.ghn.config import GHNConfig
from ghnas.ghn.model import GHN, read_graphs
from ghnas.ranking.properties import graph_embeddings, predict_property
from ghnas.spaces import load_space

SMALL = GHNConfig(hid=8, max_shape=(8, 8, 5, 5))


def test_embeddings_are_means_of_node_states() -> None:
    torch.manual_seed(0)
    ghn, space, rng = GHN(SMALL), load_space("darts"), random.Random(0)
    graphs = [space.sample(rng).for_images((3, 16, 16), 10).graph for _ in range(5)]
    found = graph_embeddings(ghn, graphs, together=2)
    assert found.shape == (5, 8)
    for graph, row in zip(graphs, found, strict=True):
        states = ghn.embeddings(read_graphs([graph], SMALL))
        np.testing.assert_allclose(row, states.mean(0).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_a_property_that_is_there_is_found_and_noise_is_not() -> None:
    random_state = np.random.default_rng(0)
    features = random_state.normal(size=(120, 6))
    there = features[:, 0] + 0.5 * features[:, 1] ** 2
    assert predict_property(features, there).kendall > 0.6
    assert abs(predict_property(features, random_state.normal(size=120)).kendall) < 0.2


def test_too_few_architectures() -> None:
    with pytest.raises(ValueError, match="n_splits"):
        predict_property(np.zeros((3, 2)), [1.0, 2.0, 3.0])
