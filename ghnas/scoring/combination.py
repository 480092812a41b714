"""One estimate of how good architectures are, from a noisy training and from what others expect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ghnas.utils.statistics import Values

FARTHEST = 5.0
"""Robust standard deviations from the median beyond which nothing counts, such as a training
that failed."""


def combine(observed: Values, opinions: Sequence[Values], noise: float) -> Values:
    """What is to be expected of a further training of each architecture.

    The mean of the posterior where an outcome is what is true of its architecture plus noise, and
    what is true is a linear function of the opinions plus a deviation of its own, both normal
    (empirical Bayes; Efron and Morris, "Data analysis using Stein's estimator and its
    generalizations", JASA 1975): outcome and opinions, each by the inverse of its variance. The
    opinion on an architecture does not know its outcome: the function is fitted to the others.

    Args:
        observed: The outcome of one training of each (N,); higher is better.
        opinions: Other columns (N,) that order them, such as out-of-fold predictions and
            zero-shot scores; in any unit.
        noise: Standard deviation between trainings of one architecture, in the unit of `observed`;
            larger where the outcome is a poor measure of what is wanted.

    Returns:
        (N,), in the unit of `observed`. Without noise, opinions that vary, or with fewer outcomes
        than a fit takes, those that were observed.
    """
    outcomes = _within_reach(np.asarray(observed, dtype=float))
    varied = [_within_reach(np.asarray(o, dtype=float)) for o in opinions if np.ptp(o) > 0]
    if not varied or noise <= 0 or len(outcomes) < len(varied) + 4:
        return outcomes
    columns = np.column_stack([np.ones(len(outcomes)), *map(_standardised, varied)])
    hat = columns @ np.linalg.pinv(columns)
    leverage = np.minimum(np.diag(hat), 0.9)
    residuals = (outcomes - hat @ outcomes) / (1 - leverage)
    own = max(float(np.mean(residuals**2)) - noise**2, 0.0)
    return np.asarray(outcomes - residuals * noise**2 / (own + noise**2))


def _within_reach(values: Values) -> Values:
    """Values with the outliers moved to the farthest that counts."""
    middle = np.median(values)
    deviation = 1.4826 * np.median(np.abs(values - middle))
    if deviation == 0:
        return values
    return np.clip(values, middle - FARTHEST * deviation, middle + FARTHEST * deviation)


def _standardised(values: Values) -> Values:
    return np.asarray((values - values.mean()) / values.std())
