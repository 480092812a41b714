"""The objective without a hypernetwork: a training-free proxy."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from searching import entries, ranking

import ghnas
from ghnas.architectures.architecture import Architecture
from ghnas.architectures.network import initialised
from ghnas.data import ImageData, load_data, random_batches
from ghnas.engine.objectives import ProxyScore
from ghnas.engine.progress import SearchProgress
from ghnas.engine.run import open_run
from ghnas.engine.search import search
from ghnas.engine.stages.short_list import train_short_list
from ghnas.engine.stages.training_jobs import training_job
from ghnas.engine.stages.training_plan import TrainingPlan
from ghnas.engine.trials import Trial
from ghnas.scoring.proxies import PROXIES
from ghnas.spaces import Space, load_space, parse_space
from ghnas.utils.errors import UserError
from ghnas.utils.processes import LocalPool

CELLS = load_space("nasbench201").with_skeleton(channels=4, cells=1)
MINE = parse_space(
    """
name: mine
family: stages
skeleton:
  stem: {block: conv_bn_act, kernel: 3, width: 8}
stages:
  - {block: residual, depth: [1, 2], width: [8, 12], kernel: [3, 5]}
  - {block: residual, depth: [1, 2, 3], width: [8, 16], stride: 2, kernel: [3, 5]}
