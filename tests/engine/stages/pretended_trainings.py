"""Short trainings for tests: of tiny networks, and pretended ones whose loss a hash decides."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import torch

from ghnas.architectures.graph import Graph
from ghnas.data import ImageData, RandomBatches, Split
from ghnas.data.dataset import no_test
from ghnas.engine.stages.training_jobs import TrainingJob
from ghnas.engine.stages.training_plan import TrainingPlan
from ghnas.scoring.evaluation import Score
from ghnas.spaces import load_space
from ghnas.training.short import ShortTraining
from ghnas.utils.processes import LocalPool

CPU = torch.device("cpu")
SPACE = load_space("darts").with_skeleton(cells=2, channels=2).for_images((3, 8, 8), 2)
"""Deeper than the searches of tests, which have one cell."""
SECONDS = 0.5
"""Of a pretended training of two steps."""


def make_job(workers: int = 1) -> TrainingJob:
    """Eight images in a step."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (24, 3, 8, 8), dtype=torch.uint8, generator=generator)
    split = Split(images, torch.arange(24) % 2)
    data = ImageData("noise", ("cat", "dog"), split, split, no_test, (0.5,) * 3, (0.3,) * 3, True)
    batches = RandomBatches(data, 8, 3, 0, CPU)
    return TrainingJob(SPACE, batches, list(batches)[:1], CPU, LocalPool(workers))


def plan(count: int, *steps: int, repeats: int = 0) -> TrainingPlan:
    """So many candidates for three steps, unless it is told otherwise."""
    return TrainingPlan(count, steps or (3,), repeats=repeats)


def pretend(
    graphs: Mapping[int, Graph], job: TrainingJob
) -> Iterator[tuple[int, ShortTraining, float]]:
    """In place of `train_all`: a tenth of the loss depends on seed and length."""
    for number, graph in graphs.items():
        loss = _share(graph.hash) + 0.1 * _share(f"{graph.hash}:{job.seed}:{len(job.batches)}")
        losses = (1 + loss,) * len(job.batches)
        yield number, ShortTraining(losses, Score(0.5, 1.0)), SECONDS * len(losses) / 2


def _share(text: str) -> float:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 16**8
