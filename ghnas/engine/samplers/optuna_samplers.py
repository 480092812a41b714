"""Optuna's samplers."""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.trial import TrialState, create_trial

from ghnas.architectures.architecture import Architecture
from ghnas.engine.samplers.base import (
    BATCH,
    Sampler,
    gain,
    negated,
    register,
    with_values,
    worse_than,
)
from ghnas.engine.trials import Directions, distributions
from ghnas.spaces import Space


class OptunaSampler(Sampler):
    """Any of Optuna's samplers, on a study in memory.

    The study of a run is not used: it may be a database, and candidates would depend on when it
    was read. The one in memory follows from the values alone.

    Args:
        space: The search space.
        directions: Of the objectives.
        sampler: Optuna's; it decides on its own seed.
    """

    learns, repeatable, batch_size = True, False, 1
    tries = 10
    """Proposals for a candidate; if none connects image and output, a random one is taken."""

    def __init__(
        self, space: Space, directions: Directions, sampler: BaseSampler | None = None
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = space
        self.directions = directions
        self._distributions = distributions(space)
        self._study = self._empty_study(sampler)
        self._asked: dict[Architecture, optuna.Trial] = {}

    def ask(self, count: int, rng: random.Random) -> list[Architecture]:
        return [self._ask() or self.space.sample(rng) for _ in range(count)]

    def tell(self, results: Sequence[Architecture]) -> None:
        for architecture in results:
            trial = self._asked.pop(architecture, None)
            if trial is None:
                self._add([architecture])
            else:
                self._study.tell(trial, list(architecture.values))
        for trial in self._asked.values():  # those that broke a limit or were not new
            self._study.tell(trial, state=TrialState.FAIL)
        self._asked = {}

    def _empty_study(self, sampler: BaseSampler | None = None) -> optuna.Study:
        return optuna.create_study(directions=list(self.directions), sampler=sampler)

    def _ask(self) -> Architecture | None:
        for _ in range(self.tries):
            trial = self._study.ask(self._distributions)
            choices = {item.name: trial.params[item.name] for item in self.space.choices}
            architecture = self.space.architecture(choices)
            if self.space.is_connected(choices) and architecture not in self._asked:
                self._asked[architecture] = trial
                return architecture
            self._study.tell(trial, state=TrialState.FAIL)
        return None

    def _add(self, results: Sequence[Architecture], notes: Mapping[str, Any] | None = None) -> None:
        """Add finished trials with a sampler's notes, as in a trial that was asked for."""
        for item in results:
            self._study.add_trial(
                create_trial(
                    values=list(item.values),
                    params=dict(item.choices),
                    distributions=self._distributions,
                    system_attrs=dict(notes or {}),
                )
            )


class _SeededSampler(OptunaSampler):
    """One of Optuna's samplers made anew for each batch, with the batch's seed.

    What is asked for is then discarded, and results come in as trials of their own: a resumed
    search, which has results but never asked, has the same study.
    """

    repeatable, batch_size = True, BATCH

    def sampler(self, seed: int) -> BaseSampler:
        """A new sampler."""
        raise NotImplementedError

    def ask(self, count: int, rng: random.Random) -> list[Architecture]:
        self._study.sampler = self.sampler(rng.randrange(2**32))
        return super().ask(count, rng)

    def tell(self, results: Sequence[Architecture]) -> None:
        self._add(results)

    def _ask(self) -> Architecture | None:
        for _ in range(self.tries):
            trial = self._study.ask(self._distributions)
            choices = {item.name: trial.params[item.name] for item in self.space.choices}
            self._study.tell(trial, state=TrialState.FAIL)
            if self.space.is_connected(choices):
                return self.space.architecture(choices)
        return None


@register("tpe")
class ParzenSearch(_SeededSampler):
    """Tree-structured Parzen estimator (Bergstra et al., NIPS 2011).

    The sampler's time grows with the number of trials (0.13 s for each candidate at 4,000). It
    models the 25 best against the others, so it is shown the `best` and the `latest` only.
    """

    best = 50
    latest = 200

    def __init__(self, space: Space, directions: Directions) -> None:
        super().__init__(space, directions)
        self._shown: list[Architecture] = []
        self._waiting: list[Architecture] = []

    def sampler(self, seed: int) -> BaseSampler:
        return TPESampler(seed=seed)

    def ask(self, count: int, rng: random.Random) -> list[Architecture]:
        self._add(self._waiting)
        self._waiting = []
        return super().ask(count, rng)

    def tell(self, results: Sequence[Architecture]) -> None:
        self._shown += results
        self._waiting += results
        if len(self._shown) > 2 * (self.best + self.latest):
            self._shown = self._selection()
            self._waiting = list(self._shown)
            self._study = self._empty_study()

    def _selection(self) -> list[Architecture]:
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


@register("nsga2")
class GeneticSearch(_SeededSampler):
    """NSGA-II (Deb et al., 2002).

    The sampler notes its generation in each trial, and a generation's parents in the study when
    it is first asked for a child of theirs. Both follow from the values alone, so a probe before
    a batch is asked for or told brings them about in a resumed search too. Trials older than the
    parents are never looked at again; without them asking takes the same time at the end of a
    search as at its start.
    """

    population = 50

    def sampler(self, seed: int) -> NSGAIISampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return NSGAIISampler(population_size=self.population, seed=seed)

    def ask(self, count: int, rng: random.Random) -> list[Architecture]:
        self._probe()
        return super().ask(count, rng)

    def tell(self, results: Sequence[Architecture]) -> None:
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
        for item in parents:
            architecture = self.space.architecture(item.params)
            self._add([with_values(architecture, item.values)], first)
        return self._probe()
