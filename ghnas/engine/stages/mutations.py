"""Mutations of a run's best candidates: scored as its search scored, recorded among its trials."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from ghnas.architectures.architecture import Architecture
from ghnas.engine.constraints import limits_of
from ghnas.engine.loop import HASH_LENGTH
from ghnas.engine.objectives import Objective
from ghnas.engine.run import Run
from ghnas.engine.trials import Trial


class Mutations:
    """The candidates that join a run after its search, in the order in which they joined.

    What is recorded is neither scored nor recorded again, so that a stage that was interrupted
    goes on as if it had not been: each call must ask for what it asked for before.

    Args:
        run: With a finished search.
        objective: The one that it was started with.
    """

    def __init__(self, run: Run, objective: Objective) -> None:
        self.run, self.objective = run, objective
        self._limits = limits_of(run.manifest)
        trials = run.read()
        self._scored, self._recorded = trials[: run.manifest.budget], trials[run.manifest.budget :]
        self._joined: list[Trial] = []
        self._hashes = {trial.hash for trial in self._scored}

    def admit(self, mutations: Sequence[Architecture]) -> list[Trial]:
        """Score and record those that are new to the run and keep within its limits.

        Args:
            mutations: Of the run's space.

        Returns:
            Their trials, without those whose scoring failed.

        Raises:
            UserError: If the disk is full.
        """
        fresh: dict[str, Architecture] = {}
        for item in mutations:
            key = item.hash[:HASH_LENGTH]
            if key not in self._hashes and self._limits.met(item):
                fresh.setdefault(key, item)
        done = len(self._joined)
        known = self._recorded[done : done + len(fresh)]
        new = self._score(fresh, len(known))
        self.run.write(new)
        self._recorded += new
        self._joined += [*known, *new]
        self._hashes.update(fresh)
        return [trial for trial in (*known, *new) if trial.values]

    def _score(self, fresh: dict[str, Architecture], known: int) -> list[Trial]:
        """Trials of those behind the first ones, which are known: scored together with them, for a
        score may depend on what it was predicted with."""
        candidates, wanted = list(fresh.values()), range(known, len(fresh))
        if not wanted:
            return []
        self.objective.prepare(self.run.space, lambda done, total: None)
        began = time.perf_counter()
        try:
            outcomes = self.objective.evaluate(candidates, wanted, self._scored, 1.0)
        except BaseException:
            self.objective.close()  # or the program would wait for what nobody wants
            raise
        seconds = (time.perf_counter() - began) / len(wanted)
        start = self.run.manifest.budget + len(self._joined)
        trials = []
        for place, (key, item) in enumerate(fresh.items()):
            outcome = outcomes[place]
            if outcome is not None:
                trial = Trial(
                    start + place, item.without_graph(), (), item.parameters, item.flops, key
                )
                trials.append(replace(trial, seconds=seconds, **vars(outcome)))
        return trials
