"""The loop of a search: ask, evaluate, record, tell; batch by batch.

The candidates of batch k depend on the seed, on k and on the values of earlier batches alone. A
search that was interrupted therefore goes on as if nothing had happened: recorded batches are
told again, and of a batch that is recorded in part only the rest is evaluated.

While a batch is evaluated, the one before it is recorded, and the next one is asked for if the
sampler does not learn. Where several processes fill one study, more batches are asked for ahead.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Container, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from ghnas.architectures.architecture import Architecture
from ghnas.engine.constraints import Limits, descend, limits_of, require_feasible
from ghnas.engine.manifest import Manifest
from ghnas.engine.objectives import Objective, Outcome
from ghnas.engine.progress import Meter, Report, deferred_interrupt
from ghnas.engine.samplers import Sampler
from ghnas.engine.trials import Trial
from ghnas.spaces import Space
from ghnas.utils.errors import UserError
from ghnas.utils.single_thread import rare_garbage_collection

if TYPE_CHECKING:  # SQLAlchemy is loaded where a database is used
    from ghnas.engine.databases.claims import Claims

HASH_LENGTH = 16
"""Hexadecimal digits of a graph's hash that are recorded: 64 bits."""
ROUNDS = 10
"""How often a sampler is asked for candidates that keep within the limits."""
NOVEL_ROUNDS = 4
"""How often it is asked for architectures that the search does not have yet."""


class Book(Protocol):
    """Where trials are kept."""

    def read(self) -> list[Trial]:
        """All trials, in their order."""

    def write(self, trials: Sequence[Trial]) -> None:
        """Append trials; they are kept when this returns."""

    def note_progress(self, done: int, best: float | None) -> None:
        """Keep the figures that a list of searches shows."""


@dataclass(frozen=True)
class _Batch:
    """Candidates that are asked for together.

    Args:
        start: Number of the first.
        members: The candidates.
        hashes: Theirs.
        fresh: Places of the architectures that are new to the search: all of them go to the
            objective, also those that are recorded already, for a score may depend on what it
            was predicted with.
    """

    start: int
    members: Sequence[Architecture]
    hashes: Sequence[str]
    fresh: Sequence[int]


