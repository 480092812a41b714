"""Rankings side by side: what is known of architectures, how scores order them, the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ghnas.ranking.ensemble import LEAST, out_of_fold
from ghnas.ranking.methods import ENSEMBLE, Scored, base_methods, needs_ghn
from ghnas.scoring.proxies import VOTERS, rank_vote
from ghnas.training.truth_table import Truth
from ghnas.utils.statistics import Estimate, Values, ceiling, evaluate


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
