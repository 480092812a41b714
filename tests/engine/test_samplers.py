"""Samplers: what they ask for, and that it depends on what they were told alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest

from ghnas.architectures.architecture import Architecture
from ghnas.engine.constraints import Limits, descend, require_feasible
from ghnas.engine.samplers import (
    SAMPLERS,
    Evolution,
    GeneticSearch,
    LocalSearch,
    ParzenSearch,
    PredictorSearch,
    RandomSearch,
    Sampler,
    create_sampler,
    gain,
    register,
    with_values,
    worse_than,
)
from ghnas.engine.search import search
from ghnas.engine.trials import Directions
from ghnas.spaces import Space, load_space, parse_space
from ghnas.utils.errors import UserError

NAMES = ("random", "evolution", "local", "tpe", "nsga2", "predictor")
ONE: Directions = ("maximize",)
TWO: Directions = ("maximize", "minimize")


@pytest.fixture(scope="module")
def space() -> Space:
    return load_space("darts").with_skeleton(cells=1, channels=2).for_images((3, 8, 8), 2)


def likes_separable(candidate: Architecture) -> float:
    return sum(str(value).startswith("sep_conv") for value in candidate.choices.values()) / 16


def evaluate(candidate: Architecture, directions: Directions) -> Architecture:
    skips = float(sum(value == "skip_connect" for value in candidate.choices.values()))
    return with_values(candidate, (likes_separable(candidate), skips)[: len(directions)])


def advance(
    sampler: Sampler, batches: range, directions: Directions, size: int = 8
) -> list[list[Architecture]]:
    history = []
    for number in batches:
        asked_for = sampler.ask(size, random.Random(f"7:{number}"))
        history.append([evaluate(item, directions) for item in asked_for])
        sampler.tell(history[-1])
    return history


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Populations that are passed within a few batches."""
    monkeypatch.setattr(Evolution, "population", 12)
    monkeypatch.setattr(ParzenSearch, "best", 6)
    monkeypatch.setattr(ParzenSearch, "latest", 9)
    monkeypatch.setattr(GeneticSearch, "population", 10)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("directions", [ONE, TWO])
@pytest.mark.parametrize("name", NAMES)
def test_a_sampler_that_was_told_the_same_asks_the_same(
    space: Space, name: str, directions: Directions
) -> None:
    whole = advance(create_sampler(name, space, directions), range(8), directions)
    for stopped in (1, 4, 7):
        resumed = create_sampler(name, space, directions)
        for batch in whole[:stopped]:
            resumed.tell(batch)
        assert advance(resumed, range(stopped, 8), directions) == whole[stopped:]


@pytest.mark.parametrize("name", NAMES)
def test_asked_for_belong_to_the_space(space: Space, name: str) -> None:
    for batch in advance(create_sampler(name, space, ONE), range(4), ONE):
        for item in batch:
            assert space.architecture(item.choices) == item
            assert space.is_connected(dict(item.choices))


@pytest.mark.parametrize("name", ["evolution", "local", "tpe", "nsga2", "predictor"])
def test_learns(space: Space, name: str) -> None:
    def late_mean(sampler: str) -> float:
        history = advance(create_sampler(sampler, space, ONE), range(12), ONE, size=32)
        late = [item.values[0] for batch in history[-3:] for item in batch]
        return sum(late) / len(late)

    assert late_mean(name) > late_mean("random") + 0.1


def test_local_search_asks_for_neighbours_of_the_best(space: Space) -> None:
    local = LocalSearch(space, ONE)
    told = [with_values(space.sample(seed), (float(seed % 5),)) for seed in range(10)]
    local.tell(told)
    asked = local.ask(20, random.Random(0)) + local.ask(20, random.Random(0))
    assert len(set(asked)) == 40
    assert all(_differences(item, told[4]) == 1 for item in asked)


def test_local_search_starts_anew_where_no_neighbour_is_better(space: Space) -> None:
    local, best = LocalSearch(space, ONE), space.sample(0)
    local.tell([with_values(best, (1.0,))])
    local.tell([with_values(item, (0.0,)) for item in space.neighbours(best)])
    assert all(_differences(item, best) > 1 for item in local.ask(5, random.Random(1)))


