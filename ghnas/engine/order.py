"""What is expected of a run's candidates, once some of them were trained for a while.

Those that were trained are ordered by what was observed: on published trainings of DARTS cells, a
predictor's opinion of them adds nothing to it (`results/budgets.md`). The others follow by what
the predictor expects of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ghnas.engine.trials import Trial
from ghnas.scoring.predictor import Predictor
from ghnas.spaces import Space
from ghnas.utils.files import read_json, write_atomically
from ghnas.utils.statistics import Estimate, Values

FILE = "order.json"
"""In a run's folder."""
FEWEST = 16
"""Trained candidates that a predictor is fitted to."""


@dataclass(frozen=True)
class Order:
    """What a predictor expects of a run's candidates.

    Args:
        expected: Of those that were not trained, by the trial's number: 0 is the median of those
            that were, and 1 better than 84 % of them.
        trained: How many were.
        agreement: Spearman's correlation of what was observed with predictions by regressions that
            did not see it, and its bootstrap 95 % interval over candidates.
    """

    expected: Mapping[int, float]
    trained: int
    agreement: Estimate


def make_order(
    space: Space, trials: Sequence[Trial], outcomes: Mapping[int, float]
) -> Order | None:
    """What trainings make expect; None if they are fewer than `FEWEST`.

    Args:
        space: Of the candidates.
        trials: All candidates.
        outcomes: Of those that were trained, by number; higher is better.
    """
    known = [item for item in trials if item.number in outcomes]
    if len(known) < FEWEST:
        return None
    predictor = Predictor(
        space,
        [item.architecture for item in known],
        [outcomes[item.number] for item in known],
        zero_shot_scores(known),
    )
    others = [item for item in trials if item.number not in outcomes]
    means: list[float] = []
    if others:
        architectures = [item.architecture for item in others]
        means = predictor.predict(architectures, zero_shot_scores(others)).mean.tolist()
    expected = dict(zip([item.number for item in others], means, strict=True))
    return Order(expected, len(known), predictor.agreement())


def zero_shot_scores(trials: Sequence[Trial]) -> Values:
    """What a search found of candidates without training (candidates, scores)."""
    return np.array([[*item.values, item.accuracy or 0.0] for item in trials], dtype=float)


def write_order(folder: Path, order: Order) -> None:
    """Keep an order in a run's folder."""
    content = {
        "expected": {str(number): round(value, 6) for number, value in order.expected.items()},
        "trained": order.trained,
        "agreement": vars(order.agreement),
    }
    write_atomically(folder / FILE, json.dumps(content))


def read_order(folder: Path) -> Order | None:
    """What `write_order` wrote; None where there is nothing that can be read, for the next
    training makes it anew."""
    try:
        content = read_json(folder / FILE)
        expected = {int(number): float(value) for number, value in content["expected"].items()}
        return Order(expected, int(content["trained"]), Estimate(**content["agreement"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
