"""Objectives: functions, and zero-shot scores with their races and composite scores."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from searching import entries, go_on, ranking, save_untrained

from ghnas.architectures.architecture import Architecture
from ghnas.architectures.graph import Graph
from ghnas.data import ImageData, load_data
from ghnas.engine.objectives import FunctionObjective, ZeroShot, as_objective
from ghnas.engine.run import Run, create_run, open_run
from ghnas.engine.search import new_manifest, search
from ghnas.engine.stages.inputs import objective_of
from ghnas.ghn.checkpoint import load_ghn
from ghnas.ghn.config import GHNConfig, GHNInfo
from ghnas.ghn.model import GHN
from ghnas.scoring.composite import reference_for
from ghnas.scoring.evaluation import SCORE_BATCH, Score
from ghnas.scoring.predictor import shipped_predictor
from ghnas.scoring.racing import Race
from ghnas.scoring.scorer import score
from ghnas.spaces import load_space
from ghnas.utils.errors import UserError
from ghnas.utils.processes import Pool, Workers

SPACE = load_space("darts").with_skeleton(cells=1, channels=2)


@pytest.fixture(scope="module")
def data() -> ImageData:
    full = load_data(image_size=8)
    return replace(full, train=full.train.take(64), validation=full.validation.take(64))


@pytest.fixture(scope="module")
def ghn() -> GHN:
    torch.manual_seed(0)
    config = GHNConfig(num_classes=10, hid=8)
    return GHN(config, GHNInfo(sha256="a" * 64)).eval()


# ---------------------------------------------------------------- functions


def test_a_function_is_an_objective() -> None:
    study = search(SPACE, lambda architecture: -architecture.flops, budget=12)
    assert len(study.trials) == 12
    (best, second) = study.best(2)
    assert best.values == (-best.flops,)
    assert best.values >= second.values
    assert best.values[0] == max(trial.value for trial in study.trials)
    assert isinstance(study, optuna.Study)


def test_less_can_be_better() -> None:
    study = search(SPACE, lambda item: item.parameters, budget=12, directions=["minimize"])
    values = [item.values[0] for item in study.best(12)]
    assert values == sorted(values)


def test_several_values_give_a_front() -> None:
    study = search(
        SPACE,
        lambda item: (item.flops, int(item.hash[:4], 16)),
        budget=30,
        directions=("minimize", "maximize"),
        sampler="nsga2",
    )
    front = [trial for trial in study.ranked() if trial.front]
    assert study.ranked()[: len(front)] == front
    for trial in front:
        assert not any(
            other.values[0] <= trial.values[0]
            and other.values[1] >= trial.values[1]
            and other.values != trial.values
            for other in study.ranked()
        )


def test_what_an_objective_raises_fails_its_trial_alone(tmp_path: Path) -> None:
    def fragile(architecture: Architecture) -> float:
        if int(architecture.hash, 16) % 3 == 0:
            raise RuntimeError("out of memory")
        return float("nan") if int(architecture.hash, 16) % 3 == 1 else 1.0

    study = search(SPACE, fragile, budget=30, path=tmp_path / "run", sampler="evolution")
    states = {trial.state for trial in study.trials}
    assert states == {optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.FAIL}
    errors = {trial.user_attrs.get("error") for trial in study.trials}
    assert errors == {
        None,
        "RuntimeError: out of memory",
        "the objective returned a value that is not a number",
    }
    assert all(item.values == (1.0,) for item in study.best(30))


def test_a_wrong_number_of_values_is_the_callers_mistake() -> None:
    with pytest.raises(UserError, match="returned 2 values, and there are 1 directions"):
        search(SPACE, lambda item: (1.0, 2.0), budget=3)
    with pytest.raises(UserError, match="a direction is 'maximize' or 'minimize', not 'up'"):
        search(SPACE, lambda item: 1.0, budget=3, directions=["up"])  # type: ignore[list-item]


def test_each_architecture_is_evaluated_once() -> None:
    space = load_space("nasbench201").with_skeleton(channels=2, cells=1)
    seen: list[str] = []

    def count(architecture: Architecture) -> float:
        seen.append(architecture.hash)
        return len(seen)

    study = search(space.for_images((3, 8, 8), 2), count, budget=200, sampler="evolution")
    assert len(seen) == len(set(seen)) == len(study.ranked())


class CountedWorkers(Workers[Any]):
    """Keeps how many architectures each task had."""

    def __init__(self, sizes: list[int], *arguments: Any) -> None:
        super().__init__(1, *arguments)
        self.sizes = sizes

    def map(self, tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        for (architectures,) in tasks:
            self.sizes.append(len(architectures))
            yield from super().map([(architectures,)])


class CountedPool(Pool):
    size = 2

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def start(self, build: Any, *arguments: Any, **settings: Any) -> Workers[Any]:
        return CountedWorkers(self.sizes, build, *arguments)


def test_workers_are_given_more_at_a_time_of_a_quick_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def content(pool: Pool | None) -> list[Any]:
        study = search(SPACE, number_of, budget=96, batch_size=32, pool=pool)
        return [(trial.params, trial.values, trial.user_attrs) for trial in study.trials]

    for seconds, most in ((1e-9, 4), (1e9, 32 // CountedPool.size)):
        monkeypatch.setattr("ghnas.engine.objectives.base.PIECE_SECONDS", seconds)
        pool = CountedPool()
        assert content(pool) == content(None)
        assert max(pool.sizes) == most


def number_of(architecture: Architecture) -> float:
    return int(architecture.hash[:8], 16)


def test_garbage_is_collected_rarely_while_a_search_runs() -> None:
    before, meanwhile = gc.get_threshold(), []
    search(SPACE, lambda item: meanwhile.append(gc.get_threshold()) or 1.0, budget=2)
    assert meanwhile[0][0] > before[0]
    assert gc.get_threshold() == before


def test_an_interrupted_function_search_goes_on(tmp_path: Path) -> None:
    """What was evaluated before the interruption is recorded, also within a batch."""

    def objective(architecture: Architecture) -> float:
        return int(architecture.hash[:8], 16)

    calls = 0

    def stopping(architecture: Architecture) -> float:
        nonlocal calls
        calls += 1
        if calls > 7:
            raise KeyboardInterrupt
        return objective(architecture)

    settings: dict[str, Any] = {"budget": 20, "sampler": "evolution", "batch_size": 5}
    whole = search(SPACE, objective, **settings)
    goal, again = FunctionObjective(stopping), FunctionObjective(objective)
    goal.describe = again.describe = lambda: {"function": "same"}  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        search(SPACE, goal, path=tmp_path / "run", **settings)
    study = search(SPACE, again, path=tmp_path / "run", **settings)
    assert [trial.values for trial in study.trials] == [trial.values for trial in whole.trials]
    with pytest.raises(UserError, match="started with budget 20, not 21"):
        search(SPACE, again, path=tmp_path / "run", **settings | {"budget": 21})


@pytest.mark.parametrize("folder", [True, False])
def test_any_of_optunas_samplers(tmp_path: Path, folder: bool) -> None:
    path = tmp_path / "run" if folder else None
    sampler = optuna.samplers.TPESampler(n_startup_trials=10, seed=0)
    study = search(
        SPACE,
        lambda item: sum("sep" in str(value) for value in item.choices.values()),
        budget=60,
        sampler=sampler,
        path=path,
    )
    values = [trial.value for trial in study.trials]
    assert sum(values[40:]) / 20 > sum(values[:10]) / 10 + 1
    if path:
        storage = optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(path / "study.log"))
        )
        loaded = optuna.load_study(study_name="run", storage=storage)
        assert [trial.value for trial in loaded.trials] == values


def test_an_objective_has_directions_of_its_own(ghn: GHN, data: ImageData) -> None:
    objective = ZeroShot(ghn, data, workers=1)
    assert as_objective(objective) is objective
    with pytest.raises(UserError, match="directions of its own"):
        as_objective(objective, ["minimize"])


# ---------------------------------------------------------------- races


class KnownScorer:
    """Accuracies from the graph's hash; the first batch tells it nearly, the second tells all."""

    def __init__(self, left: int = 10**9) -> None:
        self.images = 0
        self.left = left

    def score(
        self,
        graphs: Sequence[Graph],
        wanted: Sequence[int] | None = None,
        race: Race | None = None,
    ) -> list[Score | None]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        chosen = range(len(graphs)) if wanted is None else wanted
        scores: list[Score | None] = [None] * len(graphs)
        for i in chosen:
            rng = random.Random(graphs[i].hash)
            truth = rng.random()
            first = truth + rng.gauss(0, 0.02)
            expected = race.verdict(1, first, 1 - truth) if race else None
            self.images += 64 if expected is not None else 128
            scores[i] = (
                Score(truth, 1 - truth, 128, ((first, 1 - truth),))
                if expected is None
                else Score(expected, 1 - truth, 64, stopped=True)
            )
        return scores

    def close(self) -> None:
        pass


