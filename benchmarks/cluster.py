"""Ray: what it costs against processes of this machine, how fast the head hands out candidates, and
whether a search whose nodes are killed at random is the same.

Overhead: searches of the same candidates with two processes and with two workers of a Ray cluster
on this machine, in turn. Dispatch: candidates that are only handed out, hashed and taken back, and
a whole search whose scorer only hashes. Kills: a search on a head without workers and two nodes of
one worker; one of them is killed at a random moment and another one started, so often.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]
)

import ray
from common import embedded, percent, shipped_ghn, write_table
from ray.cluster_utils import Cluster

from ghnas.architectures.architecture import Architecture
from ghnas.engine.objectives import ZeroShot
from ghnas.engine.search import Study, search
from ghnas.spaces import load_space
from ghnas.utils.cluster import RayPool
from ghnas.utils.processes import LocalPool, Pool

Row = tuple[str, str]


class Scorer:
    """Looks at the hash alone, after a while."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self, architecture: Architecture) -> float:
        time.sleep(self.seconds)
        return int(architecture.hash[:8], 16) / 16**8


class HashAll:
    """A worker's part of the dispatch alone."""

    def __call__(self, candidates: list[Architecture]) -> list[str]:
        return [item.hash for item in candidates]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=int, default=640, help="of a search for the overhead")
    parser.add_argument("--rounds", type=int, default=5, help="of both in turn")
    parser.add_argument("--dispatched", type=int, default=4096)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--killed-budget", type=int, default=3000)
    options = parser.parse_args()
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
    )
    with RayPool(cluster.address) as pool:
        rows = [*_overhead(pool, options), *_dispatch(pool, options.dispatched)]
    ray.shutdown()
    cluster.shutdown()
    rows += _kills(options)
    write_table(
        "cluster",
        "Ray against processes of one machine",
        ("what", "measured"),
        rows,
        ["Both ways were measured in turn. The head, its workers and the search share the cores."],
    )


def _score(pool: Pool, budget: int, seed: int) -> tuple[float, list[Any]]:
    """Seconds of a search whose workers are there, and its values."""
    space = load_space("darts")
    objective = ZeroShot(shipped_ghn(), embedded(), keep=None, device="cpu", pool=pool)
    search(space, objective, 64, seed=1000 + seed)
    began = time.monotonic()
    study = search(space, objective, budget, seed=seed)
    took = time.monotonic() - began
    objective.close()
    return took, [trial.values for trial in study.trials]


def _overhead(pool: RayPool, options: argparse.Namespace) -> list[Row]:
    ratios, here, different = [], [], 0
    for seed in range(options.rounds):
        local, values = _score(LocalPool(2), options.budget, seed)
        there, same = _score(pool, options.budget, seed)
        ratios.append(there / local - 1)
        here.append(local)
        different += sum(a != b for a, b in zip(values, same, strict=True))
        print(f"here {local:.1f} s, on Ray {there:.1f} s", flush=True)
    low, high = min(ratios), max(ratios)
    return [
        (
            f"more time on Ray with 2 workers than with 2 processes, {options.rounds} searches of "
            f"{options.budget:,}: median (least to most)",
            f"{percent(statistics.median(ratios))} ({percent(low)} to {percent(high)})",
        ),
        ("such a search with 2 processes, median", f"{statistics.median(here):.0f} s"),
        ("values that differ", str(different)),
    ]


def _dispatch(pool: RayPool, count: int) -> list[Row]:
    space = load_space("darts").for_images((3, 16, 16), 10)
    rng = random.Random(0)
    drawn = [space.sample(rng) for _ in range(count)]
    for item in drawn:
        _ = item.hash  # a search asks for it before it hands out
    chunks = [(drawn[i : i + 16],) for i in range(0, count, 16)]
    with pool.start(HashAll) as workers:
        list(workers.map(chunks[:8]))
        began, busy = time.monotonic(), time.process_time()
        assert sum(map(len, workers.map(chunks))) == count
        alone, used = time.monotonic() - began, time.process_time() - busy
    result = [
        (
            f"candidates handed out in 16s to 2 workers that only hash, and taken back, {count:,}",
            f"{count / alone:,.0f} a second; {count / used:,.0f} a second of the head's processor",
        )
    ]
    for name, own in (("on Ray", pool), ("in one process", None)):
        began, busy = time.monotonic(), time.process_time()
        search(space, Scorer(), count, batch_size=64, pool=own)
        took, used = time.monotonic() - began, time.process_time() - busy
        result.append(
            (
                f"a whole search of {count:,} with that scorer {name}: asked, handed out, recorded",
                f"{count / took:,.0f} a second; {count / used:,.0f} a second of the head's "
                "processor",
            )
        )
    return result


def _content(study: Study) -> list[tuple[Any, ...]]:
    return [
        (trial.number, trial.params, trial.values, trial.user_attrs["hash"])
        for trial in study.get_trials(deepcopy=False)
    ]


def _kills(options: argparse.Namespace) -> list[Row]:
    space = load_space("darts").for_images((3, 16, 16), 10)
    budget, rng = options.killed_budget, random.Random(0)
    expected = _content(search(space, Scorer(), budget, batch_size=64))
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    nodes, killed = [cluster.add_node(num_cpus=1) for _ in range(2)], 0
    with RayPool(cluster.address) as pool, ThreadPoolExecutor(1) as beside:
        found = beside.submit(search, space, Scorer(0.06), budget, batch_size=64, pool=pool)
        while killed < options.kills and not found.done():
            time.sleep(rng.uniform(2.0, 10.0))
            cluster.remove_node(nodes.pop(rng.randrange(2)), allow_graceful=False)
            killed += not found.done()
            nodes.append(cluster.add_node(num_cpus=1))
            print(f"{killed} nodes killed", flush=True)
        trials = _content(found.result())
    ray.shutdown()
    cluster.shutdown()
    numbers = Counter(trial[0] for trial in trials)
    pairs = zip(trials, expected, strict=False)
    return [
        (f"nodes killed at random in a search of {budget:,}", str(killed)),
        ("lost trials", str(len(set(range(budget)) - set(numbers)))),
        ("doubled trials", str(sum(numbers.values()) - len(numbers))),
        ("different trials", str(sum(ours != theirs for ours, theirs in pairs))),
    ]


if __name__ == "__main__":
    main()
