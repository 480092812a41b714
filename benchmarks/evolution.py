"""Samplers on a table of trained accuracies: evolution against random.

    python benchmarks/evolution.py <accuracies.csv of NAS-Bench-201>

The objective is the accuracy in the table. An architecture that the table does not have raises
`KeyError`: its trial fails, no sampler is told of it, and it does not count. Samplers are compared
by the best of the first so many architectures that were evaluated.

A generation is as many *evaluated* architectures as in a zero-shot search: of a table with a
quarter of the space four times as many are asked for. The last row is of the default for
functions of one's own, which are evaluated one by one.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
from common import on_all_cores, write_table
from scipy import stats

from ghnas import Architecture, load_space, search
from ghnas.engine.samplers import Evolution, create_sampler, register
from ghnas.utils.statistics import Values
from ghnas.utils.tables import read_rows

MARKS = (50, 100, 200, 500)
"""Architectures evaluated."""
BUDGET = 2500
"""Candidates that are asked for; a sampler that asks for what it had or for what the table does not
have finds fewer than are compared, and keeps its best."""


class Enough(BaseException):
    """So many were evaluated as are compared; not an error of the objective."""


@register("evolution as it was")
class Forgetful(Evolution):
    """A population of 64 and batches of 128, of which the first half was never a parent."""

    batch_size, population = 128, 64

    def tell(self, results: Sequence[Architecture]) -> None:
        self._alive = deque([*self._alive, *results], maxlen=self.population)


def best_so_far(
    table: dict[str, float], sampler: str, seed: int, batch_size: int | None
) -> tuple[int, list[float]]:
    """How many were evaluated, and the best accuracy among the first 1, 2, ... of them."""
    space = load_space("nasbench201").with_skeleton(cells=1, stages=1)  # enough to be told apart
    best: list[float] = []

    def accuracy(architecture: Architecture) -> float:
        found = table[str(architecture)]
        best.append(max(found, best[-1] if best else 0.0))
        if len(best) == max(MARKS):
            raise Enough
        return found

    with suppress(Enough):
        search(space, accuracy, BUDGET, sampler=sampler, seed=seed, batch_size=batch_size)
    evaluated = len(best)
    return evaluated, best + best[-1:] * (max(MARKS) - len(best))


def measure(table: dict[str, float], task: tuple[str, int | None, int]) -> list[float]:
    """How many were evaluated, and the best at the marks."""
    sampler, batch_size, seed = task
    evaluated, best = best_so_far(table, sampler, seed, batch_size)
    return [evaluated, *(best[mark - 1] for mark in MARKS)]


def interval(values: Values) -> str:
    """The mean with its 95 % interval (Student's t over seeds)."""
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{values.mean():.2f} ± {half:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--column", default="cifar10_test_accuracy_200ep")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--samplers", nargs="+", default=["random", "evolution", "nsga2"])
    options = parser.parse_args()
    rows_read = read_rows(options.table, ["architecture", options.column])
    table = {row["architecture"]: float(row[options.column]) for row in rows_read}
    space = load_space("nasbench201")
    share = len(table) / space.size
    settings: list[tuple[str, int | None, int]] = []
    for name in [*options.samplers, "evolution as it was"]:
        generation = create_sampler(name, space, ("maximize",)).batch_size
        settings.append((name, round(generation / share), generation))
    settings.append(("evolution", None, 1))
    tasks = [(name, asked, seed) for name, asked, _ in settings for seed in range(options.seeds)]
    found = np.array(list(on_all_cores(partial(measure, table), tasks, "searches")))
    by_setting = found.reshape(len(settings), options.seeds, 1 + len(MARKS))
    rows = [
        (name, generation, *map(interval, values.T[1:]), f"{values[:, 0].mean():.0f}")
        for (name, asked, generation), values in zip(settings, by_setting, strict=True)
    ]
    ranked = sorted(table.values(), reverse=True)
    write_table(
        "evolution",
        "Samplers on a table of trained accuracies",
        ("sampler", "generation", *(f"best of {mark}" for mark in MARKS), "evaluated"),
        rows,
        [
            f"NAS-Bench-201, {options.column} of {len(table):,} of {space.size:,} architectures "
            f"(best {ranked[0]:.2f}, tenth best {ranked[9]:.2f}, mean {np.mean(ranked):.2f}); "
            f"mean over {options.seeds} seeds with a 95 % interval (Student's t). The objective "
            "raises for an architecture that the table does not have: its trial fails and does "
            "not count.",
            "",
            "Generation: architectures of the table that are evaluated before the sampler learns "
            f"of them, about; {1 / share:.1f} times as many are asked for, but for 1. Evaluated: "
            f"of {max(MARKS)}, when {BUDGET:,} were asked for; a search that finds no more of the "
            "table keeps its best.",
        ],
    )


if __name__ == "__main__":
    main()
