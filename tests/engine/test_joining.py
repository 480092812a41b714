"""Several processes that fill one study of a database."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from file_limits import files_up_to
from optuna.storages._rdb import models
from optuna.trial import TrialState
from searching import FakeObjective, entries, finished, go_on, make_manifest, ranking
from sqlalchemy import update
from sqlalchemy.orm import Session

import ghnas
from ghnas import UserError
from ghnas.engine import joining
from ghnas.engine.databases import claims
from ghnas.engine.databases.connection import open_database
from ghnas.engine.joining import join_run, joined_manifest
from ghnas.engine.objectives import Outcome
from ghnas.engine.run import Run, create_run, open_run

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and signals"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes look often."""
    monkeypatch.setattr(claims, "HEARTBEAT", 0.2)
    monkeypatch.setattr(claims, "POLL", 0.1)


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/search.db"


def joined(path: Path, url: str, study: str = "ours", **changes: Any) -> Run:
    """A run of a process that joins a study; `changes` as in `make_manifest`."""
    return join_run(path, make_manifest(storage=url, join=study, **changes), url)


def same(run: Run, whole: Run) -> bool:
    """Whether two studies are equal, trial by trial."""
    return entries(run) == entries(whole) and ranking(run) == ranking(whole)


def pieces(run: Run) -> list[TrialState]:
    study = optuna.load_study(study_name="ours-claims", storage=run.open_storage())
    return [trial.state for trial in study.trials]


def start(work: Callable[[], object]) -> int:
    """A process that does some work."""
    child = os.fork()
    if child == 0:
        signal.alarm(600)  # should it hang, the test fails
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return child


def age(url: str, study: str, process: int) -> None:
    """Let the heartbeats of a dead process be hours old."""
    storage = open_database(url)
    trials = storage.get_all_trials(storage.get_study_id_from_name(study))
    own = [t._trial_id for t in trials if t.user_attrs.get("process", "").endswith(f":{process}")]
    beats = models.TrialHeartbeatModel
    with Session(storage.engine) as session, session.begin():
        past = {"heartbeat": datetime(2000, 1, 1)}
        session.execute(update(beats).where(beats.trial_id.in_(own)).values(past))


# ---------------------------------------------------------------- the same study


@pytest.mark.parametrize("sampler", ["random", "evolution", "nsga2", "predictor"])
def test_a_joined_study_is_that_of_one_process(tmp_path: Path, sqlite: str, sampler: str) -> None:
    changes: dict[str, Any] = {"sampler": sampler, "budget": 100, "batch_size": 40}
    run = joined(tmp_path / "run", sqlite, **changes)
    go_on(run)
    assert same(run, finished(tmp_path, **changes))
    assert set(pieces(run)) == {TrialState.COMPLETE}
    assert open_run(run.path).complete


def test_scores_go_through_the_database_unchanged(tmp_path: Path, sqlite: str) -> None:
    """Also those that JSON has no numbers for, and what a race learns from."""

    class Odd(FakeObjective):
        def evaluate(self, *arguments: Any) -> list[Outcome | None]:
            odd = Outcome((float("inf"),), 0.1 + 0.2, 64, ((1 / 3, 2.5), (0.5, 1e6)))
            failed = Outcome(error="it failed")
            found = super().evaluate(*arguments)
            return [None if item is None else (odd, failed)[i % 2] for i, item in enumerate(found)]

    run = joined(tmp_path / "run", sqlite, budget=20)
    go_on(run, Odd())
    whole = ghnas.search(run.space, Odd(), 20, batch_size=8, path=tmp_path / "whole")
    assert whole.path is not None
    assert entries(run) == entries(open_run(whole.path))


# ---------------------------------------------------------------- several processes


