"""Samplers on a table of trained accuracies: how much is lost after so many trainings.

The table is the oracle: a training is a look into it. It stands in the engine, for it runs the
engine's samplers; the table's file is read by `ghnas.training.truth_table`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from ghnas.architectures.architecture import Architecture
from ghnas.engine.samplers import (
    SAMPLERS,
    Evolution,
    Factory,
    GeneticSearch,
    PredictorSearch,
    Sampler,
    check_sampler,
    with_values,
)
from ghnas.engine.trials import Directions
from ghnas.spaces import Space
from ghnas.utils.errors import UserError
from ghnas.utils.processes import Workers
from ghnas.utils.statistics import Estimate, Values, estimate_mean

TRAININGS = (8, 16, 32, 64, 128)
ASKED = 8
"""Architectures that are trained before a sampler learns of them."""
PATIENCE = 20
"""How often a sampler is asked for what is in the table and was not trained."""
STARTERS = 4
"""Architectures that a predictor with scores starts from: those that the scores have highest."""
ONE: Directions = ("maximize",)


@dataclass(frozen=True)
class Table:
    """Architectures whose trained accuracy is known.

    Args:
        space: Theirs.
        architectures: In the space's notation.
        accuracies: (N,).
        scores: By name, (N,) each, higher is better: what is known of them without training.

    Raises:
        UserError: If an architecture is not of the space.
    """

    space: Space
    architectures: Sequence[str]
    accuracies: Values
    scores: Mapping[str, Values] = field(default_factory=dict)

    @cached_property
    def members(self) -> list[Architecture]:
        """The architectures."""
        return [self.space.parse(text) for text in self.architectures]

    @cached_property
    def places(self) -> dict[Architecture, int]:
        """Where each stands."""
        return {item: place for place, item in enumerate(self.members)}

    @cached_property
    def codes(self) -> np.ndarray:
        """(N, choices): the place of each choice's option."""
        return np.array([self.encode(item) for item in self.members])

    def encode(self, architecture: Architecture) -> list[int]:
        """The place of each choice's option, (choices,)."""
        return [item.options.index(architecture.choices[item.name]) for item in self.space.choices]

    def score_rows(self, architectures: Sequence[Architecture]) -> Values:
        """The scores of architectures of the table (architectures, scores)."""
        columns = np.array(list(self.scores.values())).T
        return np.asarray(columns[[self.places[item] for item in architectures]])


@dataclass(frozen=True)
class Curve:
    """What one method loses.

    Args:
        method: Its name.
        regret: (seeds, trainings): the table's best accuracy minus the best found.
        marks: After how many trainings.
    """

    method: str
    regret: Values
    marks: Sequence[int]

    @cached_property
    def estimates(self) -> list[Estimate]:
        """At each mark the mean over seeds with its bootstrap 95 % interval."""
        return [estimate_mean(column) for column in self.regret.T]

    @property
    def found(self) -> list[int]:
        """At each mark in how many seeds the table's best was found."""
        return [int(count) for count in (self.regret <= 0).sum(axis=0)]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "method": self.method,
            "seeds": len(self.regret),
            "trainings": list(self.marks),
            "regret": [vars(item) for item in self.estimates],
            "found_best": self.found,
        }


