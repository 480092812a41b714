"""Search by a predictor that is fitted again after each batch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import numpy as np

from ghnas.architectures.architecture import Architecture
from ghnas.engine.samplers.base import Sampler, gain, register, worse_than
from ghnas.engine.trials import Directions
from ghnas.scoring.predictor import Regression
from ghnas.spaces import Space
from ghnas.spaces.features import graph_features
from ghnas.utils.statistics import Values

Scores = Callable[[Sequence[Architecture]], Values]
"""Further features of architectures (N, any number), such as zero-shot scores."""
Admit = Callable[[Sequence[Architecture]], Sequence[Architecture]]
"""Of architectures those that may join a pool, once `Scores` knows them."""


@register("predictor")
class PredictorSearch(Sampler):
    """What a predictor on graph features has highest, fitted to all that was told.

    First the starters, then random candidates until `initial` are known. From then on the
    candidates with the highest mean plus `explore` standard deviations, among `fresh` random ones
    and `mutants` mutations of the `parents` best (after BANANAS: White, Neiswanger and Savani, AAAI
    2021; and WeakNAS: Wu et al., NeurIPS 2021), or in a given pool, which mutations of the best may
    join. With several objectives the label of an architecture is how few others beat it in all.

    Args:
        space: The search space.
        directions: Of the objectives.
        pool: The only candidates; None: any of the space.
        admit: Before each batch, the pool grows by those of `joining` mutations that it admits;
            None: the pool stays as it is.
        starters: What is asked for first, in this order, such as the best by a zero-shot score.
        scores: Further features.
    """

    learns, repeatable, batch_size = True, True, 8
    initial = 8
    explore = 0.5
    fresh, parents, mutants, joining = 500, 10, 500, 64

    def __init__(
        self,
        space: Space,
        directions: Directions,
        *,
        pool: Sequence[Architecture] | None = None,
        admit: Admit | None = None,
        starters: Sequence[Architecture] = (),
        scores: Scores | None = None,
    ) -> None:
        self.space, self.directions = space, directions
        self._pool = None if pool is None else list(pool)
        self._admit, self._starters, self._scores = admit, starters, scores
        self._told: dict[Architecture, Architecture] = {}
        self._rows: list[Values] = []
        self._hashes: set[str] = set()
        self._asked: set[Architecture] = set()
        """Since the last batch that was told."""
        self._fit: Regression | None = None

    def ask(self, count: int, rng: random.Random) -> list[Architecture]:
        chosen = self._new(self._starters)[:count]
        missing = count - len(chosen)
        if missing and len(self._told) < self.initial:
            chosen += self._random(missing, rng)
        elif missing:
            chosen += self._promising(missing, rng, chosen)
        self._asked.update(chosen)
        return chosen

    def tell(self, results: Sequence[Architecture]) -> None:
        new = [item for item in dict.fromkeys(results) if item not in self._told]
        self._told |= {item: item for item in new}
        self._rows += list(self._features(new))
        if self._pool is None:
            self._hashes.update(item.without_graph().hash for item in new)
        self._asked, self._fit = set(), None

    def _new(self, candidates: Sequence[Architecture]) -> list[Architecture]:
        """Without repetition, what was neither told nor asked for."""
        return [
            item
            for item in dict.fromkeys(candidates)
            if item not in self._told and item not in self._asked
        ]

    def _random(self, count: int, rng: random.Random) -> list[Architecture]:
        if self._pool is None:
            return [self.space.sample(rng) for _ in range(count)]
        left = self._new(self._pool)
        return rng.sample(left, count) if len(left) >= count else rng.choices(self._pool, k=count)

    def _promising(
        self, count: int, rng: random.Random, taken: Sequence[Architecture]
    ) -> list[Architecture]:
        if self._pool is not None:
            self._grow(self._pool, rng)
            left = set(self._new(self._pool)).difference(taken)
            places = [place for place, item in enumerate(self._pool) if item in left]
            order = self._order(self._pool_rows[places])
            chosen = [self._pool[places[place]] for place in order[:count]]
        else:
            mutants = self._mutations(self.mutants, rng)
            candidates = self._new([*self._random(self.fresh, rng), *mutants])
            order = self._order(self._features(candidates))
            chosen = self._different((candidates[place] for place in order), count, taken)
        return chosen + self._random(count - len(chosen), rng)

    def _grow(self, pool: list[Architecture], rng: random.Random) -> None:
        """Let mutations of the best join the pool."""
        if self._admit is None:
            return
        rows, known = self._pool_rows, set(pool)
        admitted = self._admit(list(dict.fromkeys(self._mutations(self.joining, rng))))
        new = [item for item in admitted if item not in known]
        pool += new
        self._pool_rows = np.vstack([rows, self._features(new)]) if new else rows

    def _mutations(self, count: int, rng: random.Random) -> list[Architecture]:
        best = self._best
        return [self.space.mutate(rng.choice(best), rng) for _ in range(count)]

    def _order(self, rows: Values) -> Sequence[int]:
        """Candidates by what is expected of them, the best first."""
        if not len(rows):
            return []
        expected = self._fitted().predict(rows)
        worth = expected.mean + self.explore * expected.deviation
        return np.argsort(-worth, kind="stable").tolist()  # type: ignore[no-any-return]

    def _different(
        self, ordered: Iterable[Architecture], count: int, taken: Sequence[Architecture]
    ) -> list[Architecture]:
        """The first that are not isomorphic to what is known, nor to each other."""
        known = self._hashes | {item.hash for item in (*self._asked, *taken)}
        chosen: list[Architecture] = []
        for item in ordered:
            if len(chosen) == count:
                break
            if item.hash not in known:
                known.add(item.hash)
                chosen.append(item)
        return chosen

    def _fitted(self) -> Regression:
        """Fitted to what was told; the seed is the number of labels."""
        if self._fit is None:
            self._fit = Regression(np.array(self._rows), self._labels, seed=len(self._told))
        return self._fit

    @property
    def _labels(self) -> Values:
        gains = [gain(item.values, self.directions) for item in self._told.values()]
        if len(self.directions) == 1:
            return np.array(gains)[:, 0]
        return -np.array([worse_than(i, gains) for i in range(len(gains))], dtype=float)

    @property
    def _best(self) -> list[Architecture]:
        order = np.argsort(-self._labels, kind="stable")[: self.parents]
        told = list(self._told)
        return [told[place] for place in order]

    @cached_property
    def _pool_rows(self) -> Values:
        return self._features(self._pool or ())

    def _features(self, architectures: Sequence[Architecture]) -> Values:
        rows = graph_features(self.space, architectures)
        if self._scores is None or not architectures:
            return rows
        return np.hstack([rows, self._scores(architectures)])
