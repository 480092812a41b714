"""A score made of several, fitted on a few trained architectures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold

from ghnas.utils.statistics import Values

FIT, FOLDS, LEAST = 48, 10, 20
"""Architectures to fit on, folds, and the fewest architectures that make sense."""


def out_of_fold(scores: Sequence[Values], truth: Values, seed: int = 0, fit: int = FIT) -> Values:
    """Ridge regression (Hoerl and Kennard, 1970) of accuracy ranks on the ranks of scores.

    The architectures are cut in ten parts by chance. Those of a part are predicted by a model
    fitted on `fit` others, drawn from the other parts; its penalty is chosen by leave-one-out
    among them. No architecture is predicted by a model that saw its accuracy.

    Args:
        scores: (N,) each; minus infinity is the lowest.
        truth: Accuracies (N,).
        seed: Of the parts and of what is fitted on.
        fit: Most architectures to fit a model on.

    Returns:
        A prediction for each architecture (N,), higher is better.

    Raises:
        ValueError: If there are fewer than `LEAST` architectures.
    """
    if len(truth) < LEAST:
        raise ValueError(f"{len(truth)} architectures are too few to fit on")
    features = np.stack([_centred_ranks(values) for values in scores], axis=1)
    rng = np.random.default_rng(seed)
    result = np.empty(len(truth))
    for others, part in KFold(FOLDS, shuffle=True, random_state=seed).split(features):
        chosen = rng.permutation(others)[:fit]
        model = RidgeCV(alphas=np.logspace(-2, 3, 11))
        model.fit(features[chosen], _centred_ranks(truth[chosen]))
        result[part] = model.predict(features[part])
    return result


def _centred_ranks(values: Values) -> Values:
    """Ranks from -1 for the lowest to 1 for the highest."""
    return np.asarray(2 * (rankdata(values) - 0.5) / len(values) - 1)