""",
    "mine.yaml",
)


@pytest.fixture(scope="module")
def data() -> ImageData:
    full = load_data(image_size=8)
    return replace(full, train=full.train.take(64), validation=full.validation.take(32))


def proxy_score(data: ImageData, *objectives: str, workers: int = 1) -> ProxyScore:
    names = objectives or ("naswot",)
    return ProxyScore(data, objectives=names, images=16, workers=workers, device="cpu")


@pytest.mark.parametrize("space", [CELLS, MINE], ids=["cells", "mine"])
@pytest.mark.parametrize("name", ["naswot", "snip"])
def test_scores_are_those_of_the_proxy(data: ImageData, space: Space, name: str) -> None:
    objective = proxy_score(data, name)
    study = search(space, objective, budget=5)
    means = {"mean": data.mean, "std": data.std}
    images, labels = next(random_batches(data.train, 16, seed=0, device="cpu", **means))
    assert study.metric_names == [name]
    assert len({trial.values[0] for trial in study.ranked()}) > 1
    for best in study.best(5):
        network = initialised(best.graph, 0)
        expected = PROXIES[name].function(network, images, labels)
        assert best.values == (pytest.approx(expected, rel=1e-5),)
        assert objective(best) == best.values[0]
    values = [trial.values[0] for trial in study.ranked()]
    assert values == sorted(values, reverse=True)
    assert {trial.accuracy for trial in study.ranked()} == {None}


def test_the_number_of_workers_does_not_matter(data: ImageData) -> None:
    studies = [
        search(CELLS, proxy_score(data, "params", "naswot", "snip", workers=workers), budget=24)
        for workers in (1, 2)
    ]
    assert [t.values for t in studies[0].trials] == [t.values for t in studies[1].trials]
    first = studies[0].ranked()
    assert all(trial.values[0] == trial.parameters for trial in first)
    front = [trial.values[1] for trial in first if trial.front]
    assert front == sorted(front, reverse=True), "a proxy ranks, not the size"


def test_limits_hold(data: ImageData) -> None:
    study = search(MINE, proxy_score(data), budget=12, sampler="evolution", max_parameters=6000)
    assert all(trial.parameters <= 6000 for trial in study.ranked())


def test_an_image_that_does_not_reach_the_output(data: ImageData) -> None:
    space = CELLS.for_images(data.image_shape, data.num_classes)
    nothing = space.architecture({choice.name: "none" for choice in space.choices})
    objective = proxy_score(data)
    (outcome,) = objective.evaluate([nothing], [0], [], 0.0)
    assert outcome is not None
    assert outcome.values == ()
    assert outcome.error == "naswot of the untrained network is not a finite number"


def test_what_is_not_an_objective(data: ImageData) -> None:
    for names, message in (
        (("accuracy",), "'accuracy' needs a hypernetwork .* known are synflow, naswot"),
        (("beauty",), "unknown objective 'beauty'; known are synflow, naswot"),
        (("params",), "must include a proxy, for example naswot,params"),
        (("naswot", "naswot"), "'naswot' is named twice"),
    ):
        with pytest.raises(UserError, match=message):
            ghnas.ProxyScore(data, objectives=names)


# ---------------------------------------------------------------- interruptions

Interrupt = Callable[[Path, ImageData], None]
SETTINGS = {"budget": 60, "sampler": "evolution", "batch_size": 6}


def by_ctrl_c(path: Path, data: ImageData) -> None:
    def stop(progress: SearchProgress) -> None:
        if progress.done >= 18:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(MINE, proxy_score(data, workers=2), path=path, report=stop, **SETTINGS)


def by_kill_9(path: Path, data: ImageData) -> None:
    child = os.fork()
    if child == 0:
        signal.alarm(300)  # should it hang, the test fails
        search(MINE, Slow(data, images=16, workers=1, device="cpu"), path=path, **SETTINGS)
        os._exit(0)
    journal = path / "study.log"
    while not journal.exists() or len(journal.read_bytes().splitlines()) < 25:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the search ended early"
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


class Slow(ProxyScore):
    """Leaves time to be killed in."""

    def evaluate(
        self,
        candidates: list[Architecture],
        wanted: list[int],
        earlier: list[Trial],
        share: float,
    ) -> object:
        time.sleep(0.05)
        return super().evaluate(candidates, wanted, earlier, share)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("interrupt", [by_ctrl_c, by_kill_9])
def test_an_interrupted_search_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, data: ImageData, interrupt: Interrupt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ghnas.engine.storage.LOCK_GRACE", 3)  # nobody else writes
    search(MINE, proxy_score(data), path=tmp_path / "whole", **SETTINGS)
    interrupt(tmp_path / "part", data)
    part = open_run(tmp_path / "part")
    assert 0 < len(part.read()) < 60
    search(MINE, proxy_score(data), path=part.path, **SETTINGS)
    whole = open_run(tmp_path / "whole")
    assert entries(part) == entries(whole)
    assert ranking(part) == ranking(whole)


def test_a_run_says_how_candidates_were_scored(tmp_path: Path, data: ImageData) -> None:
    search(MINE, proxy_score(data), budget=3, path=tmp_path)
    assert open_run(tmp_path).manifest.objective == {
        "data": "digitscapes",
        "data_fingerprint": data.fingerprint,
        "proxy": "naswot",
        "images": 16,
        "proxy_seed": 0,
    }
    others = replace(data, train=data.train.take(32))
    for other in (proxy_score(others), proxy_score(data, "zen"), ProxyScore(data, seed=1)):
        with pytest.raises(UserError, match="holds a search that was started with objective"):
            search(MINE, other, budget=3, path=tmp_path)


def test_short_trainings_see_images_as_the_data_has_them(tmp_path: Path, data: ImageData) -> None:
    objective = proxy_score(data)
    search(MINE, objective, budget=20, path=tmp_path)
    run = open_run(tmp_path)
    job = training_job(run, objective, steps=2)
    mean, std = (torch.tensor(item).view(3, 1, 1) for item in (data.mean, data.std))
    for images, _ in (*job.batches, *job.checks):
        pixels = 255 * (images * std + mean)
        torch.testing.assert_close(pixels, pixels.round(), atol=1e-3, rtol=0)
    before = run.ranked()
    plan = TrainingPlan(17, (2,), repeats=0)
    train_short_list(run, replace(job, pool=LocalPool(1)), plan, lambda progress: None)
    after = run.ranked()
    assert {item.number for item in before[:4]} < {item.number for item in after[:17]}
    assert [item.short_training is None for item in after] == [False] * 17 + [True] * 3
    assert run.order is not None
    assert run.order.trained == 17
