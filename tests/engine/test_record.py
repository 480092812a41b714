"""Recorded studies are plain Optuna studies: samplers go on with them, importance reads them."""

from __future__ import annotations

import random
from pathlib import Path

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from searching import FakeScorer, make_manifest

from ghnas.engine.loop import search
from ghnas.engine.record import Record
from ghnas.engine.run import Run
from ghnas.engine.runs import create_run
from ghnas.engine.storage import open_storage
from ghnas.spaces import Space


def distributions(space: Space) -> dict[str, BaseDistribution]:
    return {item.name: CategoricalDistribution(item.options) for item in space.choices}


def reopened(run: Run, sampler: BaseSampler | None = None) -> optuna.Study:
    storage = open_storage(run.study_path, None)
    return optuna.load_study(study_name=run.name, storage=storage, sampler=sampler)


@pytest.mark.parametrize("strategy", ["random", "evolution", "nsga2"])
def test_every_trial_has_every_choice(tmp_path: Path, strategy: str) -> None:
    run = create_run(tmp_path, make_manifest(strategy=strategy))
    search(run, FakeScorer())
    wanted = distributions(run.space)
    trials = reopened(run).trials
    assert len(trials) == 20
    for trial, record in zip(trials, run.recorded(), strict=True):
        assert trial.distributions == wanted
        assert trial.params == record.architecture.choices


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(
    "sampler",
    [TPESampler(n_startup_trials=5, seed=0), NSGAIISampler(population_size=10, seed=0)],
    ids=["tpe", "nsga2"],
)
def test_any_sampler_goes_on_with_a_recorded_study(tmp_path: Path, sampler: BaseSampler) -> None:
    run = create_run(tmp_path, make_manifest())
    search(run, FakeScorer())
    study = reopened(run, sampler)
    for number in range(20, 35):
        trial = study.ask(distributions(run.space))
        assert trial.number == number
        assert run.space.architecture(trial.params).graph.nodes[-1].shape == (2,)
        study.tell(trial, 0.5)
    assert len(reopened(run).get_trials(states=[optuna.trial.TrialState.COMPLETE])) == 35


DECIDING = "reduce.3.second"


def decided_by_one_choice(folder: Path) -> Run:
    """A run in which one of the choices, and a little noise, makes the accuracy."""
    run = create_run(folder, make_manifest())
    options = next(item.options for item in run.space.choices if item.name == DECIDING)
    rng, records = random.Random(0), []
    for number in range(150):
        architecture = run.space.sample(rng)
        place = options.index(architecture.choices[DECIDING])
        accuracy = place / len(options) + rng.gauss(0, 0.02)
        records.append(Record(number, architecture, accuracy, 1, 1, f"{number:x}"))
    run.writer().write([run.trial_format.trial(record) for record in records])
    return run


def test_importance_finds_the_choice_that_decides(tmp_path: Path) -> None:
    run = decided_by_one_choice(tmp_path)
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    importances = optuna.importance.get_param_importances(reopened(run), evaluator=evaluator)
    assert set(importances) == {item.name for item in run.space.choices}
    assert max(importances, key=lambda name: importances[name]) == DECIDING
    assert importances[DECIDING] > 0.5


def test_a_sampler_learns_from_the_recorded_trials(tmp_path: Path) -> None:
    run = decided_by_one_choice(tmp_path)
    study, wanted = reopened(run, TPESampler(seed=0)), distributions(run.space)
    asked = [study.ask(wanted).params[DECIDING] for _ in range(20)]
    options = next(item.options for item in run.space.choices if item.name == DECIDING)
    assert sum(options.index(value) >= len(options) - 2 for value in asked) >= 15
