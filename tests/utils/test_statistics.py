"""The noise of a measurement, and what it allows."""

from __future__ import annotations

import numpy as np
import pytest

from ghnas.utils.statistics import Estimate, ceiling_of_noise, repetition_noise, spearman


def test_noise_of_repetitions() -> None:
    """By hand: differences of 1, 2 and 3 have a variance of 1, and each is of two measurements."""
    pairs = np.array([[5.0, 4.0], [9.0, 7.0], [6.0, 3.0]])
    assert repetition_noise(pairs).value == pytest.approx(np.sqrt(1 / 2))
    shifted = pairs + np.array([[0.0, 10.0]])  # what all second ones have in common
    assert repetition_noise(shifted).value == pytest.approx(np.sqrt(1 / 2))
    assert np.isnan(repetition_noise(pairs[:1]).value)


def test_its_interval_holds_the_truth_as_often_as_it_says() -> None:
    random, held = np.random.default_rng(0), 0
    for _ in range(400):
        found = repetition_noise(random.normal(0, 2.0, (3, 2)))
        held += found.low <= 2.0 <= found.high
    assert 0.92 < held / 400 < 0.98


@pytest.mark.parametrize("deviation", [0.2, 0.5, 1.0])
def test_no_order_agrees_with_noisy_measurements_more(deviation: float) -> None:
    """The order of the truth itself reaches it."""
    random = np.random.default_rng(0)
    truth = random.standard_normal(3000)
    measured = truth + deviation * random.standard_normal(3000)
    noise = Estimate(deviation, deviation / 2, 2 * deviation)
    found = ceiling_of_noise(measured, noise)
    assert spearman(truth, measured) == pytest.approx(found.value, abs=0.03)
    assert found.low < found.value < found.high < 1


def test_without_noise_everything_can_be_reached() -> None:
    found = ceiling_of_noise(np.arange(9.0), Estimate(0.0, 0.0, 0.0))
    assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1))