def test_neighbours_are_all_that_differ_in_one_choice() -> None:
    space = load_space("nasbench201")
    architecture = space.architecture({item.name: "skip_connect" for item in space.choices})
    around = space.neighbours(architecture)
    assert len(set(around)) == len(around) == 6 * 4
    assert all(_differences(item, architecture) == 1 for item in around)


def test_predictor_asks_for_starters_first_then_at_random_then_for_the_best() -> None:
    dense = load_space("nasbench201")
    pool = list(dict.fromkeys(dense.sample(seed) for seed in range(150)))

    def convolutions(item: Architecture) -> float:
        return float(list(item.choices.values()).count("nor_conv_3x3"))

    sampler = PredictorSearch(dense, ONE, pool=pool, starters=pool[5:11])
    first = sampler.ask(4, random.Random(0))
    assert first == pool[5:9]
    assert sampler.ask(2, random.Random(0)) == pool[9:11]  # what was asked for is not asked again
    sampler.tell([with_values(item, (convolutions(item),)) for item in pool[5:11]])
    told = set(pool[5:11])
    for number in range(5):
        asked = sampler.ask(8, random.Random(number))
        assert len(set(asked)) == 8
        assert set(asked) <= set(pool) - told
        told |= set(asked)
        sampler.tell([with_values(item, (convolutions(item),)) for item in asked])
    assert max(map(convolutions, told)) == max(map(convolutions, pool))


def test_predictor_reads_given_scores() -> None:
    """Accuracy is a score that no graph feature says."""
    dense = load_space("nasbench201")
    pool = list(dict.fromkeys(dense.sample(seed) for seed in range(300)))
    score = {item: random.Random(i).random() for i, item in enumerate(pool)}

    def late_mean(sampler: PredictorSearch) -> float:
        history = []
        for number in range(6):
            asked = sampler.ask(8, random.Random(number))
            history += [with_values(item, (score[item],)) for item in asked]
            sampler.tell(history[-8:])
        return sum(item.values[0] for item in history[-24:]) / 24

    def scores(items: Sequence[Architecture]) -> np.ndarray:
        return np.array([[score[item]] for item in items])

    told = late_mean(PredictorSearch(dense, ONE, pool=pool, scores=scores))
    assert told > late_mean(PredictorSearch(dense, ONE, pool=pool)) + 0.2


def test_a_search_takes_a_sampler_with_settings(space: Space) -> None:
    first = [space.sample(seed) for seed in range(3)]
    factory = partial(PredictorSearch, starters=first)
    study = search(space, likes_separable, budget=5, sampler=factory)
    assert [space.architecture(trial.params) for trial in study.trials[:3]] == first


def test_evolution_forgets_the_oldest(space: Space) -> None:
    evolution = Evolution(space, ONE)
    best = space.sample(random.Random(0))
    evolution.tell([with_values(best, (1.0,))])
    later = [space.sample(random.Random(i)) for i in range(1, 129)]
    for batch in (later[:64], later[64:]):
        evolution.tell([with_values(item, (0.0,)) for item in batch])
    for child in evolution.ask(20, random.Random(1)):
        assert any(_differences(child, parent) == 1 for parent in later)


def _differences(first: Architecture, second: Architecture) -> int:
    return sum(first.choices[key] != second.choices[key] for key in first.choices)


def test_evolution_takes_the_best_of_the_tournament(space: Space) -> None:
    evolution = Evolution(space, ONE)
    told = [space.sample(random.Random(i)) for i in range(128)]
    evolution.tell([with_values(item, (float(i),)) for i, item in enumerate(told)])
    good = [
        any(_differences(child, parent) == 1 for parent in told[64:])
        for child in evolution.ask(100, random.Random(1))
    ]
    assert sum(good) >= 99


