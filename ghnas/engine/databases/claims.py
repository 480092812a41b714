"""Which of several processes scores what, where they fill one study together.

Every process runs the whole search: it asks for the same candidates, batch by batch, for these
depend on the seed and on recorded values alone, and writes batches in their order, of which the
database keeps the first copy. So the study is that of a single process, trial by trial, whoever
scored what and whoever died. What is shared out is the scoring: batches are cut into pieces, and a
piece is a trial of a second study, `NAME-claims`, that is WAITING, RUNNING while a process holds
it, and COMPLETE with the outcomes as an attribute. Optuna makes the step from WAITING to RUNNING
for one process alone, and keeps heartbeats by the database's clock. A piece whose process no longer
beats becomes WAITING again. (Optuna's `fail_stale_trials` would add a new trial in a second
transaction, and lose the piece with a process that dies between the two.)
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from hashlib import sha256
from socket import gethostname
from typing import Any, NamedTuple

import optuna
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from ghnas.engine.databases.connection import database_errors
from ghnas.engine.databases.rows import add_from
from ghnas.engine.objectives import Outcome
from ghnas.utils.errors import UserError

HEARTBEAT = 10.0
"""Seconds between the heartbeats of a process."""
GRACE = 60.0
"""Seconds without a heartbeat after which a process is taken for dead."""
POLL = 0.5
"""Seconds between two looks at the pieces of others."""
_RESULT = "result"
"""The attribute of a finished piece: a digest of its candidates, and their outcomes."""

Score = Callable[[Sequence[int]], list[Outcome | None]]
"""Scores the candidates of a batch at some positions; None for the others."""


def add_pieces(storage: RDBStorage, study: int, count: int) -> None:
    """Put the pieces of a search into its second study, all of them WAITING, if they are not there.

    Args:
        storage: Of the study.
        study: Optuna's number of it.
        count: Of the pieces.
    """
    add_from(storage, study, 0, [create_trial(state=TrialState.WAITING)] * count)


class _Piece(NamedTuple):
    """A piece by its number, with Optuna's number of its trial."""

    number: int
    trial: int
    state: TrialState


