"""How well a score orders architectures: correlations, regret, and how sure they are."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2, kendalltau, rankdata, spearmanr

Values = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Statistic = Callable[[Values, Values], float]

RESAMPLES, REMEASURED = 1000, 100
BEST_SHARE = 0.1


@dataclass(frozen=True)
class Estimate:
    """A figure with its bootstrap 95 % interval; not a number where it is not defined."""

    value: float
    low: float
    high: float


def spearman(scores: Values, truth: Values) -> float:
    """Spearman's rank correlation; nan where one side is constant or fewer than three are given."""
    if not _varied(scores, truth):
        return float("nan")
    return float(spearmanr(scores, truth).statistic)


def kendall(scores: Values, truth: Values) -> float:
    """Kendall's tau-b; nan as for `spearman`."""
    if not _varied(scores, truth):
        return float("nan")
    # ranks, for a score may be minus infinity; the exact p-value, which takes long, is not read
    return float(kendalltau(rankdata(scores), rankdata(truth), method="asymptotic").statistic)


def _varied(scores: Values, truth: Values) -> bool:
    return len(scores) > 2 and bool((scores != scores[0]).any() and (truth != truth[0]).any())


def within_best(statistic: Statistic, share: float = BEST_SHARE) -> Statistic:
    """The statistic among the share of architectures that are truly the best."""

    def among(scores: Values, truth: Values) -> float:
        best = np.argsort(-truth, kind="stable")[: max(round(share * len(truth)), 1)]
        return statistic(scores[best], truth[best])

    return among


def regret(first: int) -> Statistic:
    """Accuracy that is lost by taking the best of a score's `first` choices, of all."""

    def lost(scores: Values, truth: Values) -> float:
        chosen = np.argsort(-scores, kind="stable")[:first]
        return float(np.max(truth) - np.max(truth[chosen]))

    return lost


STATISTICS: dict[str, Statistic] = {
    "spearman": spearman,
    "kendall": kendall,
    "spearman_best_tenth": within_best(spearman),
    "kendall_best_tenth": within_best(kendall),
    "regret_1": regret(1),
    "regret_5": regret(5),
}
"""The statistics of every score. Equal scores are in the order in which they are given."""


def evaluate(
    scores: Values, truth: Values, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Estimate]:
    """Every statistic with its interval.

    The interval is the percentile bootstrap's (Efron, 1979) over architectures, drawn with
    replacement; samples for which a statistic is not defined are left out.

    Args:
        scores: Higher is better (N,); minus infinity is the lowest.
        truth: Accuracies (N,).
        seed: Of the samples.
        resamples: How many.
    """

    def of(statistic: Statistic) -> Callable[[Indices], float]:
        return lambda pick: statistic(scores[pick], truth[pick])

    return {
        name: _estimate(of(statistic), len(truth), seed, resamples)
        for name, statistic in STATISTICS.items()
    }


def estimate_spearman(scores: Values, truth: Values, seed: int = 0) -> Estimate:
    """Spearman's correlation with its interval; see `evaluate`."""
    return _estimate(lambda pick: spearman(scores[pick], truth[pick]), len(truth), seed, RESAMPLES)


def estimate_mean(values: Values, seed: int = 0) -> Estimate:
    """A mean with its interval; see `evaluate`."""
    return _estimate(lambda pick: float(values[pick].mean()), len(values), seed, RESAMPLES)


def _estimate(
    statistic: Callable[[Indices], float], count: int, seed: int, resamples: int
) -> Estimate:
    """A statistic of chosen architectures with its interval over samples of them."""
    value = statistic(np.arange(count))
    picks = np.random.default_rng(seed).integers(0, count, (resamples, count))
    # not `scipy.stats.bootstrap`: it has no interval where one sample is not defined
    samples = np.array([statistic(pick) for pick in picks])
    finite = samples[np.isfinite(samples)]
    if not len(finite) or not np.isfinite(value):
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.quantile(finite, (0.025, 0.975))
    return Estimate(value, float(low), float(high))


def ceiling(by_seed: Values, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """How well trainings from different seeds agree: the mean Spearman of all pairs of seeds.

    Args:
        by_seed: Accuracies (seeds, architectures).
        seed: Of the bootstrap samples of architectures.
        resamples: How many.
    """
    count, architectures = by_seed.shape

    def agreement(pick: Indices) -> float:
        values = by_seed[:, pick]
        pairs = [spearman(values[i], values[j]) for i in range(count) for j in range(i)]
        return float(np.mean(pairs)) if pairs else float("nan")

    return _estimate(agreement, architectures, seed, resamples)


def ceiling_of_mean(agreement: float, seeds: int) -> float:
    """The most that a score can correlate with the mean of several seeds.

    The reliability of a mean is n r / (1 + (n - 1) r) (Spearman, 1910; Brown, 1910), and a
    correlation is at most its square root (Spearman, 1904).

    Args:
        agreement: Correlation of two seeds.
        seeds: How many trainings are averaged.
    """
    if not agreement > 0:
        return float("nan")
    return float(np.sqrt(seeds * agreement / (1 + (seeds - 1) * agreement)))


def seed_noise(by_seed: Values) -> float:
    """Standard deviation between trainings of one architecture; see `ceiling` for the shape."""
    if len(by_seed) < 2:
        return float("nan")
    return float(np.sqrt(by_seed.var(axis=0, ddof=1).mean()))


def repetition_noise(pairs: Values) -> Estimate:
    """Standard deviation of a measurement, from some that were made twice.

    What all second ones have in common, such as another order of images, counts as none. The
    interval is that of a normal variable's deviation, by the chi-square distribution.

    Args:
        pairs: (N, 2); two or more.
    """
    if len(pairs) < 2:
        return Estimate(float("nan"), float("nan"), float("nan"))
    freedom = len(pairs) - 1
    variance = float(np.var(pairs[:, 0] - pairs[:, 1], ddof=1)) / 2
    low, high = (freedom * variance / chi2.ppf(share, freedom) for share in (0.975, 0.025))
    return Estimate(*(float(np.sqrt(value)) for value in (variance, low, high)))


def ceiling_of_noise(measured: Values, noise: Estimate, seed: int = 0) -> Estimate:
    """The most that an order can correlate with that of noisy measurements.

    The square root of their reliability (Spearman, 1904). How much noise lowers a rank correlation
    is simulated, by adding it to the measurements once more: it mixes first what is close.

    Args:
        measured: One measurement of each thing (N,).
        noise: Standard deviation of a measurement of one thing.
        seed: Of the simulation.
    """
    further = np.random.default_rng(seed).standard_normal((REMEASURED, len(measured)))

    def reachable(deviation: float) -> float:
        if not np.isfinite(deviation):
            return float("nan")
        found = np.mean([spearman(measured, measured + deviation * item) for item in further])
        # for normal variables the correlation is 1 / sqrt(1 + q), q the share of noise in them
        share = 1 / max(float(found), 1e-6) ** 2 - 1
        return math.sqrt(max(1 - share, 0.0))

    return Estimate(*(reachable(value) for value in (noise.value, noise.high, noise.low)))


def part_of(architecture: str) -> str:
    """`tune` for a quarter of all architectures, `test` for the others.

    Decided by the text alone: for `tune` the first byte of its SHA-256 digest is a multiple of
    four.
    """
    digest = hashlib.sha256(architecture.strip().encode()).digest()
    return "tune" if digest[0] % 4 == 0 else "test"
