"""What a sampler is, and the table of samplers.

A sampler is an object with `ask` and `tell`, and a name under `register`. What it asks for must
depend on the random generator and on what it was told alone, so that a search can be repeated
and resumed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from ghnas.architectures.architecture import Architecture
from ghnas.engine.trials import Directions
from ghnas.spaces import Space
from ghnas.utils.errors import UserError

BATCH = 128
"""Candidates that are asked for together, unless a sampler or an objective wants fewer."""


class Sampler(Protocol):
    """Asks for candidates and learns from their values."""

    learns: bool
    """Whether it depends on values; if not, candidates are asked for while others are scored."""
    repeatable: bool
    """Whether equal generators and values give equal candidates, so that an interrupted search
    goes on exactly as if it had not been."""
    batch_size: int
    """Candidates that are best asked for together."""

    def ask(self, count: int, rng: random.Random) -> list[Architecture]:
        """Propose `count` candidates that connect image and output.

        Called again in the same batch for those that break a limit or are not new.
        """

    def tell(self, results: Sequence[Architecture]) -> None:
        """Learn from a whole batch: its architectures with their values, in the order of asking."""


Factory = Callable[[Space, Directions], Sampler]
SAMPLERS: dict[str, Factory] = {}


def register(name: str) -> Callable[[Factory], Factory]:
    """Make a sampler known by a name.

    Example:
        >>> from ghnas.engine.samplers import RandomSearch
        >>> @register("small")
        ... class Small(RandomSearch):
        ...     def ask(self, count, rng):  # the smallest of ten random architectures
        ...         tens = [[self.space.sample(rng) for _ in range(10)] for _ in range(count)]
        ...         return [min(ten, key=lambda item: item.parameters) for ten in tens]
        >>> from ghnas import load_space, search
        >>> len(search(load_space("darts"), lambda item: 0.0, budget=3, sampler="small").trials)
        3
    """

    def add(factory: Factory) -> Factory:
        SAMPLERS[name] = factory
        return factory

    return add


def check_sampler(name: str) -> None:
    """Make sure that there is a sampler of that name.

    Raises:
        UserError: Naming those that there are.
    """
    if name not in SAMPLERS:
        raise UserError(f"unknown sampler {name!r}; known are {', '.join(SAMPLERS)}")


def with_values(architecture: Architecture, values: Sequence[float]) -> Architecture:
    """The architecture with the objectives' values."""
    return replace(architecture, values=tuple(values))


def gain(values: Sequence[float], directions: Directions) -> tuple[float, ...]:
    """Values with the sign turned where less is better: more is better in each."""
    return tuple(
        value if direction == "maximize" else -value
        for value, direction in zip(values, directions, strict=True)
    )


def negated(values: Sequence[float]) -> tuple[float, ...]:
    """For sorting with the best first."""
    return tuple(-value for value in values)


def best_place(results: Sequence[Architecture], directions: Directions) -> int:
    """The place of the best: what the fewest others beat in every objective; of several the one
    with the better values, in the objectives' order; of equal ones the first."""
    gains = [gain(item.values, directions) for item in results]
    return min(range(len(gains)), key=lambda i: (worse_than(i, gains), *negated(gains[i])))


def worse_than(index: int, gains: Sequence[Sequence[float]]) -> int:
    """How many of the others are as good in every objective and better in one."""
    own = gains[index]
    return sum(
        all(a >= b for a, b in zip(other, own, strict=True)) and tuple(other) != tuple(own)
        for other in gains
    )
