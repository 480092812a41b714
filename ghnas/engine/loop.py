"""The search: propose, predict and score, record, tell; batch by batch.

The proposals of batch k depend on the seed, on k and on the results of earlier batches alone. A
search that was interrupted therefore goes on as if nothing had happened: recorded batches are
told again, and of a batch that is recorded in part only the rest is scored.

While a batch is scored, the one before it is recorded, and the next one is proposed if the
strategy does not learn.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Container, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ghnas.architectures.architecture import Architecture
from ghnas.architectures.graph import Graph
from ghnas.engine.constraints import Limits, descend, require_feasible
from ghnas.engine.record import Record
from ghnas.engine.runs import Run
from ghnas.engine.samplers import Evaluated, Strategy, create_strategy
from ghnas.engine.storage import TrialWriter
from ghnas.utils.errors import UserError

if TYPE_CHECKING:
    from ghnas.scoring.composite import Reference
    from ghnas.scoring.evaluation import Score
    from ghnas.scoring.racing import Early, Race, Stage

HASH_LENGTH = 16
"""Hexadecimal digits of a graph's hash that are recorded: 64 bits."""
ROUNDS = 10
"""How often a strategy is asked for candidates that keep within the limits."""
NOVEL_ROUNDS = 4
"""How often it is asked for architectures that the run does not have yet."""
WINDOW = 30.0
"""Seconds over which the rate is measured."""


class ScorerLike(Protocol):
    """What a search asks of a scorer; see `ghnas.scoring.scorer.Scorer`."""

    def score(
        self,
        graphs: Sequence[Graph],
        wanted: Sequence[int] | None = None,
        race: Race | None = None,
    ) -> list[Score | None]:
        """A score for each graph that is wanted."""


@dataclass(frozen=True)
class SearchProgress:
    """How far a search is.

    Args:
        done: Candidates recorded, those of earlier sessions included.
        budget: Candidates in all.
        best_accuracy: In [0, 1]; None before the first batch.
        duplicates: Candidates that were isomorphic to an earlier one.
        scored: Architectures scored in this session.
        rate: Candidates per second, lately; 0 before the first batch.
        eta: Seconds to go; None while the rate is not known.
    """

    done: int
    budget: int
    best_accuracy: float | None
    duplicates: int
    scored: int
    rate: float
    eta: float | None


Report = Callable[[SearchProgress], None]


def ignore(progress: SearchProgress) -> None:
    """Report to nobody."""


def search(
    run: Run, scorer: ScorerLike, report: Report = ignore, reference: Reference | None = None
) -> None:
    """Search until the budget is recorded; goes on where an earlier session stopped.

    Args:
        run: A new run or an interrupted one; of a complete one nothing is done.
        scorer: Scores architectures.
        report: Called before the first batch and after each.
        reference: What the consensus is measured against, if it is an objective.

    Raises:
        UserError: If the limits cannot be met, another process searches in the run, the record
            is damaged, or the disk is full. What was recorded by then is kept.
    """
    with run.locked():
        _Search(run, scorer, report, reference).run_batches()


@dataclass(frozen=True)
class _Batch:
    """Candidates that are proposed together.

    Args:
        start: Number of the first.
        members: The architectures.
        hashes: Theirs.
        fresh: Places of the architectures that are new to the run: all of them go to the scorer,
            also those that are recorded already, for a score may depend on what it was predicted
            with.
    """

    start: int
    members: Sequence[Architecture]
    hashes: Sequence[str]
    fresh: Sequence[int]


@dataclass(frozen=True)
class _Scoring:
    """A batch that is being scored.

    Args:
        batch: What was proposed.
        known: Records that there are of it already.
        wanted: How many of the others are scored.
        scores: For each of the batch's fresh architectures.
    """

    batch: _Batch
    known: Sequence[Record]
    wanted: int
    scores: Future[list[Score | None]]