class Loop:
    """A search that can be interrupted at any time.

    Args:
        manifest: What was asked: the budget, the batches, the seed and the limits.
        space: For the objective's images.
        objective: What to optimise.
        sampler: A fresh one.
        book: Where trials are kept; those that it has are not evaluated again.
        report: Called before the first batch and after each.
        claims: What this process scores, where several fill one study; None: everything.

    Raises:
        UserError: If the limits cannot be met, the record is damaged, or the disk is full. What
            was recorded by then is kept.
    """

    def __init__(
        self,
        manifest: Manifest,
        space: Space,
        objective: Objective,
        sampler: Sampler,
        book: Book,
        report: Report,
        claims: Claims | None = None,
    ) -> None:
        self.plan, self.space, self.objective = manifest, space, objective
        self.sampler, self.book, self.claims = sampler, book, claims
        self.ahead = manifest.joined.ahead if manifest.joined else 1
        """Batches that are asked for before an earlier one is recorded."""
        self.limits = limits_of(manifest)
        self.trials = book.read()
        self.seen: set[str] = set()
        """Hashes of the architectures of all batches that were asked for."""
        self.first: dict[str, Trial] = {}
        """The first trial of each architecture, by hash."""
        for trial in self.trials:
            self.first.setdefault(trial.hash, trial)
        self.meter = Meter(report, manifest.budget, objective)
        self.before = time.perf_counter()
        """When the last batch was evaluated."""

    def run(self) -> None:
        """Search until the budget is recorded.

        The first Ctrl-C lets what is being scored be finished and recorded, then raises
        `KeyboardInterrupt`; the second one raises it at once.
        """
        plan = self.plan
        for trial in self.trials:
            self.meter.count(trial)
        if self.trials:  # who recorded the last of them may have been killed before it noted that
            self.book.note_progress(self.meter.done, self.meter.best)
        self.meter.show()
        if len(self.trials) >= plan.budget:
            return
        if self.limits:
            require_feasible(self.space, self.limits, random.Random(f"{plan.seed}:limits"))
        with rare_garbage_collection():
            starts = self._tell_recorded()
            if self.objective.in_background or self.claims is not None:
                with deferred_interrupt(self._finish) as interrupted:
                    self._evaluate_in_background(starts, interrupted)
            else:
                self._evaluate_here(starts)

    def _finish(self) -> None:
        self.objective.cancel()
        if self.claims is not None:
            self.claims.stop()
        self.meter.finish()

    def _tell_recorded(self) -> list[int]:
        """Tell the sampler what is recorded; returns where the batches start that are not."""
        budget, size, done = self.plan.budget, self.plan.batch_size, len(self.trials)
        starts = list(range(0, budget, size))
        whole = [start for start in starts if min(start + size, budget) <= done]
        told, left = len(whole) * size, starts[len(whole) :]
        batches = [self.trials[start : start + size] for start in whole]
        if not self.sampler.repeatable:
            batches, told, left = [self.trials], done, list(range(done, budget, size))
        for batch in batches:
            self._tell(batch)
        self.seen.update(trial.hash for trial in self.trials[:told])
        return left

    def _evaluate_in_background(
        self, starts: Sequence[int], interrupted: Callable[[], bool]
    ) -> None:
        """Evaluate, record and tell what is left.

        While a batch is evaluated, the one before it is recorded and, if the sampler does not
        learn, the next ones are asked for and wait behind it.
        """
        waiting = 0 if self.sampler.learns else self.ahead
        if waiting and self.claims is None:
            waiting = self.objective.ahead(self.plan.batch_size)
        pending: deque[tuple[_Batch, Future[list[Outcome | None]]]] = deque()
        beside = ThreadPoolExecutor(waiting + 1)
        try:
            for start in starts:
                if interrupted():
                    break
                batch, done = self._ask(start), len(self.trials)
                wanted = [place for place, i in enumerate(batch.fresh) if start + i >= done]
                earlier = self.trials[: max(start - self.ahead * self.plan.batch_size, 0)]
                outcomes = beside.submit(self._evaluate, batch, wanted, earlier)
                pending.append((batch, outcomes))
                if len(pending) > waiting:
                    self._record(*pending.popleft())
            while pending:
                self._record(*pending.popleft())
        except BaseException:
            self.objective.close()  # or the process would wait for a batch that nobody wants
            raise
        finally:
            if self.claims is not None:
                self.claims.stop()
            beside.shutdown(wait=False, cancel_futures=True)
        if interrupted():
            raise KeyboardInterrupt

    def _evaluate(
        self, batch: _Batch, wanted: Sequence[int], earlier: Sequence[Trial]
    ) -> list[Outcome | None]:
        """Outcomes of a batch's new architectures, None for those that are not wanted."""
        candidates = [batch.members[i] for i in batch.fresh]

        def evaluate(places: Sequence[int]) -> list[Outcome | None]:
            share = len(earlier) / self.plan.budget
            return self.objective.evaluate(candidates, places, earlier, share)

        if self.claims is None or not wanted:
            return evaluate(wanted)
        # a piece has all its outcomes: other processes may want what is recorded here already
        return self.claims.evaluate(batch.start, [batch.hashes[i] for i in batch.fresh], evaluate)

    def _evaluate_here(self, starts: Sequence[int]) -> None:
        """Evaluate, record and tell what is left, candidate by candidate."""
        for start in starts:
            batch = self._ask(start)
            for place in range(len(self.trials) - start, len(batch.members)):
                began, outcome = time.perf_counter(), None
                if place in batch.fresh:
                    (outcome,) = self.objective.evaluate(
                        [batch.members[place]], [0], self.trials, start / self.plan.budget
                    )
                seconds = time.perf_counter() - began
                self._write([self._trial(batch, place, outcome, seconds)])
            self._tell(self.trials[start : start + len(batch.members)])

    def _record(self, batch: _Batch, outcomes: Future[list[Outcome | None]]) -> None:
        """Wait for a batch, record it, and tell it."""
        found = dict(zip(batch.fresh, outcomes.result(), strict=True))
        now, known = time.perf_counter(), len(self.trials) - batch.start
        wanted = sum(outcome is not None for outcome in found.values())
        seconds = (now - self.before) / max(wanted, 1)
        self.before = now
        places = range(known, len(batch.members))
        # after Ctrl-C some are missing: those before them are recorded
        end = next((i for i in places if i in found and found[i] is None), len(batch.members))
        self._write([self._trial(batch, i, found.get(i), seconds) for i in range(known, end)])
        if end < len(batch.members):
            raise KeyboardInterrupt
        self._tell(self.trials[batch.start : batch.start + len(batch.members)])

    def _write(self, new: Sequence[Trial]) -> None:
        if not new:
            return
        self.book.write(new)
        self.trials += new
        for trial in new:
            self.meter.count(trial)
        self.book.note_progress(self.meter.done, self.meter.best)
        self.meter.show()

    def _tell(self, trials: Sequence[Trial]) -> None:
        """Tell the sampler of a batch that is evaluated as a whole."""
        self.sampler.tell([trial.scored for trial in trials if trial.values])

    def _ask(self, start: int) -> _Batch:
        plan = self.plan
        count = min(plan.batch_size, plan.budget - start)
        rng = random.Random(f"{plan.seed}:{start // plan.batch_size}")
        members = ask_within(self.sampler, self.space, self.limits, self.seen, count, rng)
        if self.sampler.repeatable:
            self._check(start, members)
        hashes = [item.hash[:HASH_LENGTH] for item in members]
        fresh = [
            i for i, key in enumerate(hashes) if key not in self.seen and key not in hashes[:i]
        ]
        self.seen.update(hashes)
        return _Batch(start, members, hashes, fresh)

    def _check(self, start: int, members: Sequence[Architecture]) -> None:
        """What is recorded of a batch must be what it asks for."""
        known = [trial.architecture for trial in self.trials[start:]]
        if known != list(members[: len(known)]):
            raise UserError(
                f"the search cannot be resumed: batch {start // self.plan.batch_size} is not what "
                "this version of ghnas asks for (the manifest names the version that the run was "
                "started with); start a new search"
            )

    def _trial(self, batch: _Batch, place: int, outcome: Outcome | None, seconds: float) -> Trial:
        """The trial of a batch's candidate, whose outcome is None if it is a duplicate."""
        architecture, key = batch.members[place], batch.hashes[place]
        trial = Trial(
            number=batch.start + place,
            architecture=architecture.without_graph(),
            values=(),
            parameters=architecture.parameters,
            flops=architecture.flops,
            hash=key,
        )
        if key in self.first:
            return _duplicate(trial, self.first[key])
        assert outcome is not None, "the objective left out an architecture that was wanted"
        self.meter.scored += 1
        trial = replace(trial, seconds=seconds, **vars(outcome))
        self.first[key] = trial
        return trial


