"""How candidates of a run are trained: the images, where a training starts, and the processes."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch

from ghnas.architectures.graph import Graph
from ghnas.architectures.network import kaiming
from ghnas.data import Batches, ImageData, RandomBatches
from ghnas.engine.objectives import ImageObjective
from ghnas.engine.run import Run
from ghnas.executors.base import Parameters
from ghnas.executors.fused import compile_gradients
from ghnas.ghn.model import GHN
from ghnas.scoring.evaluation import Batch
from ghnas.spaces import Space, parse_space
from ghnas.training.populations import POPULATION, train_together
from ghnas.training.sgd import SGDSettings
from ghnas.training.short import SETTINGS, ShortTraining, train_briefly
from ghnas.utils.errors import UserError
from ghnas.utils.processes import Pool
from ghnas.utils.single_thread import one_torch_thread

Start = Literal["ghn", "kaiming"]
"""Where a training starts: from predicted weights, or from Kaiming initialisation."""
BATCH = 64
"""Images of each step."""
NEXT_SEED = 10_007
"""Between the seeds of a training and of its repetition."""
PROBE_STEPS = 2, 8
"""Of the two trainings from which the time of a longer one is told."""


@dataclass(frozen=True)
class TrainingJob:
    """How to train networks, all alike.

    Args:
        space: The networks' space, with the skeleton to train.
        batches: Training images and labels, one for each step; all networks see the same.
        checks: Validation images and labels.
        device: Where.
        pool: Whose workers train on a CPU.
        seed: Of Kaiming initialisation.
        settings: How to train.
        ghn: Trainings start from the weights that it predicts; None: from Kaiming initialisation.
    """

    space: Space
    batches: Batches
    checks: Sequence[Batch]
    device: torch.device
    pool: Pool
    seed: int = 0
    settings: SGDSettings = SETTINGS
    ghn: GHN | None = None

    @property
    def start(self) -> Start:
        """Where trainings start."""
        return "kaiming" if self.ghn is None else "ghn"

    @property
    def side_by_side(self) -> int:
        """Trainings that share their time: on a GPU the time of each is told as its share."""
        return self.pool.size if self.device.type == "cpu" else 1

    def of(self, steps: int, repeat: int = 0) -> TrainingJob:
        """The same for another length, and once more with another order of images and another
        initialisation.

        Args:
            steps: SGD steps.
            repeat: 0 for the first training of a network, 1 for its repetition.
        """
        assert isinstance(self.batches, RandomBatches)
        seed = self.seed + repeat * NEXT_SEED
        return replace(self, seed=seed, batches=replace(self.batches, steps=steps, seed=seed))


def steps_of_epoch(data: ImageData) -> int:
    """SGD steps that see each training image once."""
    return max(len(data.train) // BATCH, 1)


def training_job(
    run: Run,
    objective: ImageObjective,
    steps: int,
    cells: int | None = None,
    start: Start | None = None,
) -> TrainingJob:
    """How candidates of a run are trained.

    Args:
        run: With scored candidates.
        objective: The one that it was started with; its images are trained on, normalised as
            for the scores.
        steps: SGD steps of each.
        cells: Of the networks that are trained; None: as many as in the space's file.
        start: `ghn` for predicted weights, `kaiming` for Kaiming initialisation; None: predicted
            weights, if there are any for networks of that depth.

    Raises:
        UserError: If there are no predicted weights to start from.
    """
    space, data = run.space, objective.data
    file = parse_space(run.manifest.space_text, run.manifest.space)
    depth = cells or file.skeleton.get("cells")
    if isinstance(depth, int):
        space = space.with_skeleton(cells=depth)
    ghn = objective.ghn if space.skeleton == run.space.skeleton else None
    if start == "ghn" and ghn is None:
        raise UserError(
            f"run {run.name} has no hypernetwork for the networks that are to be trained: leave "
            "--train-from out"
        )
    seed, device = run.manifest.seed, objective.device
    return TrainingJob(
        space.for_images(run.manifest.image_shape, len(run.manifest.classes)),
        RandomBatches(data.without_test(), BATCH, steps, seed, device),
        objective.batches(),
        device,
        objective.pool,
        seed,
        ghn=None if start == "kaiming" else ghn,
    )


def train_all(
    graphs: Mapping[int, Graph], job: TrainingJob
) -> Generator[tuple[int, ShortTraining, float]]:
    """Train networks, all on the same images.

    Yields:
        Key, outcome and seconds of each, as they are finished.

    Raises:
        UserError: If a process was ended from outside.
    """
    if job.device.type != "cpu":
        yield from _train_populations(graphs, job)
        return
    if graphs:
        compile_gradients()  # once, before the processes start
    with job.pool.start(partial, _train_one, job, tasks=len(graphs), gradients=True) as workers:
        yield from workers.as_completed(graphs.items())


def seconds_of_training(graphs: Sequence[Graph], job: TrainingJob) -> tuple[float, float]:
    """What a training takes, told from a few steps of some networks.

    Args:
        graphs: Such as will be trained.
        job: How.

    Returns:
        Seconds of a step of one network, and of what each training has beside its steps.
    """
    few, more = (job.of(steps) for steps in PROBE_STEPS)
    keyed = dict(enumerate(graphs))
    if job.device.type == "cpu":
        compile_gradients()
        with one_torch_thread():
            _time_each(keyed, few)  # the first one reads files and fills caches
            fewer, longer = _time_each(keyed, few), _time_each(keyed, more)
    else:
        list(_train_populations(keyed, few))
        fewer, longer = (
            [seconds for *_, seconds in _train_populations(keyed, probe)] for probe in (few, more)
        )
    first, second = sum(fewer) / len(fewer), sum(longer) / len(longer)
    step = max(second - first, 0.0) / (PROBE_STEPS[1] - PROBE_STEPS[0])
    return step, max(first - PROBE_STEPS[0] * step, 0.0)


def _time_each(graphs: Mapping[int, Graph], job: TrainingJob) -> list[float]:
    return [_train_one(job, key, graph)[2] for key, graph in graphs.items()]


def _train_one(job: TrainingJob, number: int, graph: Graph) -> tuple[int, ShortTraining, float]:
    began = time.monotonic()
    trained = train_briefly(graph, _initial(job, graph), job.batches, job.checks, job.settings)
    return number, trained, time.monotonic() - began


def _train_populations(
    graphs: Mapping[int, Graph], job: TrainingJob
) -> Iterator[tuple[int, ShortTraining, float]]:
    """On a GPU many at a time."""
    items = list(graphs.items())
    for start in range(0, len(items), POPULATION):
        began, some = time.monotonic(), items[start : start + POPULATION]
        own = [graph for _, graph in some]
        weights = [_initial(job, graph) for graph in own]
        trained = train_together(own, weights, job.batches, job.checks, job.settings)
        seconds = (time.monotonic() - began) / len(some)
        for (number, _), outcome in zip(some, trained, strict=True):
            yield number, outcome, seconds


def _initial(job: TrainingJob, graph: Graph) -> Parameters:
    if job.ghn is not None:
        return job.ghn.predict_graphs([graph])[0]
    initial = kaiming(graph, torch.Generator().manual_seed(job.seed))
    return {name: value.to(job.device) for name, value in initial.items()}
