"""Objectives: what a search optimises.

Any function of an architecture is one. `ZeroShot` scores whole batches of candidates with the
weights that a hypernetwork predicts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch

from ghnas.architectures.architecture import Architecture
from ghnas.data import ImageData, evaluation_batches
from ghnas.engine.trials import Direction, Directions, Trial
from ghnas.ghn.checkpoint import check_ghn
from ghnas.ghn.model import GHN
from ghnas.scoring.composite import Reference, measure, recorded, reference_for
from ghnas.scoring.evaluation import SCORE_BATCH, Batch, Score
from ghnas.scoring.racing import KEEP, WARM_UP, Early, Race, Stage, bar_of, fit_stages
from ghnas.scoring.scorer import Scorer
from ghnas.spaces import Space
from ghnas.spaces.files import EARLIER_NAMES
from ghnas.utils.devices import pick_device
from ghnas.utils.errors import UserError

SCORE_IMAGES = 512
"""Validation images that a candidate is scored on."""
ZERO_SHOT: dict[str, Direction] = {
    "accuracy": "maximize",
    "composite": "maximize",
    "params": "minimize",
    "flops": "minimize",
}
"""What a zero-shot search can optimise; `composite` as in `ghnas.scoring.composite`."""

Function = Callable[[Architecture], float | Sequence[float]]
Report = Callable[[int, int], None]


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
            An outcome for each that is wanted, None for the others.
        """

    def close(self) -> None:
        """Give up the evaluation that is under way, if any."""
        return


class FunctionObjective(Objective):
    """A function of an architecture as an objective.

    What it raises fails the candidate's trial, not the search.

    Args:
        function: Architecture -> value, or as many values as there are directions.
        directions: `maximize` or `minimize` for each value.
    """

    batch_size: int | None = 1
    in_background = False

    def __init__(self, function: Function, directions: Sequence[Direction] | None = None) -> None:
        self.function = function
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
        chosen = set(wanted)
        return [self._outcome(a) if i in chosen else None for i, a in enumerate(candidates)]

    def _outcome(self, architecture: Architecture) -> Outcome:
        try:
            found = self.function(architecture)
            several = found if isinstance(found, Sequence) else (found,)
            values = tuple(float(value) for value in several)
        except Exception as error:
            return Outcome(error=f"{type(error).__name__}: {error}")
        if len(values) != len(self.directions):
            raise UserError(
                f"the objective returned {len(values)} values, and there are "
                f"{len(self.directions)} directions: give directions=('maximize', 'minimize'), "
                "one for each value"
            )
        if any(math.isnan(value) for value in values):
            return Outcome(error="the objective returned a value that is not a number")
        return Outcome(values)


