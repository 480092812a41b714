"""Strategies: which candidates to score next.

A strategy is an object with `propose` and `tell`, and a name under `register`. What it proposes
must depend on the random generator and on what it was told alone, so that a run can be repeated
and resumed.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ghnas.architectures.architecture import Architecture
from ghnas.spaces import Space
from ghnas.utils.errors import UserError

Directions = tuple[Literal["maximize", "minimize"], ...]
"""`maximize` or `minimize` for each objective."""


@dataclass(frozen=True)
class Evaluated:
    """A candidate with its objectives' values, in the order of the directions."""

    candidate: Architecture
    values: tuple[float, ...]


class Strategy(Protocol):
    """Proposes candidates and learns from their results."""

    @property
    def learns(self) -> bool:
        """Whether proposals depend on results; if not, they are made while others are scored."""

    def propose(self, count: int, rng: random.Random) -> list[Architecture]:
        """So many candidates that connect image and output.

        Called again in the same batch for those that break a constraint or are not new.
        """

    def tell(self, results: Sequence[Evaluated]) -> None:
        """The results of one whole batch, in the order of proposal."""


Factory = Callable[[Space, Directions], Strategy]
STRATEGIES: dict[str, Factory] = {}


def register(name: str) -> Callable[[Factory], Factory]:
    """Make a strategy known by a name.

    Example:
        >>> @register("first")
        ... def first(space, directions): ...
    """

    def add(factory: Factory) -> Factory:
        STRATEGIES[name] = factory
        return factory

    return add


def check_strategy(name: str) -> None:
    """Check that there is such a strategy.

    Raises:
        UserError: Naming those that there are.
    """
    if name not in STRATEGIES:
        raise UserError(f"unknown strategy {name!r}; known are {', '.join(STRATEGIES)}")


def create_strategy(name: str, space: Space, directions: Directions) -> Strategy:
    """A strategy by name, before its first batch.

    Raises:
        UserError: If there is no such strategy.
    """
    check_strategy(name)
    return STRATEGIES[name](space, directions)


@register("random")
class RandomSearch:
    """Uniform over each choice."""

    learns = False

    def __init__(self, space: Space, directions: Directions) -> None:
        self.space = space

    def propose(self, count: int, rng: random.Random) -> list[Architecture]:
        return [self.space.sample(rng) for _ in range(count)]

    def tell(self, results: Sequence[Evaluated]) -> None:
        pass


@register("evolution")
class Evolution:
    """Regularised evolution (Real et al., AAAI 2019).

    The population is the latest `population` candidates; a child is the best of `tournament`
    random ones with one choice changed. The oldest die, not the worst.
    """

    learns = True
    population = 64
    tournament = 16

    def __init__(self, space: Space, directions: Directions) -> None:
        self.space = space
        self.directions = directions
        self._alive: deque[Evaluated] = deque(maxlen=self.population)

    def propose(self, count: int, rng: random.Random) -> list[Architecture]:
        newborn = min(max(self.population - len(self._alive), 0), count)
        return [self.space.sample(rng) for _ in range(newborn)] + [
            self.space.mutate(self._parent(rng).candidate, rng) for _ in range(count - newborn)
        ]

    def tell(self, results: Sequence[Evaluated]) -> None:
        self._alive.extend(results)

    def _parent(self, rng: random.Random) -> Evaluated:
        if not self._alive:  # the first batch is larger than the population
            return Evaluated(self.space.sample(rng), ())
        contest = rng.sample(list(self._alive), min(self.tournament, len(self._alive)))
        gains = [gain(item.values, self.directions) for item in contest]
        best = min(range(len(contest)), key=lambda i: (worse_than(i, gains), *negated(gains[i])))
        return contest[best]


@register("tpe")
def tpe(space: Space, directions: Directions) -> Strategy:
    """Optuna's tree-structured Parzen estimator."""
    from ghnas.engine.optuna_samplers import ParzenSearch

    return ParzenSearch(space, directions)


@register("nsga2")
def nsga2(space: Space, directions: Directions) -> Strategy:
    """Optuna's NSGA-II."""
    from ghnas.engine.optuna_samplers import GeneticSearch

    return GeneticSearch(space, directions)


def gain(values: Sequence[float], directions: Directions) -> tuple[float, ...]:
    """Values with the sign turned where less is better: more is better in each."""
    return tuple(
        value if direction == "maximize" else -value
        for value, direction in zip(values, directions, strict=True)
    )


def negated(values: Sequence[float]) -> tuple[float, ...]:
    """For sorting with the best first."""
    return tuple(-value for value in values)


def worse_than(index: int, gains: Sequence[Sequence[float]]) -> int:
    """How many of the others are as good in every objective and better in one."""
    own = gains[index]
    return sum(
        all(a >= b for a, b in zip(other, own, strict=True)) and tuple(other) != tuple(own)
        for other in gains
    )