def known(ghn: GHN, data: ImageData, scorer: Any, keep: int | None = None) -> ZeroShot:
    objective = ZeroShot(ghn, data, images=64, keep=keep, workers=1, device="cpu")
    objective._scorer = scorer
    return objective


def run_of(folder: Path, objective: ZeroShot, **settings: Any) -> Run:
    return create_run(folder, new_manifest(objective.space_for(SPACE), objective, **settings))


def test_the_best_of_a_race_are_the_best_of_all(tmp_path: Path, ghn: GHN, data: ImageData) -> None:
    settings = {"budget": 1500, "batch_size": 100}
    exact, raced = KnownScorer(), KnownScorer()
    runs = []
    for scorer, keep in ((exact, None), (raced, 20)):
        objective = known(ghn, data, scorer, keep)
        runs.append(run_of(tmp_path / str(keep), objective, **settings))
        go_on(runs[-1], objective)
    whole, run = runs
    best = {item.number for item in whole.ranked(20)}
    found = {item.number for item in run.ranked(20)}
    assert len(best & found) >= 19
    assert raced.images < 0.75 * exact.images
    kept = {trial.number: trial.accuracy for trial in whole.read()}
    for trial in run.read():
        if trial.images is None:
            assert trial.accuracy == kept[trial.number]
        else:
            assert trial.images == 64