@pytest.mark.parametrize("sampler", ["random", "evolution"])
def test_four_processes_one_of_them_killed(
    tmp_path: Path, postgresql: str, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ghnas.engine.joining.PIECE", 16)
    changes: dict[str, Any] = {"sampler": sampler, "budget": 192, "batch_size": 64}
    whole = finished(tmp_path, **changes)
    runs = [tmp_path / f"run{i}" for i in range(4)]
    logs = [tmp_path / f"log{i}" for i in range(4)]

    victim = random.Random(0).randrange(4)
    for log in logs:
        log.touch()

    def has_begun() -> bool:
        return logs[victim].stat().st_size >= 17 * 4  # four candidates of its first piece

    def search(i: int) -> None:
        while i != victim and not has_begun():  # or they might be done before
            time.sleep(0.005)
        objective = FakeObjective(logs[i], seconds=0.05 if i == victim else 0.004)
        go_on(joined(runs[i], postgresql, sampler, **changes), objective)

    children = [start(lambda i=i: search(i)) for i in range(4)]
    late = time.monotonic() + 600
    while not has_begun():
        assert time.monotonic() < late
        time.sleep(0.005)
    os.kill(children[victim], signal.SIGKILL)
    endings = [os.waitpid(children[victim], 0)[1]]
    age(postgresql, f"{sampler}-claims", children[victim])
    endings += [os.waitpid(child, 0)[1] for child in children if child != children[victim]]
    assert endings == [signal.SIGKILL, 0, 0, 0]
    run = open_run(runs[victim - 1])
    assert len(run.study().trials) == 192
    assert same(run, whole)
    scored = [log.read_text().split() for log in logs]
    twice = Counter(key for keys in scored for key in keys)
    again = {key for key, count in twice.items() if count > 1}
    assert again <= set(scored[victim][-2 * 16 :]), "only what the dead process held"


def test_claims_of_a_failed_process_are_free_at_once(tmp_path: Path, sqlite: str) -> None:
    class Failing(FakeObjective):
        def evaluate(self, *arguments: Any) -> list[Outcome | None]:
            if self.calls:
                raise UserError("the images are gone")
            return super().evaluate(*arguments)

    run = joined(tmp_path / "run", sqlite, budget=40)
    with pytest.raises(UserError, match="the images are gone"):
        go_on(run, Failing())
    assert TrialState.RUNNING not in pieces(run)
    go_on(open_run(run.path))
    assert same(run, finished(tmp_path, budget=40))


def test_ctrl_c_keeps_what_is_scored(tmp_path: Path, sqlite: str) -> None:
    class Interrupted(FakeObjective):
        def evaluate(self, *arguments: Any) -> list[Outcome | None]:
            if not self.calls:
                os.kill(os.getpid(), signal.SIGINT)
            return super().evaluate(*arguments)

    run = joined(tmp_path / "run", sqlite, budget=100)
    with pytest.raises(KeyboardInterrupt):
        go_on(run, Interrupted())
    assert TrialState.RUNNING not in pieces(run)
    assert TrialState.WAITING in pieces(run)
    go_on(open_run(run.path))
    assert same(run, finished(tmp_path, budget=100))


def test_pieces_that_nobody_recorded_are_not_scored_again(tmp_path: Path, sqlite: str) -> None:
    """All processes are killed between scoring and recording."""
    run = joined(tmp_path / "run", sqlite, budget=40)

    class Stop(Exception):
        pass

    def write(self: Run, trials: Sequence[object]) -> None:
        raise Stop

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Run, "write", write)
        with pytest.raises(Stop):
            go_on(run)
    assert not run.read()
    assert TrialState.COMPLETE in pieces(run)
    objective, done = FakeObjective(), pieces(run).count(TrialState.COMPLETE)
    go_on(open_run(run.path), objective)
    assert same(run, finished(tmp_path, budget=40))
    assert objective.scored <= 40 - 8 * done


def test_a_process_that_was_taken_for_dead(tmp_path: Path, sqlite: str) -> None:
    """It finishes after another one has scored its piece: the first outcome counts."""
    run, other = (joined(tmp_path / name, sqlite) for name in ("run", "other"))

    class Slow(FakeObjective):
        def evaluate(self, *arguments: Any) -> list[Outcome | None]:
            if not self.calls:
                study = optuna.load_study(study_name="ours-claims", storage=run.open_storage())
                for trial in study.trials:  # as if its heartbeats had ended
                    if trial.state == TrialState.RUNNING:
                        storage = open_database(sqlite)
                        storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
                go_on(other)
            super().evaluate(*arguments)
            return [Outcome((0.0,), 0.0)] * len(arguments[0])

    go_on(run, Slow())
    assert same(run, finished(tmp_path))


def test_another_version_of_ghnas(tmp_path: Path, sqlite: str) -> None:
    """It asks for other candidates: their scores are not taken for those of ours."""
    run = joined(tmp_path / "run", sqlite)
    storage = open_database(sqlite)
    study = storage.get_study_id_from_name("ours-claims")
    piece = storage.get_all_trials(study)[0]._trial_id
    result = {"candidates": "others", "outcomes": []}
    storage.set_trial_user_attr(piece, "result", result)
    storage.set_trial_state_values(piece, TrialState.COMPLETE, [0.0])
    with pytest.raises(UserError, match="asks for other candidates: use the same version"):
        go_on(run)
    assert not run.read()


# ---------------------------------------------------------------- starting and joining


def test_what_a_study_was_started_with(tmp_path: Path, sqlite: str) -> None:
    assert joined_manifest(sqlite, "ours") is None
    first = joined(tmp_path / "first", sqlite)
    found = joined_manifest(sqlite, "ours")
    assert found is not None
    assert found.difference(first.manifest) is None
    second = joined(tmp_path / "second", sqlite)
    assert second.manifest.created == first.manifest.created
    assert joined(tmp_path / "second", sqlite).path == second.path
    with pytest.raises(UserError, match="holds another search"):
        joined(tmp_path / "second", sqlite, "another")


