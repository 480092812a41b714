"""A search without its scoring: what a candidate costs beside, and whether that grows.

The scorer answers at once with a number made from the graph's hash, so that what is measured is
asking, building, hashing, racing's bookkeeping, recording and the sampler itself.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from common import write_table

from ghnas.architectures.graph import Graph
from ghnas.data import load_data
from ghnas.engine.objectives import ZeroShot
from ghnas.engine.progress import SearchProgress
from ghnas.engine.search import search
from ghnas.ghn.checkpoint import load_ghn
from ghnas.scoring.evaluation import Score
from ghnas.scoring.racing import Race
from ghnas.spaces import load_space

MARKS = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)


class InstantScorer:
    """Scores as if for eight batches of 64 images, made from the hash of the graph."""

    def score(
        self,
        graphs: Sequence[Graph],
        wanted: Sequence[int] | None = None,
        race: Race | None = None,
    ) -> list[Score | None]:
        return [self._score(graph, race) for graph in graphs]

    def _score(self, graph: Graph, race: Race | None) -> Score:
        truth = int(graph.hash[:8], 16) / 16**8
        early = tuple((truth, 1 - truth) for _ in range(7))
        expected = race.verdict(1, truth, 1 - truth) if race else None
        if expected is None:
            return Score(truth, 1 - truth, 512, early)
        return Score(expected, 1 - truth, 64, stopped=True)


class Instant(ZeroShot):
    """A zero-shot search, races included, that scores nothing."""

    scorer = InstantScorer()  # type: ignore[assignment]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=int, default=100_000, help="of the random search")
    parser.add_argument("--learning-budget", type=int, default=10_000, help="of the others")
    parser.add_argument("--only", default=None, help="a sampler: run it and print its rows")
    options = parser.parse_args()
    if options.only:
        for row in measure(options.only, options.budget):
            print(*row, sep="\t", flush=True)
        return
    rows = []
    for sampler in ("random", "evolution", "tpe", "nsga2"):
        budget = options.budget if sampler == "random" else options.learning_budget
        command = [sys.executable, __file__, "--only", sampler, "--budget", str(budget)]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows += [line.split("\t") for line in printed.splitlines()]
    write_table(
        "long_search",
        "What a candidate costs beside its scoring",
        ("sampler", "candidates", "ms a candidate since the last row", "memory", "journal"),
        rows,
        [
            "darts, one process, scores made from the hash; memory: the largest resident set of "
            "the process so far (PyTorch and Optuna alone are about 0.5 GB).",
        ],
    )


def measure(sampler: str, budget: int) -> list[tuple[str, str, str, str, str]]:
    """A row for each mark that the budget reaches."""
    space, rows = load_space("darts"), []
    objective = Instant(load_ghn("darts-embedded"), load_data("embedded"))
    with tempfile.TemporaryDirectory() as folder:
        marks = [mark for mark in MARKS if mark <= budget]
        last = [0.0, 0.0]

        def note(progress: SearchProgress) -> None:
            now = time.perf_counter()
            if not last[1]:
                last[1] = now
            if marks and progress.done >= marks[0]:
                while marks and progress.done >= marks[0]:
                    marks.pop(0)
                rows.append(
                    (
                        sampler,
                        f"{progress.done:,}",
                        f"{1000 * (now - last[1]) / (progress.done - last[0]):.1f}",
                        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB",
                        f"{(Path(folder) / 'study.log').stat().st_size / 1e6:.0f} MB",
                    )
                )
                last[0], last[1] = progress.done, now

        search(space, objective, budget, sampler=sampler, path=folder, report=note)
    return rows


if __name__ == "__main__":
    main()
