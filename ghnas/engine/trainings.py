"""What short trainings of a run's candidates found, and how they stand in an Optuna study."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from optuna.trial import FrozenTrial

from ghnas.engine.trials import Trial, TrialFormat
from ghnas.scoring.composite import FLOOR
from ghnas.training.short import ShortTraining


@dataclass(frozen=True)
class TrainingRecord:
    """The outcome of a short training.

    Args:
        trial: Number of the candidate in the search.
        steps: SGD steps.
        repeat: 0 for the candidate's first training of that length, 1 for its repetition with
            another order of images.
        outcome: Higher is better; see `quality`.
        seconds: That it took.
    """

    trial: int
    steps: int
    repeat: int
    outcome: float
    seconds: float

    @property
    def failed(self) -> bool:
        """Whether its loss was not finite."""
        return self.outcome <= FLOOR


def quality(training: ShortTraining) -> float:
    """What trainings are ordered by, higher is better: minus the training loss, in nats.

    Of the second half of the steps, on the same images for all: see `ShortTraining.summed_loss`.
    """
    return max(-training.summed_loss(), FLOOR)


def frozen_training(
    form: TrialFormat, trial: Trial, record: TrainingRecord, training: ShortTraining
) -> FrozenTrial:
    """A training as a trial with the parameters of the search's own, and its losses as
    intermediate values."""
    frozen = form.frozen(replace(trial, seconds=record.seconds))
    frozen.values = [record.outcome]
    frozen.user_attrs |= {
        "trial": record.trial,
        "steps": record.steps,
        "repeat": record.repeat,
        "accuracy": training.score.accuracy,
        "loss": training.score.loss,
    }
    frozen.intermediate_values = {
        step: loss for step, loss in enumerate(training.losses, start=1) if math.isfinite(loss)
    }
    return frozen


def read_trainings(trials: Sequence[FrozenTrial]) -> list[TrainingRecord]:
    """The inverse of `frozen_training`."""
    # earlier versions had one length, and no repetitions
    only = max((trial.last_step or 0 for trial in trials), default=0)
    return [
        TrainingRecord(
            int(trial.user_attrs["trial"]),
            int(trial.user_attrs.get("steps", only)),
            int(trial.user_attrs.get("repeat", 0)),
            float(trial.value),
            trial.duration.total_seconds() if trial.duration else 0.0,
        )
        for trial in trials
        if trial.value is not None
    ]


def first_outcomes(records: Iterable[TrainingRecord]) -> dict[int, float]:
    """The outcome of each candidate's shortest training, by its number; all are equally long."""
    firsts = [record for record in records if not record.repeat]
    shortest = min((record.steps for record in firsts), default=0)
    return {record.trial: record.outcome for record in firsts if record.steps == shortest}


def longest(records: Iterable[TrainingRecord]) -> dict[int, tuple[int, float]]:
    """The steps and the outcome of each candidate's longest training, by its number."""
    found: dict[int, tuple[int, float]] = {}
    for record in records:
        known = found.get(record.trial, (-1, 0.0))
        if not record.repeat and record.steps > known[0]:
            found[record.trial] = record.steps, record.outcome
    return found


def repeated(records: Iterable[TrainingRecord]) -> list[tuple[float, float]]:
    """The outcomes of each pair of trainings that differ in the order of images alone, by the
    number of the candidate."""
    known = {
        (record.trial, record.steps, record.repeat): record.outcome
        for record in records
        if not record.failed
    }
    return [
        (known[trial, steps, 0], outcome)
        for (trial, steps, repeat), outcome in sorted(known.items())
        if repeat and (trial, steps, 0) in known
    ]
