"""Racing: most candidates are discarded on few images (after Maron and Moore, NIPS 1993).

All candidates see the same images in the same order. From those that were scored on everything a
regression learns how accuracy on all images follows from accuracy and loss on the first few. A
candidate stops as soon as its expected accuracy, with a margin, is below the accuracy that it
must reach to be among the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Early = tuple[tuple[float, float], ...]
"""After each batch but the last: accuracy and mean loss on the images until then."""

KEEP = 100
"""The best that racing means to keep."""
WARM_UP = 256
"""Candidates that are scored on everything, to learn from."""
MARGIN = 1.64
"""Standard deviations of the regression's error by which a candidate must fall short.

A candidate that stands just at the bar is lost with a probability of 5 % at each stage if the
errors are normal.
"""
LARGEST_LOSS = 8.0
"""In nats; losses are cut there, lest a few broken candidates rule the regression."""


@dataclass(frozen=True)
class Stage:
    """What to expect of a candidate after some of the images.

    Args:
        intercept: Of the expected accuracy.
        accuracy: Its change with the accuracy so far.
        loss: Its change with the loss so far.
        margin: How much the truth may lie above the expectation.
    """

    intercept: float
    accuracy: float
    loss: float
    margin: float

    def expected(self, accuracy: float, loss: float) -> float:
        """Accuracy on all images, in [0, 1]; 0 for what is not a number."""
        if not (np.isfinite(accuracy) and np.isfinite(loss)):
            return 0.0
        value = self.intercept + self.accuracy * accuracy + self.loss * min(loss, LARGEST_LOSS)
        return float(min(max(value, 0.0), 1.0))


@dataclass(frozen=True)
class Race:
    """When candidates stop.

    Args:
        stages: One for each batch but the last.
        bar: Accuracy on all images that is needed to be among the best.
    """

    stages: tuple[Stage, ...]
    bar: float

    def verdict(self, batches: int, accuracy: float, loss: float) -> float | None:
        """Judge a candidate after some batches.

        Args:
            batches: How many it has seen.
            accuracy: Over all of them.
            loss: Over all of them.

        Returns:
            The expected accuracy if it stops here; None if it goes on.
        """
        if batches > len(self.stages):
            return None
        stage = self.stages[batches - 1]
        expected = stage.expected(accuracy, loss)
        return expected if expected + stage.margin < self.bar else None


def fit_stages(
    early: Sequence[Early], accuracies: Sequence[float], margin: float = MARGIN
) -> tuple[Stage, ...]:
    """Learn what to expect.

    Fitted twice, the second time to the half that the first fit expects more of: the errors of
    poor candidates are larger and say nothing about those near the bar.

    Args:
        early: Of candidates that were scored on everything.
        accuracies: Theirs on all images.
        margin: See `MARGIN`.
    """
    target = np.asarray(accuracies, dtype=np.float64)
    table = np.nan_to_num(np.asarray(early, dtype=np.float64), nan=LARGEST_LOSS)
    stages = []
    for number in range(table.shape[1]):
        seen = np.column_stack([np.ones(len(target)), table[:, number]])
        seen[:, 2] = np.minimum(seen[:, 2], LARGEST_LOSS)
        first, *_ = np.linalg.lstsq(seen, target, rcond=None)
        expected = seen @ first
        better = expected >= np.median(expected)
        weights, *_ = np.linalg.lstsq(seen[better], target[better], rcond=None)
        errors = target[better] - seen[better] @ weights
        intercept, accuracy, loss = map(float, weights)
        stages.append(Stage(intercept, accuracy, loss, float(margin * errors.std())))
    return tuple(stages)


def bar_of(accuracies: Sequence[float], keep: int, share: float = 1.0) -> float:
    """The accuracy that is needed to be among the best of a whole search.

    Of the `keep` best a share is to be expected among the candidates so far; the bar is the
    accuracy of the one at twice that place and ten more, or of the `keep`-th.

    Args:
        accuracies: Of those so far that were scored on everything.
        keep: How many of the best are meant.
        share: Of the search that is done.

    Returns:
        In [0, 1]; 0 where there are not so many.
    """
    place = min(keep, 10 + round(2 * keep * share))
    if len(accuracies) < place:
        return 0.0
    return float(np.partition(np.asarray(accuracies), -place)[-place])
