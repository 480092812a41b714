"""What is expected of a run's candidates, once some of them were trained for a while.

Those that were trained are ordered by what was observed: on published trainings of DARTS cells, a
predictor's opinion of them adds nothing to it (`results/budgets.md`). The others follow by what
the predictor expects of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ghnas.engine.trainings import TrainingRecord, first_outcomes, repeated
from ghnas.engine.trials import Trial
from ghnas.scoring.combination import combine, measured_reliabilities
from ghnas.scoring.predictor import Predictor
from ghnas.spaces import Space
from ghnas.utils.files import read_json, write_atomically
from ghnas.utils.statistics import Estimate, Values, ceiling_of_noise, repetition_noise

FILE = "order.json"
"""In a run's folder."""
FEWEST = 16
"""Trained candidates that a predictor is fitted to."""


@dataclass(frozen=True)
class Noise:
    """How much two trainings of a candidate differ, in nats.

    Args:
        deviation: Standard deviation of the outcome between trainings of one candidate, and its
            95 % interval.
        spread: Standard deviation between the candidates that were trained.
        ceiling: The most that any order can correlate with what was observed, and its interval.
        repeated: How many candidates were trained twice.
    """

    deviation: Estimate
    spread: float
    ceiling: Estimate
    repeated: int


@dataclass(frozen=True)
class Order:
    """What a predictor expects of a run's candidates.

    Args:
        expected: By the trial's number: 0 is the median of those that were trained, and 1 better
            than 84 % of them. Of those by regressions that did not see them.
        trained: How many were.
        agreement: Spearman's correlation of what was observed with predictions by regressions that
            did not see it, and its bootstrap 95 % interval over candidates.
        noise: Of a training; None where fewer than two were repeated.
        combined: Of those that were trained, what is to be expected of a further training; see
            `ghnas.scoring.combination`.
    """

    expected: Mapping[int, float]
    trained: int
    agreement: Estimate
    noise: Noise | None = None
    combined: Mapping[int, float] | None = None


def make_order(
    space: Space, trials: Sequence[Trial], records: Sequence[TrainingRecord]
) -> Order | None:
    """What trainings make expect; None if they are fewer than `FEWEST`.

    Args:
        space: Of the candidates.
        trials: All candidates.
        records: Of their trainings. The shortest ones, which the most candidates had, are
            predicted.
    """
    outcomes = first_outcomes(records)
    known = [item for item in trials if item.number in outcomes]
    if len(known) < FEWEST:
        return None
    scores, observed = zero_shot_scores(known), np.array([outcomes[t.number] for t in known])
    predictor = Predictor(space, [item.architecture for item in known], observed.tolist(), scores)
    others = [item for item in trials if item.number not in outcomes]
    means = predictor.unseen.tolist()
    if others:
        architectures = [item.architecture for item in others]
        means += predictor.predict(architectures, zero_shot_scores(others)).mean.tolist()
    numbers = [item.number for item in (*known, *others)]
    noise, combined = training_noise(records), None
    if noise:
        opinions = [predictor.unseen, *scores.T]
        known_by = measured_reliabilities(observed, opinions, noise.ceiling.value)
        found = combine([observed, *opinions], known_by)
        combined = dict(zip(numbers, found.tolist(), strict=False))
    expected = dict(zip(numbers, means, strict=True))
    return Order(expected, len(known), predictor.agreement(), noise, combined)


def training_noise(records: Sequence[TrainingRecord]) -> Noise | None:
    """The noise of the trainings; None where fewer than two were repeated."""
    pairs = repeated(records)
    if len(pairs) < 2:
        return None
    outcomes = first_outcomes(record for record in records if not record.failed)
    # recorded in the order in which processes were done, which is chance
    observed, deviation = np.sort(list(outcomes.values())), repetition_noise(np.array(pairs))
    spread = float(np.std(observed, ddof=1))
    return Noise(deviation, spread, ceiling_of_noise(observed, deviation), len(pairs))


def zero_shot_scores(trials: Sequence[Trial]) -> Values:
    """What a search found of candidates without training (candidates, scores)."""
    return np.array([[*item.values, item.accuracy or 0.0] for item in trials], dtype=float)


def write_order(folder: Path, order: Order) -> None:
    """Keep an order in a run's folder."""
    content = asdict(order)
    for name in ("expected", "combined"):
        values = content[name] or {}
        content[name] = {str(number): round(value, 6) for number, value in values.items()}
    write_atomically(folder / FILE, json.dumps(content))


def read_order(folder: Path) -> Order | None:
    """What `write_order` wrote; None where there is nothing that can be read, for the next
    training makes it anew."""
    try:
        content = read_json(folder / FILE)
        noise = content.get("noise")
        if noise:
            deviation, reached = Estimate(**noise["deviation"]), Estimate(**noise["ceiling"])
            noise = Noise(deviation, float(noise["spread"]), reached, int(noise["repeated"]))
        return Order(
            _by_number(content["expected"]),
            int(content["trained"]),
            Estimate(**content["agreement"]),
            noise or None,
            _by_number(content.get("combined", {})) or None,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None


def _by_number(values: Mapping[str, float]) -> dict[int, float]:
    return {int(number): float(value) for number, value in values.items()}
