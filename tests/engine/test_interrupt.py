"""Ctrl-C in a real search: the batch in flight is finished, recorded, and never scored again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from searching import FakeObjective, finished, go_on, make_run, ranking

from ghnas.engine.objectives import Outcome
from ghnas.engine.run import open_run

SEARCH = """
import sys
from pathlib import Path

sys.path.insert(0, {tests!r})
from searching import FakeObjective, go_on

from ghnas.engine.run import open_run

objective = FakeObjective(Path({log!r}), seconds=0.05)
try:
    go_on(open_run(Path({run!r})), objective)
except KeyboardInterrupt:
    sys.exit(130)
"""


def start(run: Path, log: Path) -> subprocess.Popen[bytes]:
    tests = str(Path(__file__).resolve().parents[1])
    code = SEARCH.format(tests=tests, log=str(log), run=str(run))
    return subprocess.Popen([sys.executable, "-c", code])


def wait_for_lines(log: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while len(log.read_text().split()) < count:
        assert process.poll() is None, "the search ended early"
        assert time.monotonic() < deadline, "the search does not go on"
        time.sleep(0.005)


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
@pytest.mark.parametrize("sampler", ["random", "evolution"])
def test_nothing_is_scored_twice(tmp_path: Path, sampler: str) -> None:
    settings = {"budget": 48, "batch_size": 8, "sampler": sampler}
    whole = finished(tmp_path, **settings)
    run = make_run(tmp_path, **settings)
    log = tmp_path / "scored.txt"
    log.touch()
    for lines in (10, 27):  # in the middle of a batch
        process = start(run.path, log)
        wait_for_lines(log, lines, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        scored = log.read_text().split()
        recorded = [t.hash for t in run.read() if t.duplicate_of is None]
        assert sorted(scored) == sorted(recorded), "scored, but not recorded"
    assert len(run.read()) < 48
    go_on(open_run(run.path))
    assert ranking(run) == ranking(whole)


class Cancelled(FakeObjective):
    """Gives up what is left of a batch after so many candidates, as after Ctrl-C."""

    def __init__(self, many: int) -> None:
        super().__init__()
        self.many = many

    def evaluate(self, *arguments: Any) -> list[Outcome | None]:
        outcomes = super().evaluate(*arguments)
        wanted = arguments[1]
        for i in wanted[self.many :]:
            outcomes[i] = None
        self.many -= len(wanted)
        if self.many < 0:
            signal.raise_signal(signal.SIGINT)
        return outcomes


@pytest.mark.parametrize("many", [0, 1, 5, 8, 13])
def test_what_was_scored_of_a_batch_is_recorded(tmp_path: Path, many: int) -> None:
    settings = {"budget": 24, "batch_size": 8, "sampler": "evolution"}
    whole, run = finished(tmp_path, **settings), make_run(tmp_path, **settings)
    with pytest.raises(KeyboardInterrupt):
        go_on(run, Cancelled(many))
    assert len([trial for trial in run.read() if trial.duplicate_of is None]) == many
    go_on(run)
    assert ranking(run) == ranking(whole)


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_a_second_ctrl_c_drops_the_batch_in_flight(tmp_path: Path, tiny_ghn: Path) -> None:
    """The program ends although thousands of candidates are being scored."""
    options = ["--budget", "20000", "--ghn", str(tiny_ghn), "--results", str(tmp_path)]
    command = [sys.executable, "-m", "ghnas", "search", "--device", "cpu", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    for line in process.stdout:  # the first batch is recorded, others are under way
        if b"candidates  " in line:
            break
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"interrupted: " in output
    assert b"Traceback" not in output
    (run,) = (tmp_path / "runs").iterdir()
    assert 0 < len(open_run(run).read()) < 20000
