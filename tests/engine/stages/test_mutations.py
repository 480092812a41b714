"""Mutations of the best trained candidates, which join a run."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
from pretended_trainings import make_job, plan, pretend
from searching import FakeObjective, finished, ranking

from ghnas.engine.run import Run, open_run
from ghnas.engine.samplers import PredictorSearch
from ghnas.engine.stages.mutations import Mutations
from ghnas.engine.stages.short_list import TrainingProgress, train_short_list

BUDGET = 40


@pytest.fixture(autouse=True)
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ghnas.engine.stages.short_list.train_all", pretend)
    monkeypatch.setattr(PredictorSearch, "joining", 10)


def train(run: Run, count: int = 24, report: object = None) -> FakeObjective:
    objective = FakeObjective()
    ignore = lambda progress: None  # noqa: E731
    train_short_list(run, make_job(), plan(count, 2, 4), report or ignore, objective)  # type: ignore[arg-type]
    return objective


def test_they_are_candidates_of_the_run(tmp_path: Path) -> None:
    """Scored once, ranked and predicted as the others; neighbours of what was trained."""
    run = finished(tmp_path, budget=BUDGET)
    objective = train(run)
    trials = run.read()
    joined = trials[BUDGET:]
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert 5 < len(joined) <= 20  # before the second and the third batch
    assert objective.scored == len(joined)
    assert len({trial.hash for trial in trials if trial.duplicate_of is None}) == len(
        [trial for trial in trials if trial.duplicate_of is None]
    )
    trained = {trials[number].architecture for number in run.short_trainings()}
    for trial in joined:
        around = run.space.neighbours(trial.architecture)
        assert any(item in trained for item in around)
    ranked = run.ranked()
    assert {trial.number for trial in joined} <= {item.number for item in ranked}
    assert all(item.expected is not None for item in ranked)
    assert run.complete


def test_limits_hold(tmp_path: Path) -> None:
    run = finished(tmp_path, budget=BUDGET)
    most = sorted(trial.parameters for trial in run.read())[BUDGET // 2]
    limited = finished(tmp_path, budget=BUDGET, max_parameters=most)
    train(limited)
    joined = limited.read()[BUDGET:]
    assert joined
    assert all(trial.parameters <= most for trial in joined)


def test_what_is_recorded_in_part_goes_on(tmp_path: Path) -> None:
    """The same trials, to the last digit of scores that depend on what was scored together."""
    whole, part = finished(tmp_path, budget=BUDGET), finished(tmp_path, budget=BUDGET)
    rng = random.Random(0)
    batches = [
        [whole.space.mutate(whole.read()[0].architecture, rng) for _ in range(9)] for _ in range(2)
    ]
    mutations = Mutations(whole, FakeObjective())
    found = [mutations.admit(batch) for batch in batches]
    part.write([*found[0], *found[1][:3]])
    objective = FakeObjective()
    mutations = Mutations(open_run(part.path), objective)
    again = [mutations.admit(batch) for batch in batches]
    assert [[(t.number, t.hash, t.values) for t in batch] for batch in again] == [
        [(t.number, t.hash, t.values) for t in batch] for batch in found
    ]
    assert objective.scored == len(found[1]) - 3
    assert ranking(part) == ranking(whole)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and signals")
@pytest.mark.parametrize("done", [13, 21, 30])
def test_kill(tmp_path: Path, done: int) -> None:
    """In the second batch, the third, and the longer trainings."""
    whole, run = finished(tmp_path, budget=BUDGET), finished(tmp_path, budget=BUDGET)
    train(whole)

    def report(progress: TrainingProgress) -> None:
        if progress.done == done:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        signal.alarm(300)  # should it hang, the test fails
        try:
            train(run, report=report)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert len(run.trainings()) == done
    train(run)
    assert ranking(run) == ranking(whole)
    assert run.order == whole.order
