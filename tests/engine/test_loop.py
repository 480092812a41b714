"""The search: repeatable, resumable after kill -9, nothing lost, nothing scored twice."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from searching import FakeObjective, entries, finished, go_on, make_run, ranking

from ghnas.engine.objectives import Outcome
from ghnas.engine.progress import SearchProgress
from ghnas.engine.run import LOCK, open_run
from ghnas.utils.errors import UserError

SAMPLERS = ("random", "evolution", "local", "tpe", "nsga2", "predictor")
SMALL_SPACE = """
name: small
family: cells
skeleton: {channels: 2, cells: 1}
cell:
  nodes: 2
  operations: {none: {block: zeros}, skip: {block: skip}}
"""


class Stop(BaseException):
    """Stands for Ctrl-C."""


class StoppingObjective(FakeObjective):
    """Is interrupted in its n-th call."""

    def __init__(self, calls: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.left = calls

    def evaluate(self, *arguments: Any) -> list[Outcome | None]:
        self.left -= 1
        if self.left < 0:
            raise Stop
        return super().evaluate(*arguments)


# ---------------------------------------------------------------- repeating


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_seed_repeats_a_search(tmp_path: Path, sampler: str) -> None:
    first, second, other = (
        finished(tmp_path, sampler=sampler, seed=seed, budget=30) for seed in (5, 5, 6)
    )
    assert entries(first) == entries(second)
    assert ranking(first) == ranking(second)
    assert ranking(first) != ranking(other)


@pytest.mark.parametrize("space", ["darts", "mobile", "nasbench101", "nasbench_macro"])
@pytest.mark.parametrize("objectives", [("accuracy",), ("params", "accuracy", "flops")])
def test_every_candidate_is_recorded(
    tmp_path: Path, space: str, objectives: tuple[str, ...]
) -> None:
    run = finished(tmp_path, space_name=space, objectives=objectives, budget=21)
    trials = run.read()
    assert [trial.number for trial in trials] == list(range(21))
    for trial in trials:
        found = trial.architecture
        assert (found.image_shape, found.classes) == ((3, 8, 8), 2)
        assert found.hash.startswith(trial.hash)
        assert (found.parameters, found.flops) == (trial.parameters, trial.flops)


def test_isomorphic_candidates_are_scored_once(tmp_path: Path) -> None:
    space = tmp_path / "small.yaml"
    space.write_text(SMALL_SPACE)
    run = make_run(tmp_path, str(space), budget=100, sampler="evolution")
    objective = FakeObjective()
    reports: list[SearchProgress] = []
    go_on(run, objective, reports.append)
    trials = run.read()
    first: dict[str, int] = {}
    for trial in trials:
        expected = first.setdefault(trial.hash, trial.number)
        assert trial.duplicate_of == (None if expected == trial.number else expected)
        assert trial.accuracy == trials[expected].accuracy
    assert 1 < len(first) < 50
    assert objective.scored == len(first) == len(run.ranked())
    assert reports[-1].duplicates == 100 - len(first)
    scored = [hashes[i] for hashes, wanted in objective.calls for i in wanted]
    assert max(Counter(scored).values()) == 1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_duplicates_are_proposed_again(tmp_path: Path, sampler: str) -> None:
    run = finished(tmp_path, sampler=sampler, budget=150, batch_size=25)
    duplicates = sum(trial.duplicate_of is not None for trial in run.read())
    assert duplicates <= 15


def test_ranking(tmp_path: Path) -> None:
    ranked = finished(tmp_path).ranked()
    assert [item.rank for item in ranked] == list(range(1, len(ranked) + 1))
    keys = [(-item.accuracy, item.parameters, item.number) for item in ranked]
    assert keys == sorted(keys)
    assert [item.front for item in ranked] == [True] + [False] * (len(ranked) - 1)


def test_pareto_front(tmp_path: Path) -> None:
    run = finished(tmp_path, objectives=("accuracy", "params"), budget=60)
    ranked = run.ranked()
    trials = ranked
    front = [item for item in ranked if item.front]
    assert ranked[: len(front)] == front
    assert 1 < len(front) < 60
    for item in ranked:
        dominated = any(
            other.accuracy >= item.accuracy
            and other.parameters <= item.parameters
            and (other.accuracy, other.parameters) != (item.accuracy, item.parameters)
            for other in trials
        )
        assert item.front != dominated
    study = run.study()
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["accuracy", "params"]


def test_progress(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    reports: list[SearchProgress] = []
    go_on(run, FakeObjective(seconds=0.001), reports.append)
    assert [item.done for item in reports] == [0, 8, 16, 20]
    assert {item.budget for item in reports} == {20}
    assert (reports[0].best, reports[0].eta, reports[0].rate) == (None, None, 0.0)
    assert reports[1].rate > 0
    assert (reports[1].eta or 0) > 0
    assert reports[-1].eta == 0
    assert reports[-1].best == run.ranked(1)[0].accuracy


# ---------------------------------------------------------------- constraints


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_constraints_are_met_before_scoring(tmp_path: Path, sampler: str) -> None:
    params = sorted(trial.parameters for trial in finished(tmp_path, budget=40).read())
    run = make_run(tmp_path, sampler=sampler, budget=24, max_parameters=params[2])
    objective = FakeObjective()
    go_on(run, objective)
    assert len(run.read()) == 24
    assert all(trial.parameters <= params[2] for trial in run.read())
    assert objective.scored == len(run.ranked())


def test_constraint_that_no_candidate_meets(tmp_path: Path) -> None:
    run = make_run(tmp_path, max_parameters=3)
    objective = FakeObjective()
    with pytest.raises(UserError, match="no architecture of space 'darts' has at most 3 param"):
        go_on(run, objective)
    assert objective.calls == []
    assert run.read() == []


# ---------------------------------------------------------------- resuming


@pytest.mark.parametrize(
    ("sampler", "objectives"),
    [(name, ("accuracy",)) for name in SAMPLERS] + [("nsga2", ("accuracy", "flops"))],
)
def test_interrupted_and_resumed(tmp_path: Path, sampler: str, objectives: tuple[str, ...]) -> None:
    settings: dict[str, Any] = {"sampler": sampler, "objectives": objectives, "budget": 64}
    whole = finished(tmp_path, **settings)
    run = make_run(tmp_path, **settings)
    scored = 0
    for calls in (0, 2, 5):
        objective = StoppingObjective(calls, names=objectives)
        with pytest.raises(Stop):
            go_on(open_run(run.path), objective)
        scored += objective.scored
    last = FakeObjective(names=objectives)
    reports: list[SearchProgress] = []
    go_on(open_run(run.path), last, reports.append)
    assert entries(run) == entries(whole)
    assert ranking(run) == ranking(whole)
    assert scored + last.scored == len(whole.ranked())
    assert (reports[0].done, reports[0].scored) == (56, 0)
    assert reports[-1].scored == last.scored


def test_finished_run_is_left_alone(tmp_path: Path) -> None:
    run = finished(tmp_path)
    before = run.study_path.read_bytes()
    objective = FakeObjective()
    go_on(run, objective)
    assert objective.calls == []
    assert run.study_path.read_bytes() == before


def test_batch_that_was_recorded_in_part(tmp_path: Path) -> None:
    """Cut the journal anywhere: only what is missing is scored, to the same digits."""
    whole = finished(tmp_path, sampler="evolution")
    content = whole.study_path.read_bytes()
    lines = content.splitlines(keepends=True)
    header = len(lines) - 20
    rng = random.Random(3)
    for kept in (0, 1, 7, 8, 11, 19):
        run = open_run(Path(shutil.copytree(whole.path, tmp_path / f"kept-{kept}")))
        torn = lines[header + kept][: rng.randrange(1, len(lines[header + kept]))]
        run.study_path.write_bytes(b"".join(lines[: header + kept]) + torn)
        objective = FakeObjective()
        go_on(run, objective)
        assert ranking(run) == ranking(whole)
        recorded = {trial.hash for trial in whole.read()[:kept]}
        assert objective.scored == len({r.hash for r in whole.read()} - recorded)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("sampler", ["random", "evolution", "tpe"])
def test_kill_9_at_any_moment(
    tmp_path: Path, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ghnas.engine.storage.LOCK_GRACE", 3)  # nobody else writes
    # Parzen estimators take most of the time
    budget = 48 if sampler == "tpe" else 120
    settings: dict[str, Any] = {"sampler": sampler, "budget": budget, "batch_size": 6}
    whole = finished(tmp_path, **settings)
    run = make_run(tmp_path, **settings)
    log = tmp_path / "scored.txt"
    log.touch()
    kills = 0
    rng = random.Random(sampler)
    for _ in range(30):
        logged, recorded = len(log.read_text().split()), {r.hash for r in run.read()}
        killed = _search_in_child(run.path, log, rng.randrange(30), rng.uniform(0, 0.03))
        scored = log.read_text().split()[logged:]
        assert recorded.isdisjoint(scored), "scored again although it was recorded"
        assert len(scored) == len(set(scored))
        if not killed:
            break
        kills += 1
    else:
        go_on(open_run(run.path), FakeObjective(log))
    assert kills >= 2
    assert entries(run) == entries(whole)
    assert ranking(run) == ranking(whole)
    scored_twice = len(log.read_text().split()) - len(whole.ranked())
    assert 0 <= scored_twice <= kills * 6, "more than the batch in flight was scored again"


def _search_in_child(path: Path, log: Path, scores: int, seconds: float) -> bool:
    """Search in a process of its own, killed so many scores and seconds from its start.

    Returns:
        Whether it was killed before it had finished.
    """
    start = log.stat().st_size
    child = os.fork()
    if child == 0:
        signal.alarm(300)  # should it hang, the test fails
        try:
            go_on(open_run(path), FakeObjective(log, seconds=0.003))
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(1)
        os._exit(0)
    done = status = 0
    while done == 0 and log.stat().st_size <= start + scores * 17:  # a line has 17 bytes
        time.sleep(0.001)
        done, status = os.waitpid(child, os.WNOHANG)
    time.sleep(seconds)
    if done == 0:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def test_two_searches_in_one_run(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with run.locked(), pytest.raises(UserError, match="being searched by another process"):
        go_on(open_run(run.path), FakeObjective())
    go_on(run, FakeObjective())
    assert run.complete


@pytest.mark.parametrize("stage", [1, 2])
def test_a_study_that_was_deleted_meanwhile(tmp_path: Path, stage: int) -> None:
    run = make_run(tmp_path)

    class Deleting(FakeObjective):
        def evaluate(self, *arguments: Any) -> list[Outcome | None]:
            if len(self.calls) == stage:
                name = run.manifest.study_name
                optuna.delete_study(study_name=name, storage=run.open_storage())
            return super().evaluate(*arguments)

    with pytest.raises(UserError, match=r"holds no study .* it was deleted"):
        go_on(run, Deleting())


def test_record_of_another_version(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(Stop):
        go_on(run, StoppingObjective(1))
    lines = run.study_path.read_bytes().splitlines(keepends=True)
    other = finished(tmp_path, seed=1).study_path.read_bytes().splitlines(keepends=True)
    content = b"".join([*lines[:-8], *other[-20:-17]])
    run.study_path.write_bytes(re.sub(rb',"seal":"[0-9a-f]+"', b"", content))
    with pytest.raises(UserError, match="cannot be resumed: batch 0 is not what this version"):
        go_on(run, FakeObjective())


# ---------------------------------------------------------------- the disk


def test_full_disk_while_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a batch is written, then the disk is full; with space again the search goes on."""
    whole = finished(tmp_path)
    run = make_run(tmp_path)
    append = JournalFileBackend.append_logs
    calls = itertools.count()

    def fill(self: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        if next(calls) == 1:
            half = "\n".join(json.dumps(log, separators=(",", ":")) for log in logs)
            with run.study_path.open("a") as file:
                file.write(half[: len(half) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, logs)

    monkeypatch.setattr(JournalFileBackend, "append_logs", fill)
    with pytest.raises(UserError, match=r"study.log: cannot be written \(No space left on device"):
        go_on(run, FakeObjective())
    assert 8 < len(run.read()) < 16
    go_on(run, FakeObjective())
    assert ranking(run) == ranking(whole)


def test_run_folder_that_cannot_be_written(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run.path / LOCK).mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        go_on(run, FakeObjective())


# ---------------------------------------------------------------- the dashboard


def test_dashboard_shows_a_search_while_it_runs(tmp_path: Path) -> None:
    import optuna_dashboard

    run = make_run(tmp_path, objectives=("accuracy", "params"))
    seen: list[dict[str, Any]] = []

    def look(progress: SearchProgress) -> None:
        application = optuna_dashboard.wsgi(run.storage_url)
        request = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/api/studies/0",
            "QUERY_STRING": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": sys.stderr,
            "wsgi.url_scheme": "http",
        }
        body = b"".join(application(request, lambda status, headers, error=None: None))
        seen.append(json.loads(body))

    go_on(run, None, look)
    assert [len(study["trials"]) for study in seen] == [0, 8, 16, 20]
    assert seen[-1]["objective_names"] == ["accuracy", "params"]
    trial = seen[-1]["trials"][0]
    assert {item["key"] for item in trial["user_attrs"]} == {"params", "flops", "hash", "seal"}
    assert len(trial["params"]) == 22
    options = {item["name"]: item for item in seen[-1]["union_search_space"]}
    assert len(options["normal.2.first"]["distribution"]["choices"]) > 1
