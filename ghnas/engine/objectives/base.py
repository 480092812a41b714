"""What a search asks of an objective; any function of an architecture as one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

from ghnas.architectures.architecture import Architecture
from ghnas.engine.trials import Direction, Directions, Trial
from ghnas.scoring.racing import Early
from ghnas.spaces import Space
from ghnas.utils.errors import UserError
from ghnas.utils.processes import Pool, Workers

Function = Callable[[Architecture], float | Sequence[float]]
Report = Callable[[int, int], None]
PIECE = 4
"""Architectures that a worker evaluates by a function before it is given others, ..."""
PIECE_SECONDS = 0.05
"""... and more of them where they take less than so long."""


@dataclass(frozen=True)
class Outcome:
    """What an objective says of a candidate; the fields are those of `Trial`."""

    values: tuple[float, ...] = ()
    accuracy: float | None = None
    images: int | None = None
    early: Early = ()
    error: str | None = None


class Objective(Protocol):
    """What a search asks of an objective.

    Attributes:
        names: Of the values.
        directions: Of the values.
        batch_size: Candidates to evaluate together; None: as many as the sampler likes.
        in_background: Whether a batch is evaluated as a whole while others are asked for;
            otherwise candidates are evaluated and recorded one by one.
    """

    names: tuple[str, ...]
    directions: Directions
    batch_size: int | None
    in_background: bool

    def space_for(self, space: Space) -> Space:
        """The space with the images that the objective needs."""
        return space

    def describe(self) -> dict[str, Any]:
        """What must be the same for a search to go on, as plain data."""

    def prepare(self, space: Space, report: Report) -> None:
        """Called before the first batch; `report` is called with steps done and all steps.

        What a first call did is not done again.
        """
        return

    def evaluate(
        self,
        candidates: Sequence[Architecture],
        wanted: Sequence[int],
        earlier: Sequence[Trial],
        share: float,
    ) -> list[Outcome | None]:
        """Evaluate a batch.

        Args:
            candidates: The batch, its duplicates left out.
            wanted: Indices of those to evaluate; the others are recorded already.
            earlier: Trials of all batches but the last one before this.
            share: Of the search that they are.

        Returns:
            An outcome for each that is wanted, None for the others, and for those that `cancel`
            gave up.
        """

    def ahead(self, batch_size: int) -> int:
        """Batches of that size that may wait for earlier ones: more than one if values do not
        depend on earlier trials, and there are workers for them."""
        return 1

    def cancel(self) -> None:
        """Let evaluations in other threads end soon, with what is done; no other may follow before
        `close`. Default: they are finished."""
        return

    def close(self) -> None:
        """Give up the evaluation that is under way, if any."""
        return


class FunctionObjective(Objective):
    """A function of an architecture as an objective.

    What it raises fails the candidate's trial, not the search.

    Args:
        function: Architecture -> value, or as many values as there are directions.
        directions: `maximize` or `minimize` for each value.
        pool: Whose workers call it, a batch's candidates side by side; default: this process, one
            after the other.
    """

    def __init__(
        self,
        function: Function,
        directions: Sequence[Direction] | None = None,
        pool: Pool | None = None,
    ) -> None:
        self.function, self.pool = function, pool
        self.in_background = pool is not None
        self.batch_size: int | None = None if pool else 1
        self._workers: Workers[tuple[list[Outcome], float]] | None = None
        self._seconds = PIECE_SECONDS
        """That an architecture takes, lately."""
        self.directions = _checked(directions or ("maximize",))
        count = len(self.directions)
        self.names = ("value",) if count == 1 else tuple(f"value_{i}" for i in range(count))

    def describe(self) -> dict[str, Any]:
        kind = self.function if hasattr(self.function, "__qualname__") else type(self.function)
        return {"function": f"{kind.__module__}.{kind.__qualname__}"}

    def evaluate(
        self,
        candidates: Sequence[Architecture],
        wanted: Sequence[int],
        earlier: Sequence[Trial],
        share: float,
    ) -> list[Outcome | None]:
        chosen = [candidates[i] for i in wanted]
        if self.pool is None:
            found = [_outcome(self.function, self.directions, item) for item in chosen]
        else:
            if self._workers is None:
                self._workers = self.pool.start(partial, _outcomes, self.function, self.directions)
            size, found = self._piece(len(chosen)), []
            pieces = ((chosen[start : start + size],) for start in range(0, len(chosen), size))
            for outcomes, seconds in self._workers.map(pieces):
                found += outcomes
                self._seconds = seconds
        return in_places(found, wanted, len(candidates))

    def _piece(self, count: int) -> int:
        """How many of a batch a worker is given at a time: outcomes do not depend on it."""
        assert self.pool is not None
        in_time, share = int(PIECE_SECONDS / self._seconds), -(-count // self.pool.size)
        return max(PIECE, min(in_time, share))

    def ahead(self, batch_size: int) -> int:
        return batches_ahead(self.pool, PIECE, batch_size) if self.pool else 1

    def cancel(self) -> None:
        if self._workers is not None:
            self._workers.cancel()

    def close(self) -> None:
        if self._workers is not None:
            self._workers.close()
            self._workers = None


def in_places(found: Iterable[Outcome], wanted: Sequence[int], count: int) -> list[Outcome | None]:
    """What `evaluate` returns.

    Args:
        found: Outcomes of the first ones that are wanted, and of all but after `cancel`.
        wanted: Indices.
        count: Of the batch's candidates.
    """
    outcomes: list[Outcome | None] = [None] * count
    for i, outcome in zip(wanted, found, strict=False):
        outcomes[i] = outcome
    return outcomes


def batches_ahead(pool: Pool, at_a_time: int, batch_size: int) -> int:
    """Batches that keep the workers of a pool busy: two tasks of so many candidates for each."""
    return -(-2 * at_a_time * pool.size // batch_size)


def _outcomes(
    function: Function, directions: Directions, candidates: Sequence[Architecture]
) -> tuple[list[Outcome], float]:
    """Outcomes, and how many seconds each took."""
    began = time.perf_counter()
    found = [_outcome(function, directions, item) for item in candidates]
    return found, (time.perf_counter() - began) / len(found)


def _outcome(function: Function, directions: Directions, architecture: Architecture) -> Outcome:
    try:
        found = function(architecture)
        several = found if isinstance(found, Sequence) else (found,)
        values = tuple(float(value) for value in several)
    except Exception as error:
        return Outcome(error=f"{type(error).__name__}: {error}")
    if len(values) != len(directions):
        raise UserError(
            f"the objective returned {len(values)} values, and there are {len(directions)} "
            "directions: give directions=('maximize', 'minimize'), one for each value"
        )
    if any(math.isnan(value) for value in values):
        return Outcome(error="the objective returned a value that is not a number")
    return Outcome(values)


def as_objective(
    objective: Objective | Function,
    directions: Sequence[Direction] | None = None,
    pool: Pool | None = None,
) -> Objective:
    """An objective as it is, or a function made one.

    Raises:
        UserError: If directions or a pool are given for an objective that has its own.
    """
    if not hasattr(objective, "evaluate"):
        return FunctionObjective(objective, directions, pool)
    given = cast(Objective, objective)
    if pool is not None:
        raise UserError(f"give the pool to the objective: {type(objective).__name__}(..., pool=)")
    if directions is not None and tuple(directions) != given.directions:
        raise UserError(f"{type(objective).__name__} has directions of its own: leave them out")
    return given


def _checked(directions: Sequence[Direction]) -> Directions:
    for direction in directions:
        if direction not in ("maximize", "minimize"):
            raise UserError(f"a direction is 'maximize' or 'minimize', not {direction!r}")
    return tuple(directions)