def test_an_interrupted_race_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, ghn: GHN, data: ImageData
) -> None:
    settings = {"budget": 700, "batch_size": 100}
    whole = run_of(tmp_path / "whole", known(ghn, data, None, 10), **settings)
    go_on(whole, known(ghn, data, KnownScorer(), 10))
    run = run_of(tmp_path / "run", known(ghn, data, None, 10), **settings)
    with pytest.raises(KeyboardInterrupt):
        go_on(run, known(ghn, data, KnownScorer(left=5), 10))
    assert len(run.read()) == 500
    go_on(run, known(ghn, data, KnownScorer(), 10))
    assert entries(run) == entries(whole)
    assert ranking(run) == ranking(whole)


@pytest.mark.parametrize("settings", [{}, {"batch_size": 16}])
def test_a_run_says_in_what_batches_its_candidates_are_scored(
    tmp_path: Path, ghn: GHN, settings: dict[str, int]
) -> None:
    """And goes on with the same; the default is everybody's."""
    data = load_data(image_size=8)
    objective = ZeroShot(ghn, data, images=128, workers=1, device="cpu", **settings)
    run = run_of(tmp_path / "run", objective, budget=2)
    again = objective_of(open_run(run.path), ghn, data, torch.device("cpu"))
    size = settings.get("batch_size", SCORE_BATCH)
    assert run.manifest.objective["batch_size"] == size
    for item in (objective, again):
        assert {len(labels) for _, labels in item.batches()} == {size}


def test_an_objective_keeps_nothing_of_an_earlier_search(
    tmp_path: Path, ghn: GHN, data: ImageData
) -> None:
    """Neither what its race learned nor what its scores are compared with."""
    settings = {"budget": 1000, "batch_size": 100}
    objective = known(ghn, data, KnownScorer(), 10)
    runs = []
    for seed, chosen in ((1, objective), (0, objective), (0, known(ghn, data, KnownScorer(), 10))):
        runs.append(run_of(tmp_path / f"{len(runs)}", chosen, seed=seed, **settings))
        go_on(runs[-1], chosen)
    assert entries(runs[1]) == entries(runs[2])
    assert any(trial.images for trial in runs[1].read())


