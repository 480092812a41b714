"""Optuna's samplers as strategies, on a study in memory.

The study of a run is not used: it may be a database, and a sampler's proposals would depend on
when it was read. The one in memory is a function of the results alone.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.trial import TrialState, create_trial

from ghnas.architectures.architecture import Architecture
from ghnas.engine.samplers import Directions, Evaluated, gain, negated, worse_than
from ghnas.spaces import Space

TRIES = 10
"""Proposals without a path from image to output that are put up with for one candidate."""


class OptunaSearch:
    """Asks a sampler; a fresh one, seeded by the batch, for each call.

    What is asked for is then discarded, and results come in as trials of their own: a resumed
    search, which has results but never asked, has the same study.
    """

    learns = True

    def __init__(self, space: Space, directions: Directions) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = space
        self.directions = directions
        self._distributions: dict[str, BaseDistribution] = {
            item.name: CategoricalDistribution(item.options) for item in space.choices
        }
        self._study = self._empty_study()

    def sampler(self, seed: int) -> BaseSampler:
        """A new sampler."""
        raise NotImplementedError

    def propose(self, count: int, rng: random.Random) -> list[Architecture]:
        self._study.sampler = self.sampler(rng.randrange(2**32))
        return [self._ask() or self.space.sample(rng) for _ in range(count)]

    def tell(self, results: Sequence[Evaluated]) -> None:
        self._add(results)

    def _empty_study(self) -> optuna.Study:
        return optuna.create_study(directions=list(self.directions))

    def _ask(self) -> Architecture | None:
        for _ in range(TRIES):
            trial = self._study.ask(self._distributions)
            choices = {item.name: trial.params[item.name] for item in self.space.choices}
            self._study.tell(trial, state=TrialState.FAIL)
            if self.space.is_connected(choices):
                return self.space.architecture(choices)
        return None

    def _add(self, results: Sequence[Evaluated], notes: Mapping[str, Any] | None = None) -> None:
        """Add finished trials with a sampler's notes, as in a trial that was asked for."""
        for item in results:
            self._study.add_trial(
                create_trial(
                    values=list(item.values),
                    params=dict(item.candidate.choices),
                    distributions=self._distributions,
                    system_attrs=dict(notes or {}),
                )
            )


class ParzenSearch(OptunaSearch):
    """Tree-structured Parzen estimator (Bergstra et al., 2011).

    The sampler's time grows with the number of trials (0.13 s for each proposal at 4,000). It
    models the 25 best against the others, so it is shown the `best` and the `latest` only.
    """

    best = 50
    latest = 200

    def __init__(self, space: Space, directions: Directions) -> None:
        super().__init__(space, directions)
        self._shown: list[Evaluated] = []
        self._waiting: list[Evaluated] = []

    def sampler(self, seed: int) -> BaseSampler:
        return TPESampler(seed=seed)

    def propose(self, count: int, rng: random.Random) -> list[Architecture]:
        self._add(self._waiting)
        self._waiting = []
        return super().propose(count, rng)

    def tell(self, results: Sequence[Evaluated]) -> None:
        self._shown += results
        self._waiting += results
        if len(self._shown) > 2 * (self.best + self.latest):
            self._shown = self._selection()
            self._waiting = list(self._shown)
            self._study = self._empty_study()

    def _selection(self) -> list[Evaluated]:
        """The best, then the latest of the others, each in their old order."""
        gains = [gain(item.values, self.directions) for item in self._shown]
        several = len(self.directions) > 1
        order = sorted(
            range(len(gains)),
            key=lambda i: (worse_than(i, gains) if several else 0, *negated(gains[i])),
        )
        best = set(order[: self.best])
        others = [i for i in range(len(gains)) if i not in best][-self.latest :]
        return [self._shown[i] for i in sorted([*best, *others])]


class GeneticSearch(OptunaSearch):
    """NSGA-II (Deb et al., 2002).

    The sampler notes its generation in each trial, and a generation's parents in the study when
    it is first asked for a child of theirs. Both follow from the results alone, so a probe before
    a batch is asked for or told brings them about in a resumed search too. Trials older than the
    parents are never looked at again; without them a proposal takes the same time at the end of a
    search as at its start.
    """

    population = 50

    def sampler(self, seed: int) -> NSGAIISampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return NSGAIISampler(population_size=self.population, seed=seed)

    def propose(self, count: int, rng: random.Random) -> list[Architecture]:
        self._probe()
        return super().propose(count, rng)

    def tell(self, results: Sequence[Evaluated]) -> None:
        self._add(results, self._probe())

    def _probe(self) -> Mapping[str, Any]:
        """What the sampler notes in a trial that is asked for now."""
        sampler = self._study.sampler = self.sampler(seed=0)
        trial = self._study.ask(self._distributions)
        probe = self._study.tell(trial, state=TrialState.FAIL)
        generation = sampler.get_trial_generation(self._study, probe)
        if generation < 2:
            return probe.system_attrs
        parents = sampler.get_parent_population(self._study, generation)
        self._study = self._empty_study()
        first = dict.fromkeys(probe.system_attrs, 0)
        self._add(
            [
                Evaluated(self.space.architecture(item.params), tuple(item.values))
                for item in parents
            ],
            first,
        )
        return self._probe()
