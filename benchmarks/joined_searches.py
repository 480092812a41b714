"""Searches that fill one study of a PostgreSQL database, killed at random moments.

Each round, three processes join a study, and one after the other is killed with SIGKILL at a random
moment and started anew, so often. Afterwards the study must be that of one process that nobody
ended, trial by trial. Also: what recording takes, in batches and as Optuna does it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import optuna
import pgserver
from common import write_table

import ghnas.engine.databases.claims as claims
from ghnas.architectures.architecture import Architecture
from ghnas.engine.databases.connection import open_database
from ghnas.engine.run import Run, open_run
from ghnas.engine.search import Study, search
from ghnas.engine.trials import Trial
from ghnas.spaces import load_space

PROCESSES, BATCH = 3, 64
IMAGES, CLASSES = (3, 16, 16), 10


class Scorer:
    """Looks at the hash alone, takes a while, and notes what it was asked for.

    Args:
        log: A file of hashes.
        seconds: For each.
    """

    def __init__(self, log: Path, seconds: float) -> None:
        self.log, self.seconds = log, seconds

    def __call__(self, architecture: Architecture) -> float:
        time.sleep(self.seconds)
        with self.log.open("ab", buffering=0) as file:
            file.write(f"{architecture.hash[:16]}\n".encode())
        return int(architecture.hash[:8], 16) / 16**8


def search_once(
    path: Path, log: Path, budget: int, seconds: float, url: str | None, join: str | None
) -> Study:
    """A search that can be joined, or one that a process does alone if there is no URL."""
    claims.HEARTBEAT, claims.GRACE, claims.POLL = 0.5, 5.0, 0.2
    space = load_space("darts").for_images(IMAGES, CLASSES)
    return search(
        space, Scorer(log, seconds), budget, path=path, storage=url, join=join, batch_size=BATCH
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kills-each", type=int, default=5, help="in a study")
    parser.add_argument("--budget", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=0.01, help="that scoring takes")
    parser.add_argument("--recorded", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        server = pgserver.get_server(folder, cleanup_mode="stop")
        url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        open_database(url)
        with tempfile.TemporaryDirectory() as work:
            rows = _kills(Path(work), url, options) + _recording(Path(work), url, options.recorded)
        server.cleanup()
    write_table(
        "joined_searches",
        f"{options.kills} kills in searches of {options.budget:,} that {PROCESSES} processes share",
        ("what", "measured"),
        rows,
    )


def _kills(work: Path, url: str, options: argparse.Namespace) -> list[tuple[str, str]]:
    alone = search_once(work / "alone", work / "alone.log", options.budget, 0.0, None, None)
    assert alone.path is not None
    expected = _content(open_run(alone.path))
    rng, kills, rounds = random.Random(0), 0, 0
    wrong: Counter[str] = Counter()
    again = 0
    while kills < options.kills:
        name = f"round{rounds}"
        rounds += 1
        count = min(options.kills_each, options.kills - kills)
        kills += _round(work, url, name, count, rng, options)
        run = open_run(work / f"{name}-0")
        found = _content(run)
        wrong["budgets missed"] += len(found) != options.budget
        numbers = Counter(trial[0] for trial in found)
        wrong["doubled trials"] += sum(numbers.values()) - len(numbers)
        wrong["lost trials"] += len(set(range(options.budget)) - set(numbers))
        pairs = zip(found, expected, strict=False)
        wrong["different trials"] += sum(ours != theirs for ours, theirs in pairs)
        scored = Counter(
            key for log in work.glob(f"{name}-*.log") for key in log.read_text().split()
        )
        again += sum(scored.values()) - len(scored)
        print(f"{kills} kills, {dict(wrong)}, {again} scored again", file=sys.stderr)
    names = ("budgets missed", "doubled trials", "lost trials", "different trials")
    return [
        ("processes killed", f"{kills} in {rounds} studies"),
        *((name, str(wrong[name])) for name in names),
        ("scored again, a kill (a process holds one piece of 64)", f"{again / kills:.1f}"),
    ]


def _round(
    work: Path, url: str, name: str, kills: int, rng: random.Random, options: argparse.Namespace
) -> int:
    """Fill a study, with so many kills; returns how many met a process that was at work."""
    context = multiprocessing.get_context("fork")

    def begin(place: int, life: int) -> BaseProcess:
        log = work / f"{name}-{place}-{life}.log"
        arguments = (work / f"{name}-{place}", log, options.budget, options.seconds, url, name)
        process = context.Process(target=search_once, args=arguments)
        process.start()
        return process

    processes = [begin(place, 0) for place in range(PROCESSES)]
    done = 0
    for life in range(1, kills + 1):
        time.sleep(rng.uniform(0.5, 3.0))
        place = rng.randrange(PROCESSES)
        process = processes[place]
        assert process.pid is not None
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        done += process.exitcode == -signal.SIGKILL
        processes[place] = begin(place, life)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    return done


def _content(run: Run) -> list[tuple[Any, ...]]:
    return [
        (item.number, item.hash, item.values, item.duplicate_of, str(item.architecture))
        for item in run.read()
    ]


def _trial(number: int, item: Architecture) -> Trial:
    size, key = (item.parameters, item.flops), item.hash[:16]
    return Trial(number, item.without_graph(), (1 / (number + 1),), *size, key)


def _recording(work: Path, url: str, count: int) -> list[tuple[str, str]]:
    """What it takes to record a search's trials, in its batches and as Optuna adds them."""
    space, rng = load_space("darts").for_images(IMAGES, CLASSES), random.Random(1)
    trials = [_trial(number, space.sample(rng)) for number in range(count)]
    source = open_run(work / "alone")
    storage = open_database(url)
    manifest = source.manifest.model_copy(update={"storage": url, "study_name": "recorded"})
    optuna.create_study(storage=storage, study_name="recorded", direction="maximize")
    target = Run(work, manifest)
    began = time.monotonic()
    for start in range(0, count, 128):
        target.write(trials[start : start + 128])
    batched = time.monotonic() - began
    assert len(target.study().get_trials(deepcopy=False)) == count
    some = [source.form.frozen(trial) for trial in trials[:200]]
    theirs = optuna.create_study(storage=storage, direction="maximize")
    began = time.monotonic()
    theirs.add_trials(some)
    alone = (time.monotonic() - began) / len(some)
    return [
        (f"recording {count:,} trials of 22 parameters, batches of 128", f"{batched:.1f} s"),
        ("one by one with Optuna's `add_trials`, reckoned from 200", f"{alone * count:.0f} s"),
    ]


if __name__ == "__main__":
    main()
