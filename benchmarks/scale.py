"""What bounds a search of many candidates: the head's hand-out, asking and recording, memory and
the study's file, with a scorer that only looks at the hash.

Every row is a process of its own. Hand-out: candidates that are drawn and hashed already are given
to workers in 16s and taken back. Search: candidates are asked for, handed out and recorded in a
journal; then the study is opened, as `ghnas.search` does at its end and `ghnas finetune` at its
beginning.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]
)

from cluster import HashAll, Scorer
from common import write_table

from ghnas.engine.progress import SearchProgress
from ghnas.engine.search import search
from ghnas.spaces import load_space
from ghnas.utils.cluster import RayPool
from ghnas.utils.processes import LocalPool, Pool

DISTINCT = 4096
"""Candidates that are handed out again and again."""
TASK = 16
"""Candidates of a task, as many as a hypernetwork predicts together."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searched", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--handed-out", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="of Ray")
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)  # what, how many, workers
    options = parser.parse_args()
    if options.only:
        what, count, workers = options.only
        measured = {"hand-out": hand_out, "search": whole_search}[what](int(count), int(workers))
        print(json.dumps(measured))
        return
    places = [0, *options.workers]
    write_table(
        "scale",
        "What bounds a search of many candidates",
        ("what", "candidates", "where", "a second", "a second of the head's processor",
         "memory a candidate", "study opened", "memory a candidate, then", "file a candidate"),
        [
            *(row("hand-out", count, at) for count in options.handed_out for at in places),
            *(row("search", count, at) for count in options.searched for at in places),
        ],
        [
            "darts; a scorer that only looks at the hash, which the head has worked out. "
            "This machine: two processes for hand-out, the search's own one for a search. "
            f"Hand-out: {DISTINCT:,} candidates again and again, {TASK} at a time. Search: random, "
            "until the last candidate is in the journal; then the study is opened. Memory: growth "
            "of the head's resident set. The head and its workers share the cores.",
        ],
    )  # fmt: skip


def row(what: str, count: int, workers: int) -> list[str]:
    """Measure in a process of its own; 0 workers of Ray are processes of this machine."""
    command = [sys.executable, __file__, "--only", what, str(count), str(workers)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(printed.splitlines()[-1])
    print(what, count, workers, found, file=sys.stderr, flush=True)
    where = f"Ray, workers: {workers}" if workers else "this machine"
    rates = [f"{count / found[key]:,.0f}" for key in ("seconds", "busy")]
    rest = [
        f"{found[key] / count / 1000:.2f} kB" if key in found else ""
        for key in ("memory", "opened", "file")
    ]
    opening = f"{found['opening']:.1f} s" if "opening" in found else ""
    return [what, f"{count:,}", where, *rates, rest[0], opening, *rest[1:]]


@contextmanager
def pool_of(workers: int, here: int) -> Iterator[Pool]:
    """Ray's workers, or processes of this machine if there are none."""
    if not workers:
        yield LocalPool(here)
        return
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": workers, "include_dashboard": False}
    )
    with RayPool(cluster.address, workers=workers) as pool:
        yield pool
    ray.shutdown()
    cluster.shutdown()


def hand_out(count: int, workers: int) -> dict[str, float]:
    """Tasks given to workers that are there, and their results taken."""
    space, rng = load_space("darts").for_images((3, 16, 16), 10), random.Random(0)
    drawn = [space.sample(rng) for _ in range(DISTINCT)]
    for item in drawn:
        _ = item.hash
    tasks = [(drawn[i : i + TASK],) for i in range(0, DISTINCT, TASK)]
    with pool_of(workers, here=2) as pool, pool.start(HashAll) as others:
        list(others.map(tasks))
        clock, before = Clock(), resident()
        every = itertools.islice(itertools.cycle(tasks), count // TASK)
        assert sum(map(len, others.map(every))) == count // TASK * TASK
        return clock.read() | {"memory": resident() - before}


def whole_search(count: int, workers: int) -> dict[str, float]:
    """A search of so many candidates, and its study opened."""
    space, marks = load_space("darts"), list[dict[str, float]]()

    def mark(progress: SearchProgress) -> None:
        if progress.done in (0, count):
            marks.append(clock.read() | {"memory": resident()})

    with pool_of(workers, here=1) as pool, tempfile.TemporaryDirectory() as folder:
        search(space, Scorer(), 64, pool=pool)  # workers are there now
        clock, journal = Clock(), Path(folder) / "study.log"
        study = search(space, Scorer(), count, pool=pool, path=folder, report=mark)
        assert len(study.get_trials(deepcopy=False)) == count
        first, last = marks
        return {
            **{key: last[key] - first[key] for key in first},
            "opening": clock.read()["seconds"] - last["seconds"],
            "opened": resident() - last["memory"],
            "file": journal.stat().st_size,
        }


class Clock:
    """Seconds of the wall and of this process's processor since it was made."""

    def __init__(self) -> None:
        self.began, self.busy = time.monotonic(), time.process_time()

    def read(self) -> dict[str, float]:
        return {
            "seconds": time.monotonic() - self.began,
            "busy": time.process_time() - self.busy,
        }


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
