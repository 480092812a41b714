"""One order from several columns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghnas.scoring.combination import combine, measured_reliabilities
from ghnas.utils.statistics import Values, spearman


def columns(seed: int, noises: tuple[float, ...], count: int = 2000) -> tuple[Values, list[Values]]:
    """A truth, and columns that have noise of their own."""
    random = np.random.default_rng(seed)
    truth = random.standard_normal(count)
    return truth, [truth + noise * random.standard_normal(count) for noise in noises]


def reliability(noise: float) -> float:
    return float(1 / np.sqrt(1 + noise**2))


def test_weights_are_those_of_independent_measurements() -> None:
    """By the inverse of the variance of the noise: for 1 and 2, four to one."""
    _, both = columns(0, (1.0, 2.0), count=200_000)
    found = combine(both, [reliability(1.0), reliability(2.0)])
    expected = both[0] + both[1] / 4
    assert np.corrcoef(found, expected)[0, 1] == pytest.approx(1, abs=1e-3)


def test_what_two_columns_share_counts_once() -> None:
    truth, (first, second) = columns(1, (1.0, 1.0), count=50_000)
    rho = reliability(1.0)
    alone = spearman(combine([first, second], [rho, rho]), truth)
    copied = spearman(combine([first, second, second], [rho, rho, rho]), truth)
    assert copied == pytest.approx(alone, abs=1e-3)


@given(st.integers(0, 10_000), st.integers(4, 40))
def test_without_noise_it_is_what_was_observed(seed: int, count: int) -> None:
    """Whatever the others say, also a constant and a copy."""
    random = np.random.default_rng(seed)
    observed, other = random.permutation(count).astype(float), random.standard_normal(count)
    opinions = [other, np.ones(count), observed]
    found = combine([observed, *opinions], measured_reliabilities(observed, opinions, 1.0))
    assert found.argsort().tolist() == observed.argsort().tolist()


def test_with_noise_it_is_better_than_what_was_observed() -> None:
    truth, (observed, opinion) = columns(2, (1.0, 1.0))
    known = measured_reliabilities(observed, [opinion], reliability(1.0))
    assert known == pytest.approx([reliability(1.0)] * 2, abs=0.05)
    both = combine([observed, opinion], known)
    assert spearman(both, truth) > spearman(observed, truth) + 0.05


def test_an_opinion_of_something_else_does_no_harm() -> None:
    truth, (observed,) = columns(3, (1.0,))
    nothing = np.random.default_rng(4).standard_normal(len(truth))
    known = measured_reliabilities(observed, [nothing], reliability(1.0))
    both = combine([observed, nothing], known)
    assert spearman(both, truth) > spearman(observed, truth) - 0.01


def test_only_ranks_count() -> None:
    """So that a training that failed does not outweigh all others."""
    _, (first, second) = columns(5, (1.0, 1.0), count=50)
    stretched = np.exp(first)
    stretched[first.argmin()] = -1000.0
    found = combine([stretched, second], [0.7, 0.7])
    np.testing.assert_allclose(found, combine([first, second], [0.7, 0.7]))
