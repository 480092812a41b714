"""Trials as Optuna's: round trips, and studies that Optuna's samplers and importance can use."""

from __future__ import annotations

import random
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from searching import finished, make_run

from ghnas.engine.objectives import ZERO_SHOT
from ghnas.engine.run import Run
from ghnas.engine.storage import append_trials, create_study, open_storage
from ghnas.engine.trials import Trial, TrialFormat, distributions
from ghnas.spaces import load_space

SPACES = {name: load_space(name) for name in ("darts", "mobile")}


def reopened(run: Run, sampler: BaseSampler | None = None) -> optuna.Study:
    storage = open_storage(run.study_path, None)
    return optuna.load_study(study_name=run.name, storage=storage, sampler=sampler)


@given(
    name=st.sampled_from(sorted(SPACES)),
    seed=st.integers(0, 2**32),
    objectives=st.sampled_from(
        [("accuracy",), ("params", "accuracy"), ("composite",), tuple(ZERO_SHOT), ("value",)]
    ),
    values=st.none() | st.tuples(*[st.floats(-1000, 1000)] * 4),
    images=st.none() | st.integers(1, 512),
    early=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 10)), max_size=3),
    accuracy=st.none() | st.floats(0, 1),
    parameters=st.integers(0, 2**53),
    duplicate_of=st.none() | st.integers(0, 10**9),
    seconds=st.floats(0, 10**6),
)
@settings(max_examples=100, deadline=None)
def test_a_trial_comes_back(
    name: str,
    seed: int,
    objectives: tuple[str, ...],
    values: tuple[float, ...] | None,
    images: int | None,
    early: list[tuple[float, float]],
    accuracy: float | None,
    parameters: int,
    duplicate_of: int | None,
    seconds: float,
) -> None:
    found = () if values is None else values[: len(objectives)]
    if "accuracy" in objectives:
        accuracy = found[objectives.index("accuracy")] if found else None
    trial = Trial(
        number=-1,
        architecture=SPACES[name].sample(seed),
        values=found,
        parameters=parameters,
        flops=7,
        hash="ab" * 8,
        duplicate_of=duplicate_of,
        seconds=seconds,
        accuracy=accuracy,
        images=images,
        early=tuple(early),
        error=None if found else "ValueError: no",
    )
    form = TrialFormat(SPACES[name], objectives)
    again = form.trial(form.frozen(trial))
    assert again.seconds == pytest.approx(seconds, abs=1e-6)
    assert again.__dict__ | {"seconds": 0} == trial.__dict__ | {"seconds": 0}


def test_a_trial_is_readable() -> None:
    architecture = SPACES["darts"].sample(0)
    form = TrialFormat(SPACES["darts"], ("accuracy",))
    frozen = form.frozen(Trial(0, architecture, (0.5,), 10, 20, "ab", 3, accuracy=0.5))
    assert len(frozen.params) == 22
    assert frozen.params == architecture.choices
    assert len(frozen.user_attrs.pop("seal")) == 8
    assert frozen.user_attrs == {"params": 10, "flops": 20, "hash": "ab", "same_as": 3}


def test_journal_lines_are_optunas_own(tmp_path: Path) -> None:
    rng = random.Random(1)
    form = TrialFormat(SPACES["darts"], ("accuracy", "params"))
    trials = [
        form.frozen(Trial(i, SPACES["darts"].sample(rng), (1 / 3, 9.0), 9, 9, "ab"))
        for i in range(5)
    ]
    objectives = {"accuracy": ZERO_SHOT["accuracy"], "params": ZERO_SHOT["params"]}
    ours, theirs = tmp_path / "ours.log", tmp_path / "theirs.log"
    create_study(open_storage(ours, None), "a", objectives, {})
    append_trials(ours, trials)
    study = create_study(open_storage(theirs, None), "a", objectives, {})
    study.add_trials(trials)
    assert optuna.load_study(study_name="a", storage=open_storage(ours, None)).trials == (
        study.trials
    )


@pytest.mark.parametrize("sampler", ["random", "evolution", "nsga2"])
def test_every_trial_has_every_choice(tmp_path: Path, sampler: str) -> None:
    run = finished(tmp_path, sampler=sampler)
    wanted = distributions(run.space)
    trials = reopened(run).trials
    assert len(trials) == 20
    for trial, found in zip(trials, run.read(), strict=True):
        assert trial.distributions == wanted
        assert trial.params == found.architecture.choices


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(
    "sampler",
    [TPESampler(n_startup_trials=5, seed=0), NSGAIISampler(population_size=10, seed=0)],
    ids=["tpe", "nsga2"],
)
def test_any_sampler_goes_on_with_a_recorded_study(tmp_path: Path, sampler: BaseSampler) -> None:
    run = finished(tmp_path)
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
    run = make_run(folder)
    options = next(item.options for item in run.space.choices if item.name == DECIDING)
    rng, trials = random.Random(0), []
    for number in range(150):
        architecture = run.space.sample(rng)
        place = options.index(architecture.choices[DECIDING])
        accuracy = place / len(options) + rng.gauss(0, 0.02)
        trials.append(Trial(number, architecture, (accuracy,), 1, 1, f"{number:x}"))
    run.write(trials)
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