class _Search:
    def __init__(
        self, run: Run, scorer: ScorerLike, report: Report, reference: Reference | None
    ) -> None:
        manifest = run.manifest
        if (reference is None) != ("consensus" not in manifest.objectives):
            raise ValueError("a reference goes with the objective consensus, and only with it")
        self.reference = reference
        self.run = run
        self.manifest = manifest
        self.scorer = scorer
        self.limits = Limits(manifest.max_params, manifest.max_flops)
        self.records = run.recorded()
        self.strategy = create_strategy(manifest.strategy, run.space, manifest.directions)
        self.format = run.trial_format
        self.seen: set[str] = set()
        """Hashes of the architectures of all batches that were proposed."""
        self.first: dict[str, Record] = {}
        """The first record of each architecture, by hash."""
        self.racing = manifest.keep is not None and manifest.objectives == ("accuracy",)
        self.stages: tuple[Stage, ...] = ()
        self.meter = _Meter(report, manifest.budget)
        self.before = time.perf_counter()
        """When the last batch was scored."""

    def run_batches(self) -> None:
        for record in self.records:
            self.meter.count(record)
        self.meter.show()
        budget, size = self.manifest.budget, self.manifest.batch_size
        if len(self.records) < budget and self.limits:
            rng = random.Random(f"{self.manifest.seed}:limits")
            require_feasible(self.run.space, self.limits, rng)
        if len(self.records) >= budget:
            return
        starts = list(range(0, budget, size))
        recorded = [start for start in starts if min(start + size, budget) <= len(self.records)]
        for start in recorded:
            self._finish(self.records[start : start + size])
        self.seen.update(self.first)
        self._score_batches(starts[len(recorded) :])

    def _score_batches(self, starts: Sequence[int]) -> None:
        """Score, record and tell what is left.

        While a batch is scored, the one before it is recorded and, if the strategy does not
        learn, the next one is proposed and waits behind it.
        """
        writer = self.run.writer()
        waiting = 0 if self.strategy.learns else 1
        pending: deque[_Scoring] = deque()
        with ThreadPoolExecutor(2) as beside:
            for start in starts:
                batch = self._propose(start)
                known = self.records[start:]
                self._check(batch, known)
                wanted = [place for place, i in enumerate(batch.fresh) if i >= len(known)]
                graphs = [batch.members[i].graph for i in batch.fresh]
                race = self._race(start)
                scores = beside.submit(self._scores, graphs, wanted, race)
                pending.append(_Scoring(batch, known, len(wanted), scores))
                if len(pending) > waiting:
                    self._record(writer, pending.popleft())
            for scoring in pending:
                self._record(writer, scoring)

    def _record(self, writer: TrialWriter, scoring: _Scoring) -> None:
        """Wait for a batch, record it, and tell it."""
        scores = scoring.scores.result()
        now = time.perf_counter()
        seconds = (now - self.before) / max(scoring.wanted, 1)
        self.before = now
        batch = scoring.batch
        new = self._records(batch, scoring.known, scores, seconds)
        writer.write([self.format.trial(record) for record in new])
        self.records[batch.start + len(scoring.known) :] = new
        self._finish(self.records[batch.start : batch.start + len(batch.members)])
        for record in new:
            self.meter.count(record)
        self.run.note_progress(self.meter.done, self.meter.best_accuracy)
        self.meter.show()

    def _finish(self, records: Sequence[Record]) -> None:
        """A whole batch is scored."""
        for record in records:
            self.first.setdefault(record.hash, record)
        objectives = self.manifest.objectives
        self.strategy.tell([Evaluated(r.architecture, r.values(objectives)) for r in records])

    def _propose(self, start: int) -> _Batch:
        size = self.manifest.batch_size
        count = min(size, self.manifest.budget - start)
        rng = random.Random(f"{self.manifest.seed}:{start // size}")
        members = propose_within(self.strategy, self.run, self.limits, self.seen, count, rng)
        hashes = [item.hash[:HASH_LENGTH] for item in members]
        fresh = [
            i for i, key in enumerate(hashes) if key not in self.seen and key not in hashes[:i]
        ]
        self.seen.update(hashes)
        return _Batch(start, members, hashes, fresh)

    def _check(self, batch: _Batch, known: Sequence[Record]) -> None:
        """What is recorded of a batch must be what it proposes."""
        proposed = batch.members[: len(known)]
        if [record.architecture for record in known] != list(proposed):
            number = batch.start // self.manifest.batch_size
            raise UserError(
                f"run {self.run.name} cannot be resumed: batch {number} is not what this version "
                f"proposes (the run was started with {self.manifest.versions}); start a new search"
            )

    def _scores(
        self, graphs: Sequence[Graph], wanted: Sequence[int], race: Race | None
    ) -> list[Score | None]:
        return self.scorer.score(graphs, wanted, race) if wanted else [None] * len(graphs)

    def _race(self, start: int) -> Race | None:
        """When the candidates of a batch stop.

        It depends on the batches before the last one alone, which may still be scored.
        """
        keep = self.manifest.keep
        if keep is None or not self.racing:
            return None
        from ghnas.scoring.racing import WARM_UP, Race, bar_of, fit_stages

        done = self.records[: max(start - self.manifest.batch_size, 0)]
        if not self.stages:
            teachers = [record for record in done if record.early][:WARM_UP]
            if len(teachers) < WARM_UP:
                return None
            self.stages = fit_stages([r.early for r in teachers], [r.accuracy for r in teachers])
        complete = [
            record.accuracy
            for record in done
            if record.images is None and record.duplicate_of is None
        ]
        return Race(self.stages, bar_of(complete, keep, len(done) / self.manifest.budget))

    def _records(
        self, batch: _Batch, known: Sequence[Record], scores: Sequence[Score | None], seconds: float
    ) -> list[Record]:
        """Records of a batch's candidates after the known ones."""
        self.meter.scored += sum(score is not None for score in scores)
        found = dict(zip(batch.fresh, scores, strict=True))
        first = dict(self.first)
        for record in known:
            first.setdefault(record.hash, record)
        records = []
        for i in range(len(known), len(batch.members)):
            architecture = batch.members[i]
            score, earlier = found.get(i), first.get(batch.hashes[i])
            record = Record(
                number=batch.start + i,
                architecture=architecture.without_graph(),
                accuracy=earlier.accuracy if earlier else _accuracy(score),
                params=architecture.parameters,
                flops=architecture.flops,
                hash=batch.hashes[i],
                duplicate_of=earlier.number if earlier else None,
                seconds=0.0 if earlier else seconds,
                images=earlier.images if earlier else _images(score),
                early=self._lesson(score),
                consensus=earlier.consensus if earlier else self._consensus(score),
            )
            first.setdefault(record.hash, record)
            records.append(record)
        return records

    def _consensus(self, score: Score | None) -> float | None:
        if self.reference is None or score is None or score.evidence is None:
            return None
        from ghnas.scoring.composite import recorded

        return recorded(self.reference, score.evidence)

    def _lesson(self, score: Score | None) -> Early:
        """What the race may learn from a candidate."""
        if score is None or not self.racing:
            return ()
        return tuple((round(a, 6), round(min(b, 1e6), 6)) for a, b in score.early)