def test_composite_scores_are_those_of_the_space(ghn: GHN, data: ImageData) -> None:
    small = load_space("nasbench201").with_skeleton(channels=4, cells=1)
    large = small.with_skeleton(channels=8)

    def values(objective: ZeroShot) -> list[float]:
        return [trial.values[0] for trial in search(small, objective, budget=6).ranked()]

    def fresh() -> ZeroShot:
        return ZeroShot(ghn, data, objectives=("composite",), workers=1, device="cpu")

    used = fresh()
    search(large, used, budget=2)
    assert values(used) == values(fresh())


def test_a_score_that_is_not_a_number_is_zero(tmp_path: Path, ghn: GHN, data: ImageData) -> None:
    class Broken(KnownScorer):
        def score(self, graphs: Any, wanted: Any = None, race: Any = None) -> list[Score | None]:
            return [Score(float("nan"), float("nan")) for _ in graphs]

    objective = known(ghn, data, Broken())
    run = run_of(tmp_path / "run", objective, budget=5)
    go_on(run, objective)
    assert {trial.accuracy for trial in run.read()} == {0.0}


# ---------------------------------------------------------------- zero-shot searches


def test_a_zero_shot_search_is_the_same_with_more_workers(ghn: GHN, data: ImageData) -> None:
    studies = [
        search(SPACE, ZeroShot(ghn, data, workers=workers, device="cpu"), budget=40)
        for workers in (1, 2)
    ]
    assert [t.value for t in studies[0].trials] == [t.value for t in studies[1].trials]
    best = studies[0].best(1)[0]
    assert (best.image_shape, best.classes) == ((3, 8, 8), 10)
    objective = ZeroShot(ghn, data, workers=1, device="cpu")
    assert objective(best) == pytest.approx(best.values[0], abs=2 / 64)


def test_a_search_ranks_by_the_composite_score(
    tmp_path: Path, ghn: GHN, data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = partial(reference_for, count=12)
    monkeypatch.setattr("ghnas.engine.objectives.zero_shot.reference_for", few)
    space = load_space("nasbench201").with_skeleton(channels=4, cells=1)
    objective = ZeroShot(ghn, data, objectives=("composite", "params"), workers=1, device="cpu")
    study = search(space, objective, budget=10, path=tmp_path / "run")
    assert study.metric_names == ["composite", "params"]
    for trial in study.ranked():
        assert trial.values[1] == trial.parameters
        assert trial.accuracy is not None
    rest = [trial.values[0] for trial in study.ranked() if not trial.front]
    assert rest == sorted(rest, reverse=True)
    assert len(set(rest)) > 1


def test_a_search_ranks_by_what_the_predictor_that_ships_expects(
    tmp_path: Path, data: ImageData
) -> None:
    named = replace(data, name="cifar10")
    space = load_space("darts").with_skeleton(cells=1, channels=4)
    untrained = load_ghn(save_untrained(tmp_path / "a.safetensors", space, named))
    objective = ZeroShot(untrained, named, objectives=("predicted",), workers=1, device="cpu")
    found = search(space, objective, budget=8).ranked()
    cells = [trial.architecture for trial in found]
    expected = shipped_predictor(load_space("darts"), "cifar10").predict(cells).mean
    assert [trial.values[0] for trial in found] == pytest.approx(expected.tolist())
    assert sorted(expected, reverse=True) == pytest.approx(expected.tolist())
    assert all(trial.accuracy is not None for trial in found)


def test_a_search_ranks_by_the_loss(ghn: GHN, data: ImageData) -> None:
    objective = ZeroShot(ghn, data, objectives=("loss",), workers=1, device="cpu")
    found = search(SPACE, objective, budget=8).ranked()
    losses = [trial.values[0] for trial in found]
    assert losses == sorted(losses)
    scores = score(ghn, [trial.architecture for trial in found], data, workers=1, device="cpu")
    assert losses == pytest.approx([item.loss for item in scores], rel=0.2)


def test_where_no_predictor_ships_it_is_no_objective(ghn: GHN, data: ImageData) -> None:
    objective = ZeroShot(ghn, data, objectives=("predicted",), workers=1, device="cpu")
    with pytest.raises(UserError, match="no predictor ships for space"):
        search(SPACE, objective, budget=2)