@pytest.mark.parametrize("way", ["joined", "alone"])
def test_a_folder_in_which_a_process_was_killed_while_it_began(
    tmp_path: Path, sqlite: str, way: str
) -> None:
    path = tmp_path / "run"

    def begin() -> Run:
        return joined(path, sqlite) if way == "joined" else create_run(path, make_manifest())

    path.mkdir()
    (path / "notes.txt").write_text("somebody's")
    with pytest.raises(UserError, match="is not empty"):
        begin()
    (path / "notes.txt").rename(path / ".manifest.json.half")
    assert begin().read() == []


@pytest.mark.parametrize(
    ("changes", "entry"),
    [
        ({"space_name": "nasbench201"}, "space darts, not nasbench201"),
        ({"budget": 21}, "budget 20, not 21"),
        ({"seed": 3}, "seed 0, not 3"),
        ({"objectives": ("accuracy", "params")}, "objectives "),
    ],
)
def test_a_study_of_something_else(
    tmp_path: Path, sqlite: str, changes: dict[str, Any], entry: str
) -> None:
    joined(tmp_path / "run", sqlite)
    with pytest.raises(UserError, match=f"study 'ours' was started with {entry}"):
        joined(tmp_path / "other", sqlite, **changes)
    assert not (tmp_path / "other").exists()


def test_a_study_of_another_hypernetwork(tmp_path: Path, sqlite: str) -> None:
    manifest = joined(tmp_path / "run", sqlite).manifest
    other = manifest.model_copy(update={"objective": manifest.objective | {"ghn_sha256": "b" * 64}})
    with pytest.raises(UserError, match=r"objective ghn_sha256 aaa.*, not bbb"):
        join_run(tmp_path / "other", other, sqlite)


def test_a_study_that_nobody_can_join(
    tmp_path: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ghnas.engine.joining.STARTING", 0.0)
    optuna.create_study(storage=open_database(sqlite), study_name="ours")
    with pytest.raises(UserError, match="was not started with --join"):
        joined(tmp_path / "run", sqlite)
    with pytest.raises(UserError, match="must all ask for the same candidates"):
        joined(tmp_path / "run", sqlite, sampler=optuna.samplers.RandomSampler())
    for name in ("", "../x", "a b", "x" * 101):
        with pytest.raises(UserError, match="a study's name has up to 100"):
            joined(tmp_path / "run", sqlite, name)
    space, objective = ghnas.load_space("darts"), FakeObjective()
    with pytest.raises(UserError, match="say which one with --storage"):
        ghnas.search(space, objective, 5, join="ours", path=tmp_path / "x")
    for join in ("ours", None):
        with pytest.raises(UserError, match="give a path"):
            ghnas.search(space, objective, 5, join=join, storage=sqlite)


@pytest.mark.parametrize("steps", range(4))
def test_a_process_that_dies_while_it_makes_the_study(
    tmp_path: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """The next one goes on there, and joins the study as it was begun."""
    monkeypatch.setattr("ghnas.engine.joining.STARTING", 0.0)
    left = iter(range(steps))

    class Killed(BaseException):
        pass

    def dying(name: str) -> None:
        whole = getattr(joining, name)

        def step(*arguments: Any, **settings: Any) -> object:
            if next(left, None) is None:
                raise Killed
            return whole(*arguments, **settings)

        patched.setattr(joining, name, step)

    with pytest.MonkeyPatch.context() as patched:
        for name in ("create_study", "add_pieces", "write_atomically"):
            dying(name)
        with pytest.raises(Killed):
            joined(tmp_path / "run", sqlite)
    run = joined(tmp_path / "run", sqlite)
    go_on(run)
    assert same(run, finished(tmp_path))


@pytest.mark.parametrize("size", [100, 4000, 12_000])
def test_a_database_that_takes_no_more_when_the_study_is_made(
    tmp_path: Path, sqlite: str, size: int
) -> None:
    open_database(sqlite)  # its tables are there
    with files_up_to(size), pytest.raises(UserError, match="cannot be read or written"):
        joined(tmp_path / "run", sqlite)
    run = joined(tmp_path / "run", sqlite)
    go_on(run)
    assert same(run, finished(tmp_path))


def test_a_database_with_a_part_of_the_study(tmp_path: Path, sqlite: str) -> None:
    joined(tmp_path / "run", sqlite)
    with sqlite3.connect(tmp_path / "search.db") as database:
        database.execute("DELETE FROM studies")
    database.close()
    with pytest.raises(UserError, match="the storage already holds a study 'ours-claims'"):
        joined(tmp_path / "other", sqlite)


def test_functions_join_too(tmp_path: Path, sqlite: str) -> None:
    space = ghnas.load_space("nasbench201")
    settings: dict[str, Any] = {"budget": 12, "storage": sqlite, "join": "ours"}
    study = ghnas.search(space, lambda item: -item.flops, path=tmp_path / "run", **settings)
    alone = ghnas.search(space, lambda item: -item.flops, budget=12)
    assert [item.values for item in study.best(5)] == [item.values for item in alone.best(5)]
