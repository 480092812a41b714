"""How many candidates are trained, how long, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ghnas.engine.manifest import ShortList
from ghnas.engine.order import FEWEST
from ghnas.engine.trainings import TrainingRecord
from ghnas.utils.errors import UserError

REPEATS = 3
"""Candidates that are trained a second time, so that the noise of a training is known."""


@dataclass(frozen=True)
class TrainingPlan:
    """Which trainings a run's candidates have.

    Successive halving (Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and
    Hyperparameter Optimization", AISTATS 2016, section 3): all have the first length; of two
    lengths that follow each other the longer is for so many of the best that both cost the same.
    A longer training starts anew, with a learning rate that falls over all of it: lengths 1,3 cost
    a fifth more than going on would.

    Args:
        count: Candidates that are trained in the end; None: as many as `seconds` are enough for.
        steps: SGD steps of each training, ascending.
        seconds: That all trainings together may take.
        repeats: Candidates that are trained a second time, if there are enough for a predictor.

    Raises:
        UserError: If the lengths do not ascend.
    """

    count: int | None
    steps: tuple[int, ...]
    seconds: float | None = None
    repeats: int = REPEATS

    def __post_init__(self) -> None:
        if not self.steps or list(self.steps) != sorted(set(self.steps)) or self.steps[0] < 1:
            raise UserError(
                "the lengths of trainings must ascend, such as 1,3: "
                f"{','.join(map(str, self.steps))} do not"
            )
        if (self.count is None) == (self.seconds is None):
            raise UserError("give the number of trainings or the time for them, not both")

    def survivors(self, count: int) -> tuple[int, ...]:
        """How many of so many candidates have each length."""
        return tuple(math.ceil(count * self.steps[0] / steps) for steps in self.steps)

    def twice(self, count: int) -> int:
        """How many are trained a second time, at the first length."""
        return min(self.repeats, count) if count >= FEWEST else 0

    def trainings(self, count: int) -> int:
        """All trainings of so many candidates."""
        return sum(self.survivors(count)) + self.twice(count)

    def all_steps(self, count: int) -> int:
        """SGD steps of all trainings of so many candidates."""
        kept = zip(self.survivors(count), self.steps, strict=True)
        return sum(number * steps for number, steps in kept) + self.twice(count) * self.steps[0]

    def goal(self, candidates: int, seconds_of_step: float) -> int:
        """How many candidates are to be trained.

        Args:
            candidates: All there are.
            seconds_of_step: What a step takes, divided by the trainings that run side by side.
        """
        if self.count is not None:
            return min(self.count, candidates)
        assert self.seconds is not None
        affordable = int(self.seconds / max(self.steps[0] * seconds_of_step, 1e-9))
        count = min(max(affordable, 1), candidates)
        while count > 1 and self.all_steps(count) * seconds_of_step > self.seconds:
            count -= 1
        return count


def plan_of(asked: ShortList, steps_of_epoch: int) -> TrainingPlan:
    """The plan for what a user asked.

    Args:
        asked: Of the command line or of a manifest.
        steps_of_epoch: SGD steps that see each training image once.

    Raises:
        UserError: As `TrainingPlan`.
    """
    steps = asked.steps or tuple(epochs * steps_of_epoch for epochs in asked.epochs)
    return TrainingPlan(asked.count, steps, asked.seconds)


def measured(records: Sequence[TrainingRecord], side_by_side: int) -> float | None:
    """What a step took in trainings that were recorded, divided by those that ran side by side;
    None where there are none."""
    steps = sum(record.steps for record in records)
    return sum(record.seconds for record in records) / (steps * side_by_side) if steps else None