class ZeroShot(Objective):
    """Scores candidates with predicted weights on validation images, without training.

    Source: Knyazev et al., "Parameter Prediction for Unseen Deep Architectures" (NeurIPS 2021,
    arXiv 2110.13100), section 5.

    Args:
        ghn: A hypernetwork, see `ghnas.load_ghn`.
        data: Its validation images are read, see `ghnas.load_data`.
        objectives: `accuracy`, `composite`, `params` and `flops`; the first two say how good an
            architecture is, and one of them must be among them.
        images: Validation images that a candidate is scored on.
        batch_size: Of these, images that batch-norm sees at a time.
        keep: Candidates that can no longer be among the best so many stop before the last image;
            None: all candidates see all images. Accuracy alone can be raced for.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        workers: Processes on a CPU; default: one for each core.

    Raises:
        UserError: If the hypernetwork and the images do not fit, or an objective is unknown.

    Example:
        >>> import ghnas
        >>> ghn, data = ghnas.load_ghn("darts-embedded"), ghnas.load_data("embedded")
        >>> objective = ghnas.ZeroShot(ghn, data, images=128, workers=1)
        >>> accuracy = objective(ghnas.load_space("darts").sample(seed=0))
        >>> 0.5 < accuracy < 1
        True
    """

    batch_size: int | None = None
    in_background = True

    def __init__(
        self,
        ghn: GHN,
        data: ImageData,
        *,
        objectives: Sequence[str] = ("accuracy",),
        images: int = SCORE_IMAGES,
        batch_size: int = SCORE_BATCH,
        keep: int | None = KEEP,
        device: str | torch.device = "auto",
        workers: int | None = None,
    ) -> None:
        self.ghn, self.data = ghn, data
        self.names = check_objectives(objectives)
        self.directions: Directions = tuple(ZERO_SHOT[name] for name in self.names)
        self.images = min(images, len(data.validation))
        self.images_at_a_time = batch_size
        self.keep = keep if self.names == ("accuracy",) else None
        self.device = pick_device(device) if isinstance(device, str) else device
        self.workers = workers
        self._scorer: Scorer | None = None
        self._reference: Reference | None = None
        self._reference_space: tuple[str, str] | None = None
        self._stages: tuple[Stage, ...] = ()

    def __call__(self, architecture: Architecture) -> float:
        """The zero-shot accuracy of one architecture, in [0, 1]."""
        data = self.data
        graph = architecture.for_images(data.image_shape, data.num_classes).graph
        (score,) = self.scorer.score([graph])
        assert score is not None
        return score.accuracy

    def space_for(self, space: Space) -> Space:
        """The space for the data set's images.

        Raises:
            UserError: If the hypernetwork is for another space.
        """
        check_ghn(self.ghn, space, self.data)
        return space.for_images(self.data.image_shape, self.data.num_classes)

    def describe(self) -> dict[str, Any]:
        return {
            "data": self.data.name,
            "data_fingerprint": self.data.fingerprint,
            "ghn_sha256": self.ghn.info.sha256,
            "images": self.images,
            "batch_size": self.images_at_a_time,
            "keep": self.keep,
        }

    def batches(self) -> list[Batch]:
        """The validation images, mixed by class and normalised as the hypernetwork knows them."""
        info = self.ghn.info
        return evaluation_batches(
            self.data.validation.take(self.images),
            self.images_at_a_time,
            device=self.device,
            mean=info.mean or self.data.mean,
            std=info.std or self.data.std,
        )

    @property
    def scorer(self) -> Scorer:
        """Made on first use; it looks at components only where the composite score is wanted."""
        if self._scorer is None:
            wanted = measure if "composite" in self.names else None
            self._scorer = Scorer(self.ghn, self.batches(), self.device, self.workers, wanted)
        return self._scorer

    def prepare(self, space: Space, report: Report) -> None:
        """Start the processes, and score random architectures of the space if the composite score
        is an objective. Nothing of an earlier search is left."""
        scorer = self.scorer  # processes are started before there are threads
        self._stages = ()
        wanted = space.text, json.dumps(dict(space.skeleton))
        if "composite" in self.names and self._reference_space != wanted:
            self._reference = reference_for(space, scorer, space.image_shape, report)
            self._reference_space = wanted

    def evaluate(
        self,
        candidates: Sequence[Architecture],
        wanted: Sequence[int],
        earlier: Sequence[Trial],
        share: float,
    ) -> list[Outcome | None]:
        if not wanted:
            return [None] * len(candidates)
        race = self._race(earlier, share)
        # all graphs, also of those that are recorded: what is predicted together has a say
        scores = self.scorer.score([item.graph for item in candidates], wanted, race)
        return [
            self._outcome(architecture, score) if score is not None else None
            for architecture, score in zip(candidates, scores, strict=True)
        ]

    def close(self) -> None:
        """End the processes; they are started again when they are needed."""
        if self._scorer is not None:
            self._scorer.close()
            self._scorer = None

    def _outcome(self, architecture: Architecture, score: Score) -> Outcome:
        accuracy = score.accuracy if score.accuracy == score.accuracy else 0.0
        values: dict[str, float] = {"accuracy": accuracy}
        if self._reference is not None and score.components is not None:
            values["composite"] = recorded(self._reference, score.components)
        values |= {"params": architecture.parameters, "flops": architecture.flops}
        early = tuple((round(a, 6), round(min(b, 1e6), 6)) for a, b in score.early)
        return Outcome(
            values=tuple(float(values[name]) for name in self.names),
            accuracy=accuracy,
            images=score.images if score.stopped else None,
            early=early if self.keep is not None else (),
        )

    def _race(self, earlier: Sequence[Trial], share: float) -> Race | None:
        """When the candidates of a batch stop before the last image."""
        if self.keep is None:
            return None
        if not self._stages:
            teachers = [trial for trial in earlier if trial.early][:WARM_UP]
            if len(teachers) < WARM_UP:
                return None
            self._stages = fit_stages(
                [trial.early for trial in teachers], [trial.accuracy or 0.0 for trial in teachers]
            )
        complete = [
            trial.accuracy or 0.0
            for trial in earlier
            if trial.images is None and trial.duplicate_of is None
        ]
        return Race(self._stages, bar_of(complete, self.keep, share))


def as_objective(
    objective: Objective | Function, directions: Sequence[Direction] | None = None
) -> Objective:
    """An objective as it is, or a function made one.

    Raises:
        UserError: If directions are given for an objective that has its own.
    """
    if not hasattr(objective, "evaluate"):
        return FunctionObjective(objective, directions)
    given = cast(Objective, objective)
    if directions is not None and tuple(directions) != given.directions:
        raise UserError(f"{type(objective).__name__} has directions of its own: leave them out")
    return given


def _checked(directions: Sequence[Direction]) -> Directions:
    for direction in directions:
        if direction not in ("maximize", "minimize"):
            raise UserError(f"a direction is 'maximize' or 'minimize', not {direction!r}")
    return tuple(directions)


def check_objectives(names: Sequence[str]) -> tuple[str, ...]:
    """The objectives of a zero-shot search, if they are known, different, and one is a quality.

    Raises:
        UserError: Naming the objective that is wrong, and the known ones.
    """
    names = tuple(EARLIER_NAMES.get(name, name) for name in names)
    for name in names:
        if name not in ZERO_SHOT:
            raise UserError(f"unknown objective {name!r}; known are {', '.join(ZERO_SHOT)}")
        if names.count(name) > 1:
            raise UserError(f"objective {name!r} is named twice")
    if not {"accuracy", "composite"} & set(names):
        raise UserError(
            "the objectives must include accuracy or composite, for example accuracy,params "
            "(the smallest architecture is not worth a search)"
        )
    return names
