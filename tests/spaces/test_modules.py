"""A space of the user's own modules: choices found, modules traced, scored, searched."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import optuna
import pytest
import timm_like
import torch
from torch import nn

import ghnas
from ghnas.ghn.checkpoint import load_ghn
from ghnas.ghn.model import GHN
from ghnas.spaces.modules import ModuleSpace
from ghnas.utils.errors import UserError


def make(trial: optuna.Trial) -> nn.Module:
    """Residual blocks; the kernel is asked for in deep ones alone."""
    width = trial.suggest_int("width", 8, 16, step=4)
    depth = trial.suggest_categorical("depth", ["shallow", "deep"])
    kernel = trial.suggest_categorical("kernel", [3, 5]) if depth == "deep" else 3
    return timm_like.residual_network(width=width, depth=2 if depth == "deep" else 1, kernel=kernel)


@pytest.fixture(scope="module")
def ghn() -> GHN:
    return load_ghn("general-embedded")


@pytest.fixture(scope="module")
def space() -> ModuleSpace:
    return ModuleSpace(make).for_images((3, 16, 16), 10)


def test_choices_are_what_the_function_asks_for(space: ModuleSpace) -> None:
    assert {item.name: item.options for item in space.choices} == {
        "width": (8, 12, 16),
        "depth": ("shallow", "deep"),
        "kernel": (3, 5),
    }
    architecture = space.sample(seed=0)
    assert space.parse(str(architecture)) == architecture
    assert space.size == 12


def test_floats_with_a_step_and_truth_values_are_choices() -> None:
    def own(trial: optuna.Trial) -> nn.Module:
        trial.suggest_float("ratio", 0.5, 2.0, step=0.5)
        trial.suggest_categorical("bias", [True, False])
        return nn.Linear(3, 10)

    first, second = ModuleSpace(own).choices
    assert first.options == (0.5, 1.0, 1.5, 2.0)
    assert second.options == (True, False)


def test_a_graph_counts_what_the_module_has(space: ModuleSpace) -> None:
    architecture = space.architecture({"width": 8, "depth": "deep", "kernel": 5})
    module = space.module(architecture)
    expected = sum(value.numel() for value in module.parameters())
    assert architecture.parameters == expected
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    products = sum(256 * math.prod(layer.weight.shape) for layer in convolutions) + 8 * 10
    assert architecture.flops == 2 * products


def test_choices_without_effect_make_the_same_architecture(space: ModuleSpace) -> None:
    def hashed(**choices: object) -> str:
        return space.architecture({"width": 8, "depth": "shallow", "kernel": 3} | choices).hash

    assert hashed() == hashed(kernel=5)
    assert len({hashed(), hashed(width=12), hashed(depth="deep")}) == 3
    assert hashed(depth="deep") != hashed(depth="deep", kernel=5)


def test_strides_that_a_trace_does_not_see_make_another_architecture() -> None:
    def strided(trial: optuna.Trial) -> nn.Module:
        stride = trial.suggest_int("stride", 1, 2)
        pool = nn.AdaptiveAvgPool2d(1)
        return nn.Sequential(nn.Conv2d(3, 4, 3, stride), pool, nn.Flatten(), nn.Linear(4, 10))

    space = ModuleSpace(strided).for_images((3, 8, 8), 10)
    first, second = (space.architecture({"stride": stride}) for stride in (1, 2))
    assert first.hash != second.hash
    assert first.flops > second.flops


def test_scores_are_those_of_the_module_with_predicted_weights(
    ghn: GHN, space: ModuleSpace
) -> None:
    data, architecture = ghnas.load_data("embedded"), space.sample(seed=1)
    [score] = ghnas.score(ghn, [architecture], data, images=64, workers=2)
    module = ghn.initialize(space.module(architecture), space.image_shape).train()
    part = data.validation.take(64)
    images = (part.images.float() / 255 - _channels(ghn.info.mean)) / _channels(ghn.info.std)
    with torch.no_grad():
        right = (module(images).argmax(dim=1) == part.labels).float().mean()
    assert score.accuracy == pytest.approx(float(right), abs=1.5 / 64)


def _channels(values: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1)


@pytest.mark.parametrize("sampler", ["random", "evolution", optuna.samplers.TPESampler(seed=0)])
def test_a_search_finds_modules(ghn: GHN, space: ModuleSpace, sampler: Any) -> None:
    objective = ghnas.ZeroShot(ghn, ghnas.load_data("embedded"), images=32)
    study = ghnas.search(space, objective, budget=6, sampler=sampler)
    best = study.best(1)[0]
    assert best.values[0] == study.best_value
    assert isinstance(space.module(best), nn.Module)
    assert {"width", "depth", "kernel"} == study.trials[0].params.keys()


def test_a_search_that_is_kept_goes_on(ghn: GHN, space: ModuleSpace, tmp_path: Path) -> None:
    objective = ghnas.ZeroShot(ghn, ghnas.load_data("embedded"), images=32)

    def search(where: ModuleSpace) -> ghnas.Study:
        return ghnas.search(where, objective, budget=4, path=tmp_path / "run")

    first = search(space)
    assert [trial.params for trial in search(space).trials] == [t.params for t in first.trials]
    other = ModuleSpace(
        lambda trial: nn.Sequential(make(trial), nn.Dropout(0.1 * trial.suggest_int("p", 1, 2)))
    )
    with pytest.raises(UserError, match="started with space_text"):
        search(other)


class Gate(nn.Module):
    """Neither torch.fx nor torch.export can follow it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if float(x.sum()) > 0 else -x


def test_mistakes_are_named(ghn: GHN) -> None:
    data, pool = ghnas.load_data("embedded"), (nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def of(*layers: nn.Module) -> ModuleSpace:
        def own(trial: optuna.Trial) -> nn.Module:
            trial.suggest_int("nothing", 0, 1)
            return nn.Sequential(*layers)

        return ModuleSpace(own)

    def score(space: ModuleSpace) -> None:
        ghnas.score(ghn, [space.sample(seed=0)], data, images=16)

    with pytest.raises(UserError, match=r"cannot be traced.*it fails in 1 \(Gate\)"):
        score(of(nn.Conv2d(3, 4, 3), Gate(), *pool, nn.Linear(4, 10)))
    with pytest.raises(UserError, match=r"makes 7 logits .* not 10: give the number of classes"):
        score(of(nn.Conv2d(3, 4, 3), *pool, nn.Linear(4, 7)))
    with pytest.raises(UserError, match="fails on images of 3x16x16"):
        score(of(nn.Conv2d(1, 4, 3), *pool, nn.Linear(4, 10)))
    for wrong, message in (
        (lambda trial: nn.Linear(3, 10), "asks its trial for nothing"),
        (lambda trial: trial.suggest_int("a", 1, 2), "of type int, not a torch.nn.Module"),
        (lambda trial: nn.Dropout(trial.suggest_float("p", 0, 0.5)), "give suggest_float a step"),
        (lambda trial: nn.Linear(trial.suggest_int("a", 1, 2), 1 // 0), "no module can be made"),
    ):
        with pytest.raises(UserError, match=message):
            ModuleSpace(wrong)
    architecture = ModuleSpace(make).sample(random.Random(0))
    with pytest.raises(UserError, match="is a module: "):
        architecture.build()