def _duplicate(trial: Trial, first: Trial) -> Trial:
    """A candidate with the architecture of an earlier one, and so with its results."""
    return replace(
        trial,
        values=first.values,
        accuracy=first.accuracy,
        images=first.images,
        error=first.error,
        duplicate_of=first.number,
    )


def ask_within(
    sampler: Sampler,
    space: Space,
    limits: Limits,
    known: Container[str],
    count: int,
    rng: random.Random,
) -> list[Architecture]:
    """New candidates of a sampler that keep within the limits.

    The sampler is asked again for those that do not, and for those that the search has already;
    where it has no others, duplicates are taken, and what is too large is changed, a choice at a
    time, until it is not.

    Args:
        sampler: What to ask.
        space: The search space.
        limits: On parameters, FLOPs and latency.
        known: Hashes of the architectures that the search has.
        count: How many candidates.
        rng: The sampler's source of randomness.
    """
    accepted: list[Architecture] = []
    taken: set[str] = set()
    too_large: list[Architecture] = []
    for number in range(ROUNDS):
        too_large = []
        for candidate in sampler.ask(count - len(accepted), rng):
            key = candidate.hash[:HASH_LENGTH]
            if not limits.met(candidate):
                too_large.append(candidate)
            elif number >= NOVEL_ROUNDS or not (key in known or key in taken):
                accepted.append(candidate)
                taken.add(key)
        if len(accepted) == count:
            return accepted
    return accepted + [_shrink(candidate, space, limits, rng) for candidate in too_large]


def _shrink(
    candidate: Architecture, space: Space, limits: Limits, rng: random.Random
) -> Architecture:
    changed = descend(space, limits, candidate, rng)
    # where no change helps any more: from an architecture that can be made small enough
    return changed if limits.met(changed) else require_feasible(space, limits, rng)
