"""A candidate with its results, and how it stands in an Optuna study."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal

from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from ghnas.architectures.architecture import Architecture, Value
from ghnas.scoring.racing import Early
from ghnas.spaces import Space
from ghnas.utils.errors import UserError

Direction = Literal["maximize", "minimize"]
Directions = tuple[Direction, ...]
"""For each objective."""

QUALITIES = ("predicted", "composite", "loss", "accuracy")
"""Objectives that say how good an architecture is; the first one that a search has ranks it."""

SIZES = ("params", "flops", "latency")
"""Objectives that say how large it is, or how slow."""

SEAL = "seal"
"""The attribute of a trial that is a digest of it."""

UNSCORED = -1
"""The number of an architecture that is not a trial of the run."""


@dataclass(frozen=True)
class Trial:
    """A candidate with its results.

    Args:
        number: Position in the order in which candidates were asked for, from 0; also the number
            of Optuna's trial; `UNSCORED` for an architecture that the run does not have.
        architecture: Without its graph, which is built again on demand.
        values: The objectives' values in their order; empty if the objective failed.
        parameters: Number of trainable parameters.
        flops: Multiply-adds x 2, for one image.
        hash: Start of the graph's hash; equal for isomorphic architectures.
        duplicate_of: Number of the first candidate with the same architecture, if not this one.
        seconds: Of scoring: its share of the time of its batch, 0 for a duplicate.
        accuracy: Zero-shot, in [0, 1]; None where the objective measures none.
        images: Validation images that it was scored on, if it was stopped before the last: the
            accuracy is then what is to be expected of all.
        early: Of a candidate that a race learns from: see `ghnas.scoring.racing`.
        error: What the objective raised, if it failed.
        rank: From 1, once the trials are ranked.
        front: Whether nothing is better in one objective and as good in the others.
        short_training: Minus the loss of its longest short training, if it had one; see
            `ghnas.engine.stages.short_list`.
        trained_steps: SGD steps of that training.
        expected: What trainings of a run make expect of it; see `ghnas.engine.order`.
        latency: Seconds for a batch, as measured, if it was.
    """

    number: int
    architecture: Architecture
    values: tuple[float, ...]
    parameters: int
    flops: int
    hash: str
    duplicate_of: int | None = None
    seconds: float = 0.0
    accuracy: float | None = None
    images: int | None = None
    early: Early = ()
    error: str | None = None
    rank: int = 0
    front: bool = False
    short_training: float | None = None
    trained_steps: int | None = None
    expected: float | None = None
    latency: float | None = None

    @property
    def name(self) -> str:
        """As `trial-123`; `genotype-` and a few digits of its hash without a trial."""
        unscored = self.number == UNSCORED
        return f"genotype-{self.hash[:8]}" if unscored else f"trial-{self.number}"

    @property
    def scored(self) -> Architecture:
        """The architecture with its values."""
        return replace(self.architecture, values=self.values)

    def as_dict(self, objectives: Sequence[str]) -> dict[str, Any]:
        """For JSON, the values by the names of the objectives."""
        return {
            "rank": self.rank,
            "trial": None if self.number == UNSCORED else self.number,
            "accuracy": self.accuracy,
            **dict(zip(objectives, self.values, strict=False)),
            "short_training": self.short_training,
            "trained_steps": self.trained_steps,
            "expected": self.expected,
            "parameters": self.parameters,
            "flops": self.flops,
            "measured_latency": self.latency,
            "hash": self.hash,
            "genotype": str(self.architecture),
            "candidate": dict(self.architecture.choices),
        }


class TrialFormat:
    """Turns trials into Optuna's and back.

    Every trial has every choice of the space as a parameter with all its options, so that the
    importance of a choice can be computed and any of Optuna's samplers can go on with the study.

    Args:
        space: The space of the candidates.
        objectives: Names of the objectives, in the order of the study's values.
        study: What tells it from others, by which their trials are known.
    """

    def __init__(self, space: Space, objectives: Sequence[str], study: str = "") -> None:
        self.space = space
        self.objectives = tuple(objectives)
        self.study = study

    def frozen(self, trial: Trial) -> FrozenTrial:
        """Optuna's trial; its duration is the time of scoring."""
        attributes: dict[str, Any] = {
            "params": trial.parameters,
            "flops": trial.flops,
            "hash": trial.hash,
            SEAL: self._seal(trial),
        }
        optional = {
            "same_as": trial.duplicate_of,
            "accuracy": None if "accuracy" in self.objectives else trial.accuracy,
            "images": trial.images,
            "early": trial.early or None,
            "error": trial.error,
        }
        attributes |= {key: value for key, value in optional.items() if value is not None}
        now = datetime.now()
        return FrozenTrial(
            number=-1,  # the storage numbers it
            trial_id=-1,
            state=TrialState.FAIL if trial.error is not None else TrialState.COMPLETE,
            value=None,
            values=trial.values or None,
            datetime_start=now - timedelta(seconds=trial.seconds),
            datetime_complete=now,
            params=dict(trial.architecture.choices),
            distributions=distributions(self.space),
            user_attrs=attributes,
            system_attrs={},
            intermediate_values={},
        )

    def trial(self, frozen: FrozenTrial) -> Trial:
        """The inverse of `frozen`.

        Raises:
            UserError: If a search did not write it.
        """
        attributes = frozen.user_attrs
        try:
            values = dict(zip(self.objectives, frozen.values or (), strict=False))
            accuracy = values.get("accuracy", attributes.get("accuracy"))
            duration = frozen.duration or timedelta()
            return Trial(
                number=frozen.number,
                architecture=self.space.architecture(frozen.params),
                values=tuple(frozen.values or ()),
                parameters=int(attributes["params"]),
                flops=int(attributes["flops"]),
                hash=str(attributes["hash"]),
                duplicate_of=attributes.get("same_as"),
                seconds=duration.total_seconds(),
                accuracy=None if accuracy is None else float(accuracy),
                images=attributes.get("images"),
                early=tuple((float(a), float(b)) for a, b in attributes.get("early", ())),
                error=attributes.get("error"),
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError, UserError) as error:
            raise UserError(
                f"trial {frozen.number} is not a candidate of space {self.space.name!r} ({error})"
            ) from error

    def trials(self, study: Study) -> list[Trial]:
        """All trials of a study, in the order of their numbers.

        Raises:
            UserError: If one of them is somebody else's, or not what the search wrote there.
        """
        found = study.get_trials(deepcopy=False)
        if (gap := next((n for n, item in enumerate(found) if item.number != n), None)) is not None:
            raise UserError(
                f"study {self.study!r} is damaged: trial {gap} is not there; put back a copy, or "
                "start a new search"
            )
        trials = [self.trial(frozen) for frozen in found]
        if any(SEAL in frozen.user_attrs for frozen in found):  # an earlier ghnas wrote none
            for frozen, trial in zip(found, trials, strict=True):
                if frozen.user_attrs.get(SEAL) != self._seal(trial):
                    raise UserError(
                        f"trial {trial.number} of study {self.study!r} is damaged: it is not what "
                        "the search recorded there; put back a copy, or start a new search"
                    )
        return trials

    def _seal(self, trial: Trial) -> str:
        """A digest of a trial and its place, by which one that was changed, moved or came from
        another study is found."""
        known = (self.study, trial.number, trial.hash, trial.values, trial.duplicate_of)
        content = repr((*known, list(trial.architecture.choices.items())))
        return hashlib.sha256(content.encode()).hexdigest()[:8]


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Optuna's distribution of each choice of a space."""
    return {choice.name: _distribution(choice.options) for choice in space.choices}