def bench(
    table: Table,
    samplers: Sequence[str],
    marks: Sequence[int] = TRAININGS,
    seeds: int = 20,
    workers: int = 1,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[Curve]:
    """Search a table with every sampler and from every seed.

    A sampler is asked for `ASKED` architectures at a time; one that the table does not have, or
    that was trained already, is not a training, and it is asked again. The `PATIENCE`-th time the
    nearest that is left in the table is taken: with the fewest other choices, by chance among
    equals. `predictor` has the table as its pool. So that populations are passed within so few
    trainings, `evolution` has one of 16 with tournaments of 4, and `nsga2` one of 16.

    With scores in the table there are more methods: `zero-shot NAME`, the highest by a score, and
    `predictor + scores`, which has them as features and starts from the highest of each.

    Args:
        table: The oracle.
        samplers: Names.
        marks: Trainings after which the loss is taken, ascending.
        seeds: Searches of each sampler.
        workers: Processes.
        report: Called with (done, total) searches.

    Returns:
        For each method its curve.

    Raises:
        UserError: If a sampler is unknown, or the table has fewer architectures than are to be
            trained.
    """
    for name in samplers:
        check_sampler(name)
    if not 0 < max(marks) <= len(table.architectures):
        raise UserError(
            f"the table has {len(table.architectures):,} architectures: {max(marks):,} trainings "
            "are not possible"
        )
    methods = [*samplers, *([_WITH_SCORES] if table.scores and "predictor" in samplers else [])]
    # all methods by turns, so that the rate says when it ends
    tasks = [(name, seed, max(marks)) for seed in range(seeds) for name in methods]
    found: dict[tuple[str, int], Values] = {}
    with Workers(min(workers, len(tasks)), _searcher, table) as pool:
        for done, (name, seed, values) in enumerate(pool.as_completed(tasks), start=1):
            found[name, seed] = values
            report(done, len(tasks))
    curves = [_curve(f"zero-shot {name}", [table.accuracies[np.argsort(-values, kind="stable")]],
                     table, marks) for name, values in table.scores.items()]  # fmt: skip
    return curves + [
        _curve(name, [found[name, seed] for seed in range(seeds)], table, marks) for name in methods
    ]


_WITH_SCORES = "predictor + scores"


def _curve(method: str, found: Sequence[Values], table: Table, marks: Sequence[int]) -> Curve:
    best = np.array([np.maximum.accumulate(values)[[m - 1 for m in marks]] for values in found])
    return Curve(method, np.max(table.accuracies) - best, tuple(marks))


def _searcher(table: Table) -> Callable[..., tuple[str, int, Values]]:
    """What a worker calls for each search; the table is read once."""
    return partial(_search, table)


def _search(table: Table, name: str, seed: int, trainings: int) -> tuple[str, int, Values]:
    """The accuracies of a search in the order of its trainings."""
    return name, seed, search_table(table, _factory(name, table), seed, trainings)


def search_table(table: Table, factory: Factory, seed: int, trainings: int) -> Values:
    """One search; see `bench`.

    Args:
        table: The oracle.
        factory: Makes the sampler.
        seed: Of the search.
        trainings: How many.

    Returns:
        Accuracies in the order in which they were asked for (trainings,).
    """
    sampler, trained = factory(table.space, ONE), list[int]()
    left = np.ones(len(table.architectures), dtype=bool)
    while len(trained) < trainings:
        rng = random.Random(f"{seed}:{len(trained)}")
        batch = _next_batch(sampler, table, left, min(ASKED, trainings - len(trained)), rng)
        sampler.tell([with_values(table.members[i], (table.accuracies[i],)) for i in batch])
        trained += batch
    return np.asarray(table.accuracies[trained])


def _next_batch(
    sampler: Sampler, table: Table, left: np.ndarray, count: int, rng: random.Random
) -> list[int]:
    """Where what is trained next stands; it is no longer `left`."""
    batch: list[int] = []
    for number in range(PATIENCE):
        for proposal in sampler.ask(count - len(batch), rng):
            place = table.places.get(proposal)
            if number == PATIENCE - 1 and (place is None or not left[place]):
                place = _nearest(table, proposal, left, rng)
            if place is not None and left[place]:
                left[place] = False
                batch.append(place)
        if len(batch) == count:
            break
    return batch


def _nearest(table: Table, proposal: Architecture, left: np.ndarray, rng: random.Random) -> int:
    """Where the architecture with the fewest other choices stands that is left."""
    different = (table.codes != table.encode(proposal)).sum(axis=1)
    different[~left] = len(table.space.choices) + 1
    return int(rng.choice(np.flatnonzero(different == different.min())))


class _SmallEvolution(Evolution):
    """A population that is passed within some dozen trainings."""

    population, tournament = 16, 4


class _SmallGenetic(GeneticSearch):
    population = 16


def _factory(name: str, table: Table) -> Factory:
    """The sampler of a method."""
    if name == _WITH_SCORES:
        orders = [np.argsort(-values, kind="stable") for values in table.scores.values()]
        turns = [int(place) for turn in zip(*orders, strict=True) for place in turn]
        starters = [table.members[place] for place in list(dict.fromkeys(turns))[:STARTERS]]
        return partial(
            PredictorSearch, pool=table.members, starters=starters, scores=table.score_rows
        )
    special: dict[str, Factory] = {
        "predictor": partial(PredictorSearch, pool=table.members),
        "evolution": _SmallEvolution,
        "nsga2": _SmallGenetic,
    }
    return special.get(name, SAMPLERS[name])