class Claims:
    """The pieces of a search, and those among them that this process holds.

    Args:
        storage: Of the studies.
        url: For messages.
        study: Name of the study of pieces.
        batch_size: Candidates of a batch.
        piece: Candidates of a piece.
        turns: Pieces that are scored at a time.
    """

    def __init__(
        self, storage: RDBStorage, url: str, study: str, batch_size: int, piece: int, turns: int
    ) -> None:
        self._storage, self._url = storage, url
        self._study = storage.get_study_id_from_name(study)
        self._batch_size, self._piece = batch_size, piece
        self._turn = threading.Semaphore(turns)
        self._held: set[int] = set()
        """Optuna's numbers of the trials whose pieces this process scores."""
        self._changing = threading.Lock()
        """Held while the database and what is held here say different things."""
        self._stopped = threading.Event()
        self._looking = threading.Lock()
        self._pieces: dict[int, _Piece] = {}
        """Those that `evaluate` waits for, as they were when they were last looked at."""
        self._looked = self._freed = 0.0
        """When that was, and when those of dead processes were last looked for."""
        threading.Thread(target=self._beat, daemon=True).start()

    def evaluate(self, start: int, hashes: Sequence[str], score: Score) -> list[Outcome | None]:
        """Outcomes of a batch, whose pieces this process and others score.

        May be called for several batches at a time, each in a thread of its own.

        Args:
            start: Number of the batch's first candidate.
            hashes: Of the candidates that are to be scored.
            score: Scores some of them.

        Returns:
            An outcome for each, or None for those that are not there when `stop` is called.

        Raises:
            UserError: If the database does not answer, or others asked for other candidates.
        """
        found: list[Outcome | None] = [None] * len(hashes)
        each = -(-self._batch_size // self._piece)
        first = start // self._batch_size * each
        left = {
            first + i: range(len(hashes))[i * self._piece :][: self._piece] for i in range(each)
        }
        with database_errors(self._url):
            while left and not self._stopped.is_set():
                known = self._look(left)
                for number in [i for i in left if known[i].state == TrialState.COMPLETE]:
                    own = left.pop(number)
                    trial = self._storage.get_trial(known[number].trial)
                    found[own.start : own.stop] = _outcomes(trial, [hashes[i] for i in own])
                waiting = [i for i in left if known[i].state == TrialState.WAITING]
                if waiting:
                    self._work(known[waiting[0]], left[waiting[0]], hashes, score)
                elif left:
                    self._free_the_dead()
                    self._stopped.wait(POLL)
        return found

    def stop(self) -> None:
        """Let `evaluate` in other threads end soon, and free what this process holds."""
        with self._changing:
            self._stopped.set()
        for trial in tuple(self._held):
            self._release(trial)

    def _look(self, numbers: Iterable[int]) -> dict[int, _Piece]:
        """These pieces as they were a moment ago: all threads look at them together."""
        with self._looking:
            new = [number for number in numbers if number not in self._pieces]
            if new or time.monotonic() - self._looked > POLL:
                self._pieces |= self._read([*new, *self._pieces])
                self._looked = time.monotonic()
            found = {number: self._pieces[number] for number in numbers}
            for number, piece in found.items():  # whoever sees a finished one takes it
                if piece.state == TrialState.COMPLETE:
                    del self._pieces[number]
            return found

    def _read(self, numbers: Sequence[int]) -> dict[int, _Piece]:
        model = models.TrialModel
        wanted = select(model.number, model.trial_id, model.state).where(
            model.study_id == self._study, model.number.in_(numbers)
        )
        with Session(self._storage.engine) as session:
            rows = session.execute(wanted).all()
        if len(rows) < len(numbers):
            raise UserError("the study of claims has lost trials: somebody else deleted them")
        return {number: _Piece(number, trial, state) for number, trial, state in rows}

    def _work(
        self, piece: _Piece, places: Sequence[int], hashes: Sequence[str], score: Score
    ) -> None:
        """Score a piece, if no other process takes it first."""
        with self._turn:
            if self._claim(piece.trial):
                try:
                    outcomes = score(places)
                    chosen = [asdict(found) for i in places if (found := outcomes[i]) is not None]
                    if len(chosen) == len(places):  # not after `stop`
                        self._finish(piece.trial, chosen, [hashes[i] for i in places])
                        self._held.discard(piece.trial)
                finally:
                    self._release(piece.trial)
        with self._looking:
            self._pieces |= self._read([piece.number])

    def _claim(self, trial: int) -> bool:
        with self._changing:
            if self._stopped.is_set():
                return False
            # the heartbeat first: without one a piece would stay with a process that dies between
            self._storage.record_heartbeat(trial)
            try:
                claimed = self._storage.set_trial_state_values(trial, TrialState.RUNNING)
            except optuna.exceptions.UpdateFinishedTrialError:
                return False
            if claimed:
                self._held.add(trial)
                process = f"{gethostname()}:{os.getpid()}"
                self._storage.set_trial_user_attr(trial, "process", process)
            return claimed

    def _finish(self, trial: int, outcomes: list[dict[str, Any]], hashes: Sequence[str]) -> None:
        # taken for dead, this process may find that another was faster: that one counts
        with suppress(optuna.exceptions.UpdateFinishedTrialError):
            result = {"candidates": _digest(hashes), "outcomes": outcomes}
            self._storage.set_trial_user_attr(trial, _RESULT, result)
            self._storage.set_trial_state_values(trial, TrialState.COMPLETE, [len(outcomes)])

    def _release(self, trial: int) -> None:
        with self._changing:
            if trial not in self._held:  # `stop` has freed it, and others may hold it by now
                return
            self._held.remove(trial)
            with suppress(Exception):  # others free it when the heartbeats end
                self._storage.set_trial_state_values(trial, TrialState.WAITING)

    def _beat(self) -> None:
        while not self._stopped.wait(HEARTBEAT):
            for trial in tuple(self._held):
                with suppress(Exception):  # whoever needs the database says what is wrong with it
                    self._storage.record_heartbeat(trial)

    def _free_the_dead(self) -> None:
        """Make pieces WAITING whose processes no longer beat, in one statement."""
        if time.monotonic() - self._freed < HEARTBEAT:
            return
        self._freed = time.monotonic()
        trials, beats = models.TrialModel, models.TrialHeartbeatModel
        with Session(self._storage.engine) as session, session.begin():
            now = session.scalar(select(func.now()))
            assert now is not None
            last = now.replace(tzinfo=None) - timedelta(seconds=GRACE)
            silent = select(beats.trial_id).where(beats.heartbeat < last)
            session.execute(
                update(trials)
                .where(trials.study_id == self._study, trials.state == TrialState.RUNNING)
                .where(trials.trial_id.in_(silent))
                .values(state=TrialState.WAITING)
                .execution_options(synchronize_session=False)
            )


def _digest(hashes: Sequence[str]) -> str:
    return sha256(" ".join(hashes).encode()).hexdigest()[:16]


def _outcomes(trial: FrozenTrial, hashes: Sequence[str]) -> list[Outcome]:
    """What a process has made of a piece."""
    result: dict[str, Any] = trial.user_attrs[_RESULT]
    if result["candidates"] != _digest(hashes):
        raise UserError(
            f"piece {trial.number} of the study was scored by a process that asks for other "
            "candidates: use the same version of ghnas for all, and start a new study"
        )
    # JSON has no tuples
    return [
        Outcome(
            **item | {"values": tuple(item["values"]), "early": tuple(map(tuple, item["early"]))}
        )
        for item in result["outcomes"]
    ]
