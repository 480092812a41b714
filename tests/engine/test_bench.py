"""Samplers on a table: what counts as a training, what is lost, and what scores add."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from ghnas.architectures.architecture import Architecture
from ghnas.engine.bench import Table, bench, search_table
from ghnas.engine.samplers import SAMPLERS, RandomSearch
from ghnas.spaces import load_space
from ghnas.utils.errors import UserError

SPACE = load_space("nasbench201")
MEMBERS = list(dict.fromkeys(SPACE.sample(seed) for seed in range(60)))[:40]
TABLE = Table(
    SPACE, [str(item) for item in MEMBERS], np.random.default_rng(0).permutation(40) * 1.0
)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_training_is_another_architecture_of_the_table(name: str) -> None:
    found = search_table(TABLE, SAMPLERS[name], seed=0, trainings=40)
    assert sorted(found) == sorted(TABLE.accuracies)


@pytest.mark.parametrize("name", SAMPLERS)
def test_regret(name: str) -> None:
    [curve] = bench(TABLE, [name], marks=(1, 10, 40), seeds=3)
    assert curve.regret.shape == (3, 3)
    assert (np.diff(curve.regret, axis=1) <= 0).all()
    assert (curve.regret[:, -1] == 0).all()
    assert curve.found[-1] == 3
    for estimate, column in zip(curve.estimates, curve.regret.T, strict=True):
        assert estimate.value == pytest.approx(column.mean())
        assert estimate.low <= estimate.value <= estimate.high


def test_processes_change_nothing() -> None:
    curves = [bench(TABLE, ["random", "local"], (8, 16), 4, workers) for workers in (1, 2)]
    for one, two in zip(*curves, strict=True):
        assert np.array_equal(one.regret, two.regret)


def test_a_sampler_is_told_what_the_table_has() -> None:
    told: list[Architecture] = []

    class Listening(RandomSearch):
        def tell(self, results: Sequence[Architecture]) -> None:
            told.extend(results)

    found = search_table(TABLE, Listening, seed=1, trainings=20)
    assert [item.values[0] for item in told] == list(found)
    assert all(TABLE.accuracies[MEMBERS.index(item)] == item.values[0] for item in told)


def test_the_nearest_of_the_table_is_taken_where_a_sampler_finds_none() -> None:
    """A sampler that proposes a neighbour of a member of a table of two."""
    first, second = SPACE.sample(0), SPACE.sample(1)
    [neighbour] = [SPACE.mutate(second, random.Random(3))]
    assert neighbour not in (first, second)

    class Stubborn(RandomSearch):
        def ask(self, count: int, rng: random.Random) -> list[Architecture]:
            return [neighbour] * count

    table = Table(SPACE, [str(first), str(second)], np.array([1.0, 2.0]))
    assert list(search_table(table, Stubborn, seed=0, trainings=1)) == [2.0]


def test_scores_are_an_order_of_their_own_and_help_the_predictor() -> None:
    scores = {"good": TABLE.accuracies, "bad": -TABLE.accuracies}
    curves = bench(replace(TABLE, scores=scores), ["predictor"], (1, 8, 40), seeds=3)
    by_name = {curve.method: curve for curve in curves}
    assert list(by_name["zero-shot good"].regret[0]) == [0, 0, 0]
    assert list(by_name["zero-shot bad"].regret[0]) == [39, 32, 0]
    with_scores = by_name["predictor + scores"].regret
    assert (with_scores[:, 0] == 0).all()
    assert (by_name["predictor"].regret[:, 1] > 0).any()


def test_tables_that_cannot_be_searched() -> None:
    with pytest.raises(UserError, match=r"has 40 architectures: 41 trainings are not possible"):
        bench(TABLE, ["random"], (41,))
    with pytest.raises(UserError, match="unknown sampler 'best'"):
        bench(TABLE, ["best"])
