"""Kill -9 at any point of a search with trainings: it goes on to the same order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pretended_trainings import make_job, plan, pretend
from searching import finished, go_on, make_run, ranking

from ghnas.engine.progress import SearchProgress
from ghnas.engine.run import Run, open_run
from ghnas.engine.stages.short_list import TrainingProgress, train_short_list

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and signals")
PLAN = plan(20, 2, 4, repeats=3)
BUDGET = 48
Ghnas = Callable[..., tuple[int, str, str]]
When = Callable[[TrainingProgress], bool]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(work: Callable[[], None]) -> None:
    """Do work in a process of its own, which must end by kill -9."""
    child = os.fork()
    if child == 0:
        signal.alarm(300)  # should it hang, the test fails
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the work was done before the process was killed"
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ghnas.engine.stages.short_list.train_all", pretend)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What was never killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ghnas.engine.stages.short_list.train_all", pretend)
        run = finished(tmp_path_factory.mktemp("whole"), budget=BUDGET)
        train_short_list(run, make_job(), PLAN, lambda progress: None)
    return run


def check_same(run: Run, whole: Run) -> None:
    """To the last digit, with nothing done twice."""
    assert ranking(run) == ranking(whole)
    found, expected = (
        sorted((r.trial, r.steps, r.repeat, r.outcome) for r in item.trainings())
        for item in (run, whole)
    )
    assert found == expected
    assert run.order == whole.order


@pytest.mark.usefixtures("pretended")
def test_in_the_zero_shot_stage(tmp_path: Path, whole: Run) -> None:
    run = make_run(tmp_path, budget=BUDGET)

    def report(progress: SearchProgress) -> None:
        if progress.done >= 16:
            die()

    killed(lambda: go_on(run, report=report))
    again = open_run(run.path)
    assert 0 < len(again.read()) < BUDGET
    go_on(again)
    train_short_list(again, make_job(), PLAN, lambda progress: None)
    check_same(again, whole)


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize(
    ("when", "done"),
    [
        pytest.param(lambda progress: progress.done == 3, 3, id="first batch"),
        pytest.param(lambda progress: progress.done == 13, 13, id="later batch"),
        pytest.param(lambda progress: progress.done == 20, 20, id="before the second trainings"),
        pytest.param(lambda progress: progress.doing == "again", 21, id="second trainings"),
        pytest.param(lambda progress: progress.doing == "4 steps", 24, id="longer trainings"),
        pytest.param(lambda progress: progress.done == 33, 33, id="before the order is written"),
    ],
)
def test_in_the_trainings(tmp_path: Path, whole: Run, when: When, done: int) -> None:
    run = finished(tmp_path, budget=BUDGET)

    def report(progress: TrainingProgress) -> None:
        if when(progress):
            die()

    killed(lambda: train_short_list(run, make_job(), PLAN, report))
    again = open_run(run.path)
    assert len(again.trainings()) == done
    train_short_list(again, make_job(), PLAN, lambda progress: None)
    check_same(again, whole)


@pytest.mark.usefixtures("pretended")
def test_twice(tmp_path: Path, whole: Run) -> None:
    run = finished(tmp_path, budget=BUDGET)
    for done in (5, 22):

        def report(progress: TrainingProgress, done: int = done) -> None:
            if progress.done == done:
                die()

        killed(lambda report=report: train_short_list(run, make_job(), PLAN, report))  # type: ignore[misc]
    train_short_list(run, make_job(), PLAN, lambda progress: None)
    check_same(run, whole)


@pytest.mark.slow
def test_the_program(tmp_path: Path, tiny_ghn: Path, ghnas: Ghnas) -> None:
    """The command line, with real trainings in processes of their own."""
    new = ("search", "--device", "cpu", "--budget", 16, "--ghn", tiny_ghn, "--score-images", 32,
           "--train", 12, "--train-steps", "2,4", "--results")  # fmt: skip
    paths = [tmp_path / "killed", tmp_path / "whole"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ghnas", *map(str, new), str(paths[0])],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if b" trained" in line and not line.startswith(b"0/"):
            process.kill()
            break
    assert process.wait(timeout=60) == -signal.SIGKILL
    (run,) = paths[0].glob("runs/*")
    assert 0 < len(open_run(run).trainings()) < 12 + 6
    for arguments in (("search", "--resume", "--results", paths[0]), (*new, paths[1])):
        code, _, err = ghnas(*arguments)
        assert code == 0, err
    first, second = (open_run(next(path.glob("runs/*"))) for path in paths)
    assert [item.number for item in first.ranked()] == [item.number for item in second.ranked()]