def _images(score: Score | None) -> int | None:
    """How many images a candidate saw, if it was stopped before the last."""
    return score.images if score is not None and score.stopped else None


def _accuracy(score: Score | None) -> float:
    """Accuracy of a score; 0 where it is not a number, which a study would not take."""
    if score is None:
        raise ValueError("the scorer left out an architecture that was wanted")
    return score.accuracy if score.accuracy == score.accuracy else 0.0


def propose_within(
    strategy: Strategy,
    run: Run,
    limits: Limits,
    known: Container[str],
    count: int,
    rng: random.Random,
) -> list[Architecture]:
    """New candidates of a strategy that keep within the limits, with their graphs.

    The strategy is asked again for those that do not, and for those that the run has already;
    where it has no others, duplicates are taken, and what is too large is changed, a choice at a
    time, until it is not.

    Args:
        known: Hashes of the architectures that the run has.
    """
    accepted: list[Architecture] = []
    taken: set[str] = set()
    too_large: list[Architecture] = []
    for number in range(ROUNDS):
        too_large = []
        for candidate in strategy.propose(count - len(accepted), rng):
            key = candidate.hash[:HASH_LENGTH]
            if not limits.met(candidate):
                too_large.append(candidate)
            elif number >= NOVEL_ROUNDS or not (key in known or key in taken):
                accepted.append(candidate)
                taken.add(key)
        if len(accepted) == count:
            return accepted
    return accepted + [_shrink(candidate, run, limits, rng) for candidate in too_large]


def _shrink(candidate: Architecture, run: Run, limits: Limits, rng: random.Random) -> Architecture:
    changed = descend(run.space, limits, candidate, rng)
    # a dead end: start from one that is known to lead there
    return changed if limits.met(changed) else require_feasible(run.space, limits, rng)


class _Meter:
    """Counts, and reports."""

    def __init__(self, report: Report, budget: int) -> None:
        self.report = report
        self.budget = budget
        self.done = 0
        self.duplicates = 0
        self.scored = 0
        self.best_accuracy: float | None = None
        self._marks: deque[tuple[float, int]] = deque()

    def count(self, record: Record) -> None:
        self.done += 1
        if record.duplicate_of is not None:
            self.duplicates += 1
        self.best_accuracy = max(record.accuracy, self.best_accuracy or 0.0)

    def show(self) -> None:
        now = time.perf_counter()
        self._marks.append((now, self.done))
        while len(self._marks) > 2 and now - self._marks[1][0] > WINDOW:
            self._marks.popleft()
        then, done = self._marks[0]
        rate = (self.done - done) / (now - then) if now > then else 0.0
        left = self.budget - self.done
        eta = 0.0 if left <= 0 else left / rate if rate > 0 else None
        self.report(
            SearchProgress(
                self.done, self.budget, self.best_accuracy, self.duplicates, self.scored, rate, eta
            )
        )
