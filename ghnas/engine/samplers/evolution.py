"""Random search, regularised evolution and local search."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence

from ghnas.architectures.architecture import Architecture
from ghnas.engine.samplers.base import BATCH, Sampler, best_place, register
from ghnas.engine.trials import Directions
from ghnas.spaces import Space


@register("random")
class RandomSearch(Sampler):
    """Uniform over each choice."""

    learns, repeatable, batch_size = False, True, BATCH

    def __init__(self, space: Space, directions: Directions) -> None:
        self.space = space

    def ask(self, count: int, rng: random.Random) -> list[Architecture]:
        return [self.space.sample(rng) for _ in range(count)]

    def tell(self, results: Sequence[Architecture]) -> None:
        pass


@register("evolution")
class Evolution(Sampler):
    """Regularised evolution (Real et al., AAAI 2019).

    The population is the latest candidates; a child is the best of `tournament` random ones with
    one choice changed. The oldest die, not the worst. The population holds at least two batches,
    so that no candidate dies before it could be a parent.
    """

    learns, repeatable, batch_size = True, True, 64
    population = 128
    tournament = 16

    def __init__(self, space: Space, directions: Directions) -> None:
        self.space = space
        self.directions = directions
        self._alive: deque[Architecture] = deque()

    def ask(self, count: int, rng: random.Random) -> list[Architecture]:
        newborn = min(max(self.population - len(self._alive), 0), count)
        return [self.space.sample(rng) for _ in range(newborn)] + [
            self.space.mutate(self._parent(rng), rng) for _ in range(count - newborn)
        ]

    def tell(self, results: Sequence[Architecture]) -> None:
        self._alive.extend(results)
        while len(self._alive) > max(self.population, 2 * len(results)):
            self._alive.popleft()

    def _parent(self, rng: random.Random) -> Architecture:
        if not self._alive:  # the first batch is larger than the population
            return self.space.sample(rng)
        contest = rng.sample(list(self._alive), min(self.tournament, len(self._alive)))
        return contest[best_place(contest, self.directions)]


@register("local")
class LocalSearch(Sampler):
    """Local search (White, Nolen and Savani, UAI 2021).

    Every neighbour of the best architecture is asked for; it moves to the first batch's best that
    is better, and starts anew at random where no neighbour is.
    """

    learns, repeatable, batch_size = True, True, 8

    def __init__(self, space: Space, directions: Directions) -> None:
        self.space, self.directions = space, directions
        self._centre: Architecture | None = None
        self._known: set[Architecture] = set()
        self._asked: set[Architecture] = set()
        """Since the last batch that was told."""

    def ask(self, count: int, rng: random.Random) -> list[Architecture]:
        around = [item for item in self._around() if item not in self._asked]
        chosen = rng.sample(around, min(count, len(around)))
        chosen += [self.space.sample(rng) for _ in range(count - len(chosen))]
        self._asked.update(chosen)
        return chosen

    def tell(self, results: Sequence[Architecture]) -> None:
        self._known.update(results)
        self._asked = set()
        contest = [*([self._centre] if self._centre else []), *results]
        if contest:
            self._centre = contest[best_place(contest, self.directions)]
            if not self._around():
                self._centre = None

    def _around(self) -> list[Architecture]:
        """Neighbours that are not known."""
        around = self.space.neighbours(self._centre) if self._centre else []
        return [item for item in around if item not in self._known]
