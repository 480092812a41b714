"""What a search records of a candidate, and how it stands in an Optuna trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ghnas.architectures.architecture import Architecture, Value
from ghnas.spaces import Space
from ghnas.utils.errors import UserError

if TYPE_CHECKING:
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import FrozenTrial

    from ghnas.scoring.racing import Early

FLOOR = -1000.0
"""What stands for minus infinity in a study, which takes no infinite values."""


@dataclass(frozen=True)
class Record:
    """A candidate with its results.

    Args:
        number: Position in the order of proposal, from 0; also the trial's number.
        accuracy: Zero-shot, in [0, 1].
        params: Number of parameters.
        flops: Multiply-adds x 2, for one image.
        hash: Start of the graph's hash; equal for isomorphic architectures.
        duplicate_of: Number of the first candidate with the same architecture, if not this one.
        seconds: Time of scoring: its share of the time of its batch, 0 for a duplicate.
        images: Validation images that it was scored on, if it was stopped before the last: the
            accuracy is then what is to be expected of all.
        early: Of a candidate that a race learns from: see `ghnas.scoring.racing`.
        consensus: See `ghnas.scoring.composite`; None unless the search asks for it.
    """

    number: int
    architecture: Architecture
    accuracy: float
    params: int
    flops: int
    hash: str
    duplicate_of: int | None = None
    seconds: float = 0.0
    images: int | None = None
    early: Early = ()
    consensus: float | None = None

    @property
    def quality(self) -> float:
        """What architectures are ranked by; higher is better."""
        return self.accuracy if self.consensus is None else self.consensus

    def values(self, objectives: Sequence[str]) -> tuple[float, ...]:
        """The objectives' values, in their order."""
        return tuple(float(getattr(self, name)) for name in objectives)


@dataclass(frozen=True)
class Ranked:
    """A record with its rank.

    Args:
        rank: From 1.
        front: Whether nothing is better in one objective and as good in the others.
        refined: What came out when it was trained for a moment, see
            `ghnas.engine.short_list`; None if it was not.
    """

    rank: int
    record: Record
    front: bool
    refined: float | None = None


UNSCORED = -1
"""The number of an architecture that is not a trial of the run."""


def trial_name(item: Ranked) -> str:
    """As `trial-123`; `genotype-` and a few digits of its hash without a trial."""
    record = item.record
    return f"genotype-{record.hash[:8]}" if record.number == UNSCORED else f"trial-{record.number}"


class TrialFormat:
    """Turns records into trials and back.

    Args:
        space: The space of the candidates.
        objectives: Names of the objectives, in the order of the study's values.
    """

    def __init__(self, space: Space, objectives: Sequence[str]) -> None:
        self.space = space
        self.objectives = tuple(objectives)
        self._options = {item.name: item.options for item in space.choices}

    def trial(self, record: Record) -> FrozenTrial:
        """The trial of a record; its duration is the record's time."""
        from optuna.trial import FrozenTrial, TrialState

        parameters = dict(record.architecture.choices)
        attributes: dict[str, Any] = {
            "params": record.params,
            "flops": record.flops,
            "hash": record.hash,
        }
        if record.duplicate_of is not None:
            attributes["same_as"] = record.duplicate_of
        if "accuracy" not in self.objectives:
            attributes["accuracy"] = record.accuracy
        if record.images is not None:
            attributes["images"] = record.images
        if record.early:
            attributes["early"] = record.early
        now = datetime.now()
        return FrozenTrial(
            number=-1,  # the storage numbers it
            trial_id=-1,
            state=TrialState.COMPLETE,
            value=None,
            values=record.values(self.objectives),
            datetime_start=now - timedelta(seconds=record.seconds),
            datetime_complete=now,
            params=parameters,
            distributions={name: _distribution(self._options[name]) for name in parameters},
            user_attrs=attributes,
            system_attrs={},
            intermediate_values={},
        )

    def record(self, trial: FrozenTrial) -> Record:
        """The record of a trial.

        Raises:
            UserError: If a search did not write the trial.
        """
        attributes = trial.user_attrs
        values = dict(zip(self.objectives, trial.values or (), strict=False))
        duration = trial.duration or timedelta()
        try:
            return Record(
                number=trial.number,
                architecture=self.space.architecture(trial.params),
                accuracy=float({**attributes, **values}["accuracy"]),
                params=int(attributes["params"]),
                flops=int(attributes["flops"]),
                hash=str(attributes["hash"]),
                duplicate_of=attributes.get("same_as"),
                seconds=duration.total_seconds(),
                images=attributes.get("images"),
                early=tuple((float(a), float(b)) for a, b in attributes.get("early", ())),
                consensus=values.get("consensus"),
            )
        except (KeyError, TypeError, ValueError, UserError) as error:
            raise UserError(
                f"trial {trial.number} is not a candidate of space {self.space.name!r} ({error})"
            ) from error


@lru_cache(maxsize=10_000)
def _distribution(options: tuple[Value, ...]) -> CategoricalDistribution:
    from optuna.distributions import CategoricalDistribution

    return CategoricalDistribution(options)
