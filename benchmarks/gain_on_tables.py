"""What the first choice of a search reaches after a published, full training, against chance.

    python benchmarks/gain_on_tables.py <folder of tables> <ranking.csv of nasbench201>

Architectures with published accuracies are cut into pools at random; each pool is a search of its
own, which trains one network to the end: the one that it ranks first. Random search of the same
cost trains one too, a random one of the same pool: beside a full training, which takes hours,
scoring costs next to nothing. DARTS cells are ranked by the predictor that ships, each by one that
did not see it; NAS-Bench-201 by the composite score, in the file that `ghnas rank` writes.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from common import interval, write_table
from shipped_predictor import RANDOM, TABLES, cross_fitted, read

from ghnas import load_space
from ghnas.spaces.features import graph_features
from ghnas.training.truth_table import read_truth
from ghnas.utils.statistics import Values, estimate_mean

POOLS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", type=Path)
    parser.add_argument("ranking", type=Path)
    options = parser.parse_args()
    rows = [
        _row("DARTS, 600 epochs", *_darts(options.tables / "darts")),
        _row(
            "NAS-Bench-201, 200 epochs", *_ranked(options.tables / "nasbench201", options.ranking)
        ),
    ]
    write_table(
        "gain_on_tables",
        "The first choice of a search on CIFAR-10, after a published training",
        ["table", "pools", "random", "first choice", "best of the pool", "gain, points", "better"],
        rows,
        [
            f"Mean over {POOLS} pools, which share no architecture; the gain with its bootstrap "
            "95 % interval over pools.",
        ],
    )


def _darts(folder: Path) -> tuple[Values, Values]:
    """What is expected of cells, and what they reach, in %."""
    long, medium = (read(folder / name) for name in TABLES)
    random = graph_features(
        load_space("darts"), [load_space("darts").sample(i) for i in range(RANDOM)]
    )
    return cross_fitted(long, [medium], random)[1], 100 * long[1]


def _ranked(folder: Path, ranking: Path) -> tuple[Values, Values]:
    truth = read_truth(folder / "accuracies.csv", "cifar10_test_accuracy_200ep")
    reached = dict(zip(truth.architectures, truth.mean, strict=True))
    with ranking.open() as file:
        scores = [(row["architecture"], float(row["composite"])) for row in csv.DictReader(file)]
    return np.array([s for _, s in scores]), np.array([100 * reached[a] for a, _ in scores])


def _row(table: str, expected: Values, reached: Values) -> list[str]:
    order = np.random.default_rng(0).permutation(len(reached))
    pools = np.array_split(order, POOLS)
    first = np.array([reached[pool[expected[pool].argmax()]] for pool in pools])
    chance = np.array([reached[pool[0]] for pool in pools])  # the pool is in random order
    best = np.array([reached[pool].max() for pool in pools])
    return [
        table,
        f"{len(pools)} of {len(pools[0])}",
        *(
            f"{values.mean():.2f} % (sd {values.std(ddof=1):.2f})"
            for values in (chance, first, best)
        ),
        interval(estimate_mean(first - chance), 1),
        f"{int((first > chance).sum())} of {len(pools)}",
    ]


if __name__ == "__main__":
    main()
