"""Rankings side by side: what is known of architectures, how scores order them, the report."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ghnas.ranking.ensemble import LEAST, out_of_fold
from ghnas.ranking.methods import ENSEMBLE, Scored, base_methods, needs_ghn
from ghnas.scoring.proxies import VOTERS, rank_vote
from ghnas.training.ground_truth import accuracies_by_seed
from ghnas.utils.errors import UserError
from ghnas.utils.statistics import Estimate, Values, ceiling, evaluate, part_of
from ghnas.utils.tables import read_rows

PARTS = ("all", "tune", "test")


@dataclass(frozen=True)
class Truth:
    """Architectures whose trained accuracy is known.

    Args:
        architectures: In the space's notation.
        by_seed: Accuracies in [0, 1] (seeds, architectures).
        column: Where they stand in the file.
    """

    architectures: tuple[str, ...]
    by_seed: Values
    column: str

    @property
    def mean(self) -> Values:
        """Accuracy averaged over seeds, (architectures,)."""
        return np.asarray(self.by_seed.mean(axis=0))


@dataclass(frozen=True)
class Ranking:
    """How one method orders the architectures.

    Args:
        method: Its name.
        scores: (N,), higher is better.
        figures: Of `ghnas.utils.statistics.STATISTICS`.
        seconds: A candidate's mean, on one processor core.
    """

    method: str
    scores: Values
    figures: Mapping[str, Estimate]
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """Rankings of the same architectures, the best first.

    Args:
        truth: What is known.
        rankings: By Spearman, from the highest.
        ceiling: Spearman between seeds; None where there is one seed.
        left_out: Methods that could not be compared, with the reason.
    """

    truth: Truth
    rankings: tuple[Ranking, ...]
    ceiling: Estimate | None
    left_out: Mapping[str, str]


def read_truth(path: Path, column: str | None = None) -> Truth:
    """Architectures and accuracies of a CSV file.

    Args:
        path: A file with a column `architecture`; several rows of one architecture are told
            apart by a column `seed`. Accuracies are shares of 1, or percent if any is above 1.
        column: Of the accuracy; default: `test_accuracy` if it is filled in, else the first
            whose name has `accuracy` in it.

    Raises:
        UserError: If the file cannot be read or lacks such a column, or holds what is no number.
    """
    rows = read_rows(path, ("architecture", *([column] if column else [])))
    if not rows:
        raise UserError(f"{path} has no rows")
    column = column or _accuracy_column(path, rows)
    architectures, by_seed = accuracies_by_seed(rows, column)
    if not architectures:
        raise UserError(f"no architecture in {path} was trained from every seed")
    if np.max(by_seed) > 1:
        by_seed = by_seed / 100
    return Truth(tuple(architectures), by_seed, column)


def _accuracy_column(path: Path, rows: Sequence[Mapping[str, str]]) -> str:
    columns = list(rows[0])
    filled = [c for c in columns if "accuracy" in c and all(row[c] for row in rows)]
    if not filled:
        raise UserError(
            f"{path} has no filled column with accuracy in its name; name one with --column: "
            f"{', '.join(columns)}"
        )
    return "test_accuracy" if "test_accuracy" in filled else filled[0]


def subset(truth: Truth, part: str = "all", count: int | None = None, seed: int = 0) -> Truth:
    """A part of the architectures, and by chance so many of them.

    The order is decided by a digest of the seed and the architecture's text, so that it tells
    nothing of the accuracies, and a larger count gives the same ones first.

    Args:
        truth: All.
        part: `all`, or `tune` or `test` as `ghnas.utils.statistics.part_of` says.
        count: How many; None: all of the part.
        seed: Of the choice.

    Raises:
        UserError: If the part has fewer than three architectures, or fewer than `count`.
    """
    if part not in PARTS:
        raise UserError(f"unknown part {part!r}: use {', '.join(PARTS)}")
    places = [
        i for i, name in enumerate(truth.architectures) if part == "all" or part_of(name) == part
    ]
    if len(places) < max(count or 0, 3):
        raise UserError(
            f"there are {len(places)} architectures to compare, fewer than {max(count or 0, 3)}"
        )

    def draw(place: int) -> bytes:
        return hashlib.blake2b(f"{seed}:{truth.architectures[place]}".encode()).digest()

    chosen = sorted(places, key=draw)[:count]
    names = tuple(truth.architectures[i] for i in chosen)
    return Truth(names, truth.by_seed[:, chosen], truth.column)


def compare(
    truth: Truth,
    methods: Sequence[str],
    scored: Mapping[str, Mapping[str, Scored]],
    ensemble_seed: int = 0,
) -> Comparison:
    """Rankings by every method, with what follows from several of them.

    Args:
        truth: What is known.
        methods: Which to compare.
        scored: For each of `base_methods(methods)`, and for the composite score, a score for each
            architecture.
        ensemble_seed: Of what the ensemble is fitted on.
    """
    scores = {
        method: np.array([of[name].score for name in truth.architectures])
        for method, of in scored.items()
    }
    seconds = {
        method: float(np.mean([of[name].seconds for name in truth.architectures]))
        for method, of in scored.items()
    }
    left_out: dict[str, str] = {}
    for method in methods:
        if method == "vote":
            scores[method] = rank_vote({m: scores[m] for m in VOTERS})
            seconds[method] = sum(seconds[m] for m in VOTERS)
    if ENSEMBLE in methods:
        members = base_methods(methods)
        if len(truth.architectures) < LEAST:
            left_out[ENSEMBLE] = f"needs {LEAST} trained architectures"
        elif len(members) < 2:
            left_out[ENSEMBLE] = "needs two other methods"
        else:
            scores[ENSEMBLE] = out_of_fold(
                [scores[m] for m in members], truth.mean, seed=ensemble_seed
            )
            seconds[ENSEMBLE] = _together(members, seconds)
    rankings = [
        Ranking(m, scores[m], evaluate(scores[m], truth.mean), seconds[m])
        for m in dict.fromkeys(methods)
        if m in scores
    ]
    rankings.sort(key=lambda item: -np.nan_to_num(item.figures["spearman"].value, nan=-2))
    agreement = ceiling(truth.by_seed) if len(truth.by_seed) > 1 else None
    return Comparison(truth, tuple(rankings), agreement, left_out)


def _together(members: Sequence[str], seconds: Mapping[str, float]) -> float:
    """Seconds of several methods; those with predicted weights share the prediction."""
    predicted = [seconds[m] for m in members if needs_ghn(m)]
    return sum(seconds[m] for m in members if not needs_ghn(m)) + max(predicted, default=0.0)


FIGURES = {
    "spearman": "Spearman",
    "kendall": "Kendall",
    "spearman_best_tenth": "Spearman, best tenth",
    "kendall_best_tenth": "Kendall, best tenth",
    "regret_1": "lost, first choice",
    "regret_5": "lost, best of five",
}
"""What tables call the figures."""


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "architectures": len(comparison.truth.architectures),
        "seeds": len(comparison.truth.by_seed),
        "column": comparison.truth.column,
        "ceiling": None if comparison.ceiling is None else asdict(comparison.ceiling),
        "methods": [
            {
                "method": ranking.method,
                "seconds": ranking.seconds,
                **{name: asdict(estimate) for name, estimate in ranking.figures.items()},
            }
            for ranking in comparison.rankings
        ],
        "left_out": dict(comparison.left_out),
    }
