"""The objective that scores candidates with predicted weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch

from ghnas.architectures.architecture import Architecture
from ghnas.data import ImageData
from ghnas.engine.objectives.base import Outcome, Report, batches_ahead
from ghnas.engine.objectives.images import (
    SCORE_IMAGES,
    SIZE_OBJECTIVES,
    ImageObjective,
    check_names,
)
from ghnas.engine.trials import Direction, Trial
from ghnas.executors.base import Executor
from ghnas.executors.module import ModuleExecutor
from ghnas.ghn.checkpoint import check_ghn
from ghnas.ghn.model import GHN
from ghnas.scoring.chunks import CHUNK
from ghnas.scoring.composite import Reference, measure, recorded, reference_for
from ghnas.scoring.evaluation import SCORE_BATCH, Batch, Score
from ghnas.scoring.latency import LatencyTable
from ghnas.scoring.predictor import Predictor, shipped_predictor
from ghnas.scoring.proxies import PROXIES
from ghnas.scoring.racing import KEEP, WARM_UP, Race, Stage, bar_of, fit_stages
from ghnas.scoring.scorer import Scorer
from ghnas.spaces import Space
from ghnas.spaces.files import EARLIER_NAMES
from ghnas.utils.errors import UserError
from ghnas.utils.processes import LocalPool, Pool

ZERO_SHOT: dict[str, Direction] = {
    "accuracy": "maximize",
    "loss": "minimize",
    "composite": "maximize",
    "predicted": "maximize",
    **SIZE_OBJECTIVES,
}
"""What a zero-shot search can optimise; `composite` as in `ghnas.scoring.composite`, `predicted` by
`ghnas.scoring.predictor.shipped_predictor`."""

LARGEST_LOSS = 1e6
"""What stands for a loss that is not finite, in nats; a study takes no others."""


class ZeroShot(ImageObjective):
    """Scores candidates with predicted weights on validation images, without training.

    Source: Knyazev et al., "Parameter Prediction for Unseen Deep Architectures" (NeurIPS 2021,
    arXiv 2110.13100), section 5.

    Args:
        ghn: A hypernetwork, see `ghnas.load_ghn`.
        data: Its validation images are read, see `ghnas.load_data`.
        objectives: `accuracy`, `loss`, `composite`, `predicted`, `params`, `flops` and `latency`;
            the first four say how good an architecture is, and one of them must be among them.
        images: Validation images that a candidate is scored on.
        batch_size: Of these, images that batch-norm sees at a time.
        keep: Candidates that can no longer be among the best so many stop before the last image;
            None: all candidates see all images. Accuracy alone can be raced for.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        workers: Processes on a CPU; default: one for each core.
        latency: For the objective `latency`, or a limit on it; see `ghnas.latency_table`.
        pool: Workers in place of this machine's, such as `ghnas.RayPool`.

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

    ghn: GHN

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
        latency: LatencyTable | None = None,
        pool: Pool | None = None,
    ) -> None:
        normalised = data.normalised_with(ghn.info.mean, ghn.info.std)  # as the GHN knows images
        super().__init__(
            normalised, check_objectives(objectives), ZERO_SHOT, device, workers, latency, pool
        )
        self.ghn = ghn
        self.images = min(images, len(data.validation))
        self.images_at_a_time = batch_size
        self.keep = keep if self.names == ("accuracy",) else None
        self._executor: Executor | None = None
        self._scorer: Scorer | None = None
        self._predictor: Predictor | None = None
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
            UserError: If the hypernetwork is for another space, or no predictor ships for it.
        """
        check_ghn(self.ghn, space, self.data)
        self._find_predictor(space)
        if space.one_process:
            self.pool, self._executor = LocalPool(1), ModuleExecutor()
            self.in_background = False  # torch.fx cannot trace beside a network that runs
        return super().space_for(space)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {
            "ghn_sha256": self.ghn.info.sha256,
            "images": self.images,
            "batch_size": self.images_at_a_time,
            "keep": self.keep,
        }

    def batches(self, images: int | None = None) -> list[Batch]:
        """Validation images, mixed by class and normalised as the hypernetwork knows them; default:
        those that candidates are scored on."""
        return super().batches(images or self.images)

    @property
    def scorer(self) -> Scorer:
        """Made on first use; it looks at components only where the composite score is wanted."""
        if self._scorer is None:
            wanted = measure if "composite" in self.names else None
            self._scorer = Scorer(
                self.ghn,
                self.batches(),
                self.device,
                self.pool.size,
                wanted,
                self._executor,
                self.pool,
            )
        return self._scorer

    def prepare(self, space: Space, report: Report) -> None:
        """Start the processes, and score random architectures of the space if the composite score
        is an objective. Nothing of an earlier search is left."""
        scorer = self.scorer  # processes are started before there are threads
        self._stages = ()
        self._find_predictor(space)
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
        expected = self._expected(candidates)
        return [
            self._outcome(architecture, score, prediction) if score is not None else None
            for architecture, score, prediction in zip(candidates, scores, expected, strict=True)
        ]

    def ahead(self, batch_size: int) -> int:
        return 1 if self.keep is not None else batches_ahead(self.pool, CHUNK, batch_size)

    def cancel(self) -> None:
        if self._scorer is not None:
            self._scorer.cancel()

    def close(self) -> None:
        """End the processes; they are started again when they are needed."""
        if self._scorer is not None:
            self._scorer.close()
            self._scorer = None

    def _find_predictor(self, space: Space) -> None:
        if "predicted" in self.names:
            self._predictor = shipped_predictor(space, self.data.name)

    def _expected(self, candidates: Sequence[Architecture]) -> list[float | None]:
        """What the predictor expects of candidates, where that is an objective."""
        if self._predictor is None:
            return [None] * len(candidates)
        return [float(value) for value in self._predictor.predict(candidates).mean]

    def _outcome(
        self, architecture: Architecture, score: Score, prediction: float | None
    ) -> Outcome:
        accuracy = score.accuracy if score.accuracy == score.accuracy else 0.0
        loss = min(score.loss, LARGEST_LOSS) if score.loss == score.loss else LARGEST_LOSS
        values: dict[str, float] = {"accuracy": accuracy, "loss": loss}
        if self._reference is not None and score.components is not None:
            values["composite"] = recorded(self._reference, score.components)
        if prediction is not None:
            values["predicted"] = prediction
        values |= self._sizes(architecture)
        early = tuple((round(a, 6), round(min(b, LARGEST_LOSS), 6)) for a, b in score.early)
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


def check_objectives(names: Sequence[str]) -> tuple[str, ...]:
    """The objectives of a zero-shot search, if they are known, different, and one is a quality.

    Raises:
        UserError: Naming the objective that is wrong, and the known ones.
    """
    names = [EARLIER_NAMES.get(name, name) for name in names]
    if proxies := [name for name in names if name in PROXIES and name not in SIZE_OBJECTIVES]:
        raise UserError(
            f"objective {proxies[0]!r} is a training-free proxy: add --ghn none "
            "(in Python, use ghnas.ProxyScore)"
        )
    return check_names(names, ZERO_SHOT, "accuracy, loss, composite or predicted", "accuracy")