def test_evolution_keeps_the_better_half_of_a_large_batch(space: Space) -> None:
    """All of a batch can be parents of the next, whichever half of it is the better one."""
    for batch_size in (Evolution.batch_size, 128, 300):
        evolution = Evolution(space, ONE)
        told = [space.sample(random.Random(i)) for i in range(batch_size)]
        evolution.tell([with_values(item, (float(-i),)) for i, item in enumerate(told)])
        more = max(evolution.population - batch_size, 0)
        children = evolution.ask(more + 50, random.Random(1))[more:]
        assert all(
            any(_differences(child, parent) <= 1 for parent in told[: batch_size // 2])
            for child in children
        )


@pytest.mark.parametrize("name", NAMES)
def test_a_sampler_in_its_own_batches_learns_or_not(space: Space, name: str) -> None:
    """The batch size that a search takes by default."""
    sampler = create_sampler(name, space, ONE)
    history = advance(sampler, range(6), ONE, size=sampler.batch_size)
    first, *_, last = [sum(item.values[0] for item in batch) / len(batch) for batch in history]
    assert (last > first + 0.1) == sampler.learns


def test_evolution_in_a_batch_larger_than_its_population(space: Space) -> None:
    assert len(Evolution(space, ONE).ask(100, random.Random(0))) == 100


ONE_ARCHITECTURE = """
name: one
family: stages
skeleton: {stem: {block: conv_bn_act, width: 4}}
stages: [{block: residual, depth: 1, width: 4}]
"""
ONE_CONNECTED = """
name: one
family: dense_cells
skeleton: {channels: 4, cells: 1, stages: 1}
cell: {nodes: 2, operations: {none: {block: zeros}, conv: {block: relu_conv_bn}}}
"""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", [ONE_ARCHITECTURE, ONE_CONNECTED], ids=["one", "connected"])
def test_a_search_of_a_space_with_one_architecture_ends(text: str, name: str) -> None:
    space = parse_space(text, "one.yaml")
    study = search(space, lambda architecture: 1.0, budget=70, sampler=name, batch_size=16)
    assert len(study.trials) == 70
    assert study.best(5) == [space.sample(0)]


def test_dominance() -> None:
    gains = [gain(values, TWO) for values in ((0.9, 10), (0.8, 5), (0.8, 10), (0.9, 10))]
    assert [worse_than(i, gains) for i in range(4)] == [0, 0, 3, 0]


def test_unknown_sampler(space: Space) -> None:
    with pytest.raises(UserError, match="unknown sampler 'tpf'; known are random, evolution"):
        create_sampler("tpf", space, ONE)


def test_a_new_sampler_is_one_function(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SAMPLERS, "same", RandomSearch)  # and out again at the end

    @register("same")
    class Same:
        learns, repeatable, batch_size = False, True, 8

        def __init__(self, space: Space, directions: Directions) -> None:
            self.space = space

        def ask(self, count: int, rng: random.Random) -> list[Architecture]:
            return [self.space.sample(random.Random(0))] * count

        def tell(self, results: object) -> None:
            pass

    assert len(create_sampler("same", space, ONE).ask(3, random.Random(0))) == 3


# ---------------------------------------------------------------- constraints


def test_descend_keeps_what_is_within_the_limits(space: Space) -> None:
    candidate = space.sample(0)
    limits = Limits(candidate.parameters, candidate.flops)
    assert descend(space, limits, candidate, random.Random(0)) == candidate


def test_limits_that_can_be_met(space: Space) -> None:
    least = min(space.sample(i).parameters for i in range(50))
    limits = Limits(params=least)
    found = require_feasible(space, limits, random.Random(0))
    assert limits.met(found)
    assert found.parameters <= least


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        (Limits(params=3), r"has at most 3 parameters: the smallest found has \d+ parameters; "),
        (Limits(flops=3), r"at most 3 FLOPs: the smallest found has [\d,]+ FLOPs; raise --max-fl"),
        (Limits(10**9, 3), r"at most 3 FLOPs"),
    ],
)
def test_limits_that_cannot_be_met(space: Space, limits: Limits, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        require_feasible(space, limits, random.Random(0))
