"""One order from several: what was observed, what is predicted, and zero-shot scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm, rankdata

from ghnas.utils.statistics import Values

LEAST_RELIABLE = 0.1
"""Of an observation: below that its correlations say nothing of others."""


def combine(columns: Sequence[Values], reliabilities: Sequence[float]) -> Values:
    """The best linear estimate of what several columns measure.

    The regression of the truth on the columns, all as normal scores (their ranks through the
    inverse of the normal distribution): weights are the inverse of the columns' correlations with
    each other times their correlations with the truth (Kelley, "Statistical Method", 1923, for one
    column: the regressed score). What two columns have in common is not counted twice.

    Args:
        columns: (N,) each, in any unit; higher is better.
        reliabilities: The correlation of each with the truth.

    Returns:
        (N,): 0 is the median, in standard deviations of the truth.

    Example:
        >>> import numpy as np
        >>> observed, score = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 4.0, 3.0, 2.0])
        >>> combine([observed, score], [1.0, 0.2]).argsort().tolist()
        [0, 1, 2, 3]
        >>> combine([observed, score], [0.5, 0.6]).argsort().tolist()
        [0, 3, 2, 1]
    """
    scores = np.array([_normal_scores(column) for column in columns])
    between = np.nan_to_num(_correlations(scores))
    np.fill_diagonal(between, 1.0)
    weights = np.linalg.pinv(between, hermitian=True, rtol=1e-6) @ np.asarray(reliabilities)
    return np.asarray(weights @ scores)


def measured_reliabilities(
    observed: Values, opinions: Sequence[Values], reliability: float
) -> list[float]:
    """The correlations of an observation and of other columns with what it measures.

    Noise of the observation lowers its correlation with anything by the same factor (Spearman,
    "The Proof and Measurement of Association between Two Things", 1904).

    Args:
        observed: (N,).
        opinions: Other columns (N,).
        reliability: The correlation of the observation with the truth; for a truth that is the
            mean of many such observations see `ghnas.utils.statistics.ceiling_of_noise`.

    Returns:
        That of the observation, then one for each opinion.
    """
    scores = np.array([_normal_scores(column) for column in (observed, *opinions)])
    known = max(reliability, LEAST_RELIABLE)
    others = np.nan_to_num(_correlations(scores)[0, 1:]) / known
    return [reliability, *np.clip(others, -1, 1).tolist()]


def _normal_scores(values: Values) -> Values:
    return np.asarray(norm.ppf((rankdata(values) - 0.5) / len(values)))


def _correlations(scores: Values) -> Values:
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant column correlates with none
        return np.atleast_2d(np.corrcoef(scores))
