"""Do mutations of the best help a predictor that chooses from a pool?

    python benchmarks/mutations.py <folder of tables>

On tables of published accuracies, tuning part: the pool is a fifth of the table, drawn at random,
and mutations that are in the table join it. On DARTS, where the pool is 10,000 random cells of
10^18: the zero-shot loss of the shipped hypernetwork stands for the trained accuracy, for it can be
had of any cell; the predictor has graph features alone.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from common import CPU, embedded, write_table

import ghnas
from ghnas.architectures.architecture import Architecture
from ghnas.engine.bench import Table, search_table
from ghnas.engine.objectives import ZeroShot
from ghnas.engine.samplers import PredictorSearch, with_values
from ghnas.ghn.checkpoint import trained_skeleton
from ghnas.scoring.scorer import Scorer
from ghnas.training.truth_table import read_truth, subset
from ghnas.utils.statistics import Values, estimate_mean

MARKS = (16, 32, 64)
SOURCES = (("nasbench201", "cifar10_test_accuracy_200ep"), ("nasbench_macro", "test_accuracy"))
SHARE = 5
IMAGES = 256


class WiderSearch(PredictorSearch):
    """Most mutations are not in a table, so that more are made."""

    joining = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", type=Path)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--pool", type=int, default=10_000)
    options = parser.parse_args()
    rows = [
        row
        for space, column in SOURCES
        for row in on_table(options.tables / space / "accuracies.csv", space, column, options.seeds)
    ]
    rows += on_cells(options.pool, options.seeds)
    write_table(
        "mutations",
        "A predictor that chooses from a pool, which mutations of the best join or do not",
        ("trainings stand for", "candidates", *(f"best of {mark}" for mark in MARKS),
         "five best of 64"),
        rows,
        [
            f"Mean over {options.seeds} searches of 64 trainings, eight at a time. Tables: points "
            "of accuracy below the best of the table's tuning part; DARTS: zero-shot loss in nats "
            f"on {IMAGES} images. 'Difference': with mutations minus without, of the same pool, "
            "and its 95 % interval (bootstrap over searches); below zero is better with them."
        ],
    )  # fmt: skip


def on_table(path: Path, space: str, column: str, seeds: int) -> list[tuple[str, ...]]:
    """Losses on a table, by what the candidates are."""
    known = subset(read_truth(path, column), "tune")
    table = Table(ghnas.load_space(space), known.architectures, 100 * known.mean)

    def admit(mutations: Sequence[Architecture]) -> list[Architecture]:
        return [item for item in mutations if item in table.places]

    def search(seed: int, **settings: Callable[..., object] | None) -> Values:
        count = len(table.members) // SHARE
        pool = random.Random(f"pool {seed}").sample(table.members, count)
        found = search_table(table, partial(WiderSearch, pool=pool, **settings), seed, MARKS[-1])
        return losses(np.max(table.accuracies) - found)

    name = f"{space}, {len(table.members):,} architectures"
    whole = np.array([
        losses(np.max(table.accuracies)
               - search_table(table, partial(PredictorSearch, pool=table.members), seed, MARKS[-1]))
        for seed in range(seeds)
    ])  # fmt: skip
    pools = np.array([search(seed) for seed in range(seeds)])
    joined = np.array([search(seed, admit=admit) for seed in range(seeds)])
    return [(name, "all", *map(str, np.round(whole.mean(0), 3))), *compared(name, pools, joined)]


def on_cells(pool: int, seeds: int) -> list[tuple[str, ...]]:
    """Zero-shot losses of DARTS cells."""
    ghn = ghnas.load_ghn("darts-embedded")
    objective = ZeroShot(ghn, embedded(), workers=1, device=CPU)
    space = objective.space_for(trained_skeleton(ghn.info, ghnas.load_space("darts")))
    scorer, known = Scorer(ghn, objective.batches(IMAGES), CPU, 1), dict[Architecture, float]()

    def search(seed: int, **settings: Callable[..., object]) -> Values:
        rng = random.Random(f"pool {seed}")
        cells = list(dict.fromkeys(space.sample(rng) for _ in range(pool)))
        sampler, found = (
            PredictorSearch(space, ("maximize",), pool=cells, **settings),
            list[float](),
        )
        while len(found) < MARKS[-1]:
            asked = list(dict.fromkeys(sampler.ask(8, random.Random(f"{seed}:{len(found)}"))))
            new = [item for item in asked if item not in known]
            scores = scorer.score([item.graph for item in new])
            known.update((a, s.loss) for a, s in zip(new, scores, strict=True))
            sampler.tell([with_values(item, (-known[item],)) for item in asked])
            found += [known[item] for item in asked]
        return losses(np.array(found))

    pools = np.array([search(seed) for seed in range(seeds)])
    joined = np.array([search(seed, admit=lambda mutations: mutations) for seed in range(seeds)])
    return compared(f"zero-shot loss of DARTS cells, a pool of {pool:,}", pools, joined)


def losses(found: Values) -> Values:
    """The least after so many trainings, and the mean of the five least of all."""
    return np.array([*(found[:mark].min() for mark in MARKS), np.sort(found)[:5].mean()])


def compared(name: str, pools: Values, joined: Values) -> list[tuple[str, ...]]:
    """A row without mutations, one with them, one of the difference."""
    difference = [estimate_mean(column) for column in (joined - pools).T]
    return [
        (name, "pool", *map(str, np.round(pools.mean(0), 3))),
        (name, "pool and mutations", *map(str, np.round(joined.mean(0), 3))),
        (name, "difference", *(f"{e.value:.3f} ({e.low:.3f} to {e.high:.3f})" for e in difference)),
    ]


if __name__ == "__main__":
    main()