@lru_cache(maxsize=10_000)
def _distribution(options: tuple[Value, ...]) -> CategoricalDistribution:
    return CategoricalDistribution(options)


def primary(objectives: Sequence[str]) -> int:
    """The objective that ranks trials: the first of `QUALITIES` among them, or else the first that
    is no size, or else the first."""
    ranking = [name for name in QUALITIES if name in objectives]
    ranking += [name for name in objectives if name not in SIZES]
    return objectives.index(ranking[0]) if ranking else 0


def rank_trials(
    study: Study,
    form: TrialFormat,
    short_trainings: Mapping[int, tuple[int, float]] | None = None,
    expected: Mapping[int, float] | None = None,
) -> list[Trial]:
    """Distinct architectures that were scored, best first, each with its rank.

    With one objective the best comes first; with several the Pareto front comes first, front and
    rest each by the primary objective. Those that had a short training come before the others,
    those with a longer one before those with a shorter one. These are ordered by the outcome; the
    others by what is expected of them, where that is known, else by the objective. Ties: fewer
    parameters, then the earlier one.

    Args:
        study: Of a search.
        form: How its trials are written.
        short_trainings: Steps and outcome by the trial's number; higher is better.
        expected: By the trial's number; higher is better.
    """
    place, outcomes, hopes = primary(form.objectives), short_trainings or {}, expected or {}
    sign = 1 if study.directions[place].name == "MAXIMIZE" else -1
    distinct = [
        trial for trial in form.trials(study) if trial.duplicate_of is None and trial.values
    ]
    front = set()
    if len(form.objectives) > 1 and distinct:
        front = {frozen.number for frozen in study.best_trials}

    def order(trial: Trial) -> tuple[float, ...]:
        quality = sign * trial.values[place]
        steps, outcome = outcomes.get(trial.number, (0, 0.0))
        hope = hopes.get(trial.number, 0.0)
        return (
            trial.number not in front,
            *(-steps, -outcome, -hope, -quality),
            *(trial.parameters, trial.number),
        )

    distinct.sort(key=order)
    front = front or {trial.number for trial in distinct[:1]}
    return [
        replace(
            trial,
            rank=rank,
            front=trial.number in front,
            short_training=outcomes[trial.number][1] if trial.number in outcomes else None,
            trained_steps=outcomes[trial.number][0] if trial.number in outcomes else None,
            expected=hopes.get(trial.number),
        )
        for rank, trial in enumerate(distinct, start=1)
    ]
