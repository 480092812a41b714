"""Weights of a trained network in a larger one."""

from __future__ import annotations

import pytest
import torch

from ghnas.architectures.architecture import Architecture
from ghnas.architectures.network import kaiming
from ghnas.spaces import load_space
from ghnas.training.transfer import transferred


def weights(architecture: Architecture, seed: int) -> dict[str, torch.Tensor]:
    sized = architecture.for_images((3, 16, 16), 10)
    return kaiming(sized.graph, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["darts", "nasbench201", "nasbench101", "mobile", "deepnets1m"])
def test_the_same_network_takes_everything(name: str) -> None:
    architecture = load_space(name).sample(seed=0)
    trained, fresh = weights(architecture, 1), weights(architecture, 2)
    taken, share = transferred(trained, fresh)
    assert share == 1
    assert list(taken) == list(fresh)
    for key, value in taken.items():
        assert torch.equal(value, trained[key]), key


def test_each_cell_of_a_deeper_network_comes_from_one_of_its_stage() -> None:
    space = load_space("darts").with_skeleton(cells=5, channels=8)
    choices = space.sample(seed=3).choices
    small = space.architecture(choices)
    large = space.with_skeleton(cells=20).architecture(choices)
    trained = {
        name: torch.full_like(value, int(name.split(".")[1]))
        for name, value in weights(small, 0).items()
        if name.startswith("cells.")
    }
    fresh = {name: torch.full_like(value, -1) for name, value in weights(large, 0).items()}
    taken, share = transferred(trained, fresh)
    assert 0.5 < share < 1
    of = {2: 0, 5: 0, 6: 1, 9: 2, 12: 2, 13: 3, 16: 4, 19: 4}  # 6, 13 and 1, 3 reduce the images
    for cell, source in of.items():
        inside = {k: v for k, v in taken.items() if k.startswith(f"cells.{cell}._ops.")}
        assert inside
        assert all((value == source).all() for value in inside.values())
