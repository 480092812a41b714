"""The order of what was trained: by what was observed, or by that and what is predicted?

    python benchmarks/final_order.py <folder of tables>

NAS-Bench-Macro has three trainings of each network. A search looks into the first, chooses 32
networks by the predictor with FLOPs as a score, and orders them; the mean of the other two says
how good the order is. With noise added to the first, trainings are shorter, as it were. The noise
is measured as a search measures it, by a second training of three networks.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import write_table
from scipy.stats import norm, rankdata

import ghnas
from ghnas.architectures.architecture import Architecture
from ghnas.engine.bench import ONE
from ghnas.engine.samplers import PredictorSearch, with_values
from ghnas.scoring.combination import combine, measured_reliabilities
from ghnas.scoring.predictor import Regression
from ghnas.spaces.features import graph_features
from ghnas.utils.statistics import (
    Values,
    ceiling_of_noise,
    estimate_mean,
    part_of,
    repetition_noise,
    spearman,
)
from ghnas.utils.tables import read_rows

TRAININGS, BATCH, STARTERS, REPEATED, FIRST = 32, 8, 4, 3, 5
NOISES = (0.0, 0.5)


class Source(NamedTuple):
    """A table with several trainings of each network."""

    members: list[Architecture]
    features: Values
    flops: Values
    trainings: Values
    """(networks, 3), in per cent."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", type=Path)
    parser.add_argument("--seeds", type=int, default=40)
    options = parser.parse_args()
    source, rows = read(options.tables / "nasbench_macro" / "accuracies.csv"), []
    for noise in NOISES:
        found = [compare(source, noise, seed) for seed in range(options.seeds)]
        for name in found[0]:
            columns = np.array([item[name] for item in found])
            difference = estimate_mean(columns[:, 1] - [item["observed"][1] for item in found])
            rows.append((
                f"{noise:.1f}", name, *(f"{value:.3f}" for value in columns.mean(axis=0)),
                f"{difference.value:.3f} ({difference.low:.3f} to {difference.high:.3f})",
            ))  # fmt: skip
    write_table(
        "final_order",
        f"NAS-Bench-Macro: the order of {TRAININGS} networks that were trained",
        ("noise added, points", "order by", "lost by the first", "mean of the first five",
         "Spearman", "five, against observed"),
        rows,
        [
            f"Mean over {options.seeds} searches in the tuning part ({len(source.flops)} networks)."
            " Lost: points of accuracy below the best of those trained; below zero in the last "
            "column is better. Combined: `ghnas.scoring.combination.combine` of what was observed, "
            "out-of-fold predictions and FLOPs, with the noise of three repetitions; 'noise "
            "known': with that of all networks."
        ],
    )  # fmt: skip


def read(path: Path) -> Source:
    """The tuning part."""
    rows = [row for row in read_rows(path) if part_of(row["architecture"]) == "tune"]
    space = ghnas.load_space("nasbench_macro")
    members = [space.parse(row["architecture"]) for row in rows]
    flops = np.array([float(row["flops"]) for row in rows])
    trainings = np.array([[float(row[f"seed{i}"]) for i in (1, 2, 3)] for row in rows])
    return Source(members, graph_features(space, members), flops, trainings)


def compare(source: Source, noise: float, seed: int) -> Mapping[str, tuple[float, float, float]]:
    """What each order loses after a search."""
    random_ = np.random.default_rng(seed)
    trainings = source.trainings[:, :2] + noise * random_.standard_normal((len(source.flops), 2))
    trained = search(source, trainings[:, 0], seed)
    observed, flops = trainings[trained, 0], source.flops[trained]
    rows = np.column_stack([source.features[trained], flops])
    predicted = Regression(rows, observed, seed=len(trained)).out_of_fold()
    twice = trained[STARTERS:][:REPEATED]  # the first random ones
    orders = {
        "observed": observed,
        "predicted": predicted,
        "mean of both": norm.ppf((rankdata(observed) - 0.5) / len(trained)) + predicted,
        "combined": _combined(observed, predicted, flops, trainings[twice]),
        "combined, noise known": _combined(observed, predicted, flops, trainings),
    }
    truth = source.trainings[trained, 1:].mean(axis=1)
    return {name: judged(values, truth) for name, values in orders.items()}


def search(source: Source, accuracies: Values, seed: int) -> list[int]:
    """The networks that the predictor chooses, in the order of their trainings."""
    places = {item: place for place, item in enumerate(source.members)}
    first = [source.members[i] for i in np.argsort(-source.flops, kind="stable")[:STARTERS]]
    scores = source.flops[:, None]
    sampler = PredictorSearch(
        ghnas.load_space("nasbench_macro"), ONE, pool=source.members, starters=first,
        scores=lambda chosen: scores[[places[item] for item in chosen]],
    )  # fmt: skip
    trained = list[int]()
    while len(trained) < TRAININGS:
        rng = random.Random(f"{seed}:{len(trained)}")
        asked = [places[item] for item in dict.fromkeys(sampler.ask(BATCH, rng))]
        sampler.tell([with_values(source.members[i], (accuracies[i],)) for i in asked])
        trained += asked
    return trained


def _combined(observed: Values, predicted: Values, flops: Values, pairs: Values) -> Values:
    reliability = ceiling_of_noise(observed, repetition_noise(pairs)).value
    known = measured_reliabilities(observed, [predicted, flops], reliability)
    return combine([observed, predicted, flops], known)


def judged(values: Values, truth: Values) -> tuple[float, float, float]:
    """Lost by the first choice, by the mean of the first five, and the rank correlation."""
    order, best = np.argsort(-values, kind="stable"), np.sort(truth)[::-1]
    first = truth[order[:FIRST]].mean()
    return best[0] - truth[order[0]], best[:FIRST].mean() - first, spearman(values, truth)


if __name__ == "__main__":
    main()
