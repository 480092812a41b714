"""The predictor on tables of trained accuracies: how well a few labels order the rest.

    python benchmarks/predictor.py <folder of tables>

The folder has `darts/accuracies_600ep.csv`, `nasbench201/accuracies.csv` and so on; a table whose
space this version of ghnas does not have is left out. So many architectures are drawn as labels,
the others are ordered by graph features alone; correlation over all others, mean over draws. Models
and features were chosen on `darts/accuracies_scifar100.csv` and on the tuning part of the other
tables; on `accuracies_600ep.csv` nothing was.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import write_table

from ghnas import list_spaces, load_space
from ghnas.scoring.predictor import Regression
from ghnas.spaces.features import graph_features
from ghnas.training.truth_table import read_truth, subset
from ghnas.utils.statistics import (
    Values,
    estimate_mean,
    estimate_spearman,
    spearman,
)

LABELS = (32, 64, 128)
OWN = 64
"""Labels for which the predictor's own estimate is held against what it reaches."""


class Source(NamedTuple):
    """A table, and which part of it is reported on."""

    name: str
    space: str
    file: str
    part: str
    column: str | None = None


SOURCES = (
    Source("DARTS, 600 epochs", "darts", "darts/accuracies_600ep.csv", "all"),
    Source(
        "NAS-Bench-201, 200 epochs", "nasbench201", "nasbench201/accuracies.csv", "test",
        "cifar10_test_accuracy_200ep",
    ),
    Source("NAS-Bench-101", "nasbench101", "nasbench101/accuracies.csv", "test"),
    Source("NAS-Bench-Macro", "nasbench_macro", "nasbench_macro/accuracies.csv", "test"),
)  # fmt: skip


def draws(rows: Values, truth: Values, labels: int, count: int) -> Iterator[tuple[Values, Values]]:
    """For each draw the places of the labels and of the others."""
    for draw in range(count):
        order = np.random.default_rng(draw).permutation(len(truth))
        yield order[:labels], order[labels:]


def reached(rows: Values, truth: Values, labels: int, count: int) -> Values:
    """Spearman on the others, for each draw."""
    return np.array([
        spearman(Regression(rows[known], truth[known]).predict(rows[others]).mean, truth[others])
        for known, others in draws(rows, truth, labels, count)
    ])  # fmt: skip


def own_estimate(rows: Values, truth: Values, found: Values) -> str:
    """The mean of the cross-validated correlations, and how often their interval holds what is
    reached on the others."""
    own = []
    for known, _ in draws(rows, truth, OWN, len(found)):
        regression = Regression(rows[known], truth[known])
        own.append(estimate_spearman(regression.out_of_fold(), truth[known]))
    held = sum(item.low <= value <= item.high for item, value in zip(own, found, strict=True))
    return f"{np.mean([item.value for item in own]):.3f}; {held} of {len(own)}"


def row(source: Source, folder: Path, count: int) -> Sequence[object]:
    """What is reached with each number of labels."""
    space = load_space(source.space)
    table = subset(read_truth(folder / source.file, source.column), source.part)
    rows = graph_features(space, [space.parse(text) for text in table.architectures])
    cells, estimate = [], "-"
    for labels in LABELS:
        if labels >= 0.8 * len(table.mean):
            cells.append("-")
            continue
        found = reached(rows, table.mean, labels, count)
        mean = estimate_mean(found)
        cells.append(f"{mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f})")
        if labels == OWN:
            estimate = own_estimate(rows, table.mean, found)
    return (source.name, f"{len(table.mean):,}, {source.part}", rows.shape[1], *cells, estimate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", type=Path)
    parser.add_argument("--draws", type=int, default=20)
    options = parser.parse_args()
    sources = [s for s in SOURCES if s.space in list_spaces()]
    sources = [source for source in sources if (options.tables / source.file).exists()]
    write_table(
        "predictor",
        "A few trained architectures order the rest",
        (
            "table", "architectures, part", "features",
            *(f"{labels} labels" for labels in LABELS), f"own estimate, {OWN}",
        ),
        [row(source, options.tables, options.draws) for source in sources],
        [
            "Spearman of the predictor's mean (graph features alone, no score) with the trained "
            f"accuracy of all architectures that are no labels; mean over {options.draws} draws of "
            "the labels, with the percentile bootstrap's 95 % interval over draws. DARTS has "
            "100 cells: labels and the rest are drawn from the same 100, too few for 128.",
            "",
            f"Own estimate: the predictor's cross-validated correlation on its {OWN} labels, mean "
            "over draws; and in how many draws its 95 % interval holds what is reached on the "
            "others.",
            "",
            "Chosen on other data: the features, trees and Gaussian process together, and their "
            "settings, on 199 DARTS cells of another data set (`accuracies_scifar100.csv`) and on "
            "the tuning part (a quarter, by digest) of NAS-Bench-201 and NAS-Bench-101.",
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
