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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import write_table
from scipy.stats import rankdata
from sklearn.ensemble import ExtraTreesRegressor

from ghnas import list_spaces, load_space
from ghnas.scoring.predictor import Regression
from ghnas.spaces.features import feature_names, graph_features
from ghnas.training.truth_table import read_truth, subset
from ghnas.utils.statistics import (
    Indices,
    Values,
    estimate_mean,
    estimate_spearman,
    spearman,
)

LABELS = (32, 64, 128)
SIMPLE = (" count ", " input", "depth any", "depth weighted", "most in", "parameters")
"""What names of simple features have in them: counts, depths, degrees, size."""
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


Order = Callable[[Values, Values, Values], Values]
"""From rows and labels that are known, and other rows: scores of the others."""


def by_predictor(known: Values, labels: Values, others: Values) -> Values:
    """Trees and a Gaussian process."""
    return Regression(known, labels).predict(others).mean


def by_trees(known: Values, labels: Values, others: Values) -> Values:
    """Scikit-learn's trees as they are."""
    model = ExtraTreesRegressor(200, random_state=0).fit(known, rankdata(labels))
    return np.asarray(model.predict(others))


def draws(size: int, labels: int, count: int) -> Iterator[tuple[Indices, Indices]]:
    """For each draw the places of the labels and of the others."""
    for draw in range(count):
        order = np.random.default_rng(draw).permutation(size)
        yield order[:labels], order[labels:]


def reached(order: Order, rows: Values, truth: Values, labels: int, count: int) -> Values:
    """Spearman on the others, for each draw."""
    return np.array([
        spearman(order(rows[known], truth[known], rows[others]), truth[others])
        for known, others in draws(len(truth), labels, count)
    ])  # fmt: skip


def own_estimate(rows: Values, truth: Values, count: int) -> str:
    """The mean of the cross-validated correlations, and how often their interval holds what is
    reached on the others."""
    found, own = reached(by_predictor, rows, truth, OWN, count), []
    for known, _ in draws(len(truth), OWN, count):
        regression = Regression(rows[known], truth[known])
        own.append(estimate_spearman(regression.out_of_fold(), truth[known]))
    held = sum(item.low <= value <= item.high for item, value in zip(own, found, strict=True))
    return f"{np.mean([item.value for item in own]):.3f}; {held} of {len(own)}"


def rows_of(source: Source, folder: Path, count: int) -> Iterator[Sequence[object]]:
    """What is reached with each number of labels, by each model."""
    space = load_space(source.space)
    table = subset(read_truth(folder / source.file, source.column), source.part)
    rows = graph_features(space, [space.parse(text) for text in table.architectures])
    simple = [any(word in name for word in SIMPLE) for name in feature_names(space)]
    models: dict[str, tuple[Order, Values]] = {
        "predictor": (by_predictor, rows),
        "trees": (by_trees, rows),
        "trees, simple features": (by_trees, rows[:, simple]),
    }
    for name, (order, features) in models.items():
        cells = ["-"] * len(LABELS)
        for place, labels in enumerate(LABELS):
            if labels < 0.8 * len(table.mean):
                mean = estimate_mean(reached(order, features, table.mean, labels, count))
                cells[place] = f"{mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f})"
        own = own_estimate(rows, table.mean, count) if name == "predictor" else "-"
        head = (source.name, f"{len(table.mean):,}, {source.part}", name, features.shape[1])
        yield (*head, *cells, own)


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
            "table", "architectures, part", "model", "features",
            *(f"{labels} labels" for labels in LABELS), f"own estimate, {OWN}",
        ),
        [row for source in sources for row in rows_of(source, options.tables, options.draws)],
        [
            "Spearman of what is predicted (from graph features alone, no score) with the trained "
            f"accuracy of all architectures that are no labels; mean over {options.draws} draws of "
            "the labels, with the percentile bootstrap's 95 % interval over draws. DARTS has "
            "100 cells: labels and the rest are drawn from the same 100, too few for 128. "
            "Trees: 200 of scikit-learn's extremely randomised ones, as they are; simple features: "
            "counts, depths, in-degree, parameters.",
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
