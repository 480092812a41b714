"""Ground truth: architectures of a space trained from scratch, each from several seeds."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ghnas.architectures.architecture import Architecture
from ghnas.architectures.graph import Graph
from ghnas.data import ImageData, LabelledImages
from ghnas.executors.fused import compile_gradients
from ghnas.spaces import Space
from ghnas.training.populations import POPULATION, train_together_from_scratch
from ghnas.training.sgd import (
    SGDSettings,
    measure_accuracies,
    measure_accuracy,
    train_from_scratch,
)
from ghnas.utils.errors import UserError
from ghnas.utils.processes import LocalPool, Pool
from ghnas.utils.statistics import Estimate, Values, ceiling, ceiling_of_mean, seed_noise
from ghnas.utils.tables import Row, RowFile

COLUMNS = (
    "architecture", "seed", "validation_accuracy", "test_accuracy", "parameters", "flops",
    "seconds",
)  # fmt: skip
"""Of a file of ground truth; accuracies in [0, 1], FLOPs are multiply-adds x 2."""

SHIFT = 1
"""Most pixels by which a training image is moved each way."""

ATTEMPTS = 1000
"""Draws without a new architecture after which a space is said to have no more."""


@dataclass(frozen=True)
class GroundTruthJob:
    """What to train.

    Args:
        space: With its skeleton.
        data: Training images are trained on, validation images measured.
        test: Test images to measure too, or None.
        architectures: In the space's notation.
        seeds: Trainings of each.
        drawn: Where the architectures come from, for the record.
        output: The CSV file.
        pool: Whose workers train on a CPU, one torch thread each.
        steps: Updates of each training.
        batch_size: Images in a step.
        sgd: How to train.
        device: Where; on a GPU those of one seed train as a population.
    """

    space: Space
    data: ImageData
    test: LabelledImages | None
    architectures: Sequence[str]
    seeds: int
    drawn: str
    output: Path
    pool: Pool = field(default_factory=lambda: LocalPool(1))
    steps: int = 500
    batch_size: int = 64
    sgd: SGDSettings = field(default_factory=SGDSettings)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True)
class GroundTruthProgress:
    """How far it is: trainings done of all, the seconds and the accuracy of the last one."""

    done: int
    total: int
    seconds: float
    accuracy: float


@dataclass(frozen=True)
class GroundTruthSummary:
    """What the trainings say.

    Args:
        architectures: That were trained from every seed.
        seeds: Of each.
        mean, best, worst: Accuracy, averaged over seeds.
        between_architectures: Standard deviation of that average.
        between_seeds: Standard deviation of the trainings of one architecture.
        ceiling: Spearman between seeds.
        ceiling_of_mean: The most that a score can correlate with the average over seeds.
    """

    architectures: int
    seeds: int
    mean: float
    best: float
    worst: float
    between_architectures: float
    between_seeds: float
    ceiling: Estimate
    ceiling_of_mean: float


def draw_architectures(
    space: Space, image_shape: tuple[int, ...], classes: int, count: int, seed: int
) -> list[str]:
    """Random architectures, no two of which are isomorphic, in the space's notation.

    A larger count gives the same ones first.

    Raises:
        UserError: If the space has not so many.
    """
    rng = random.Random(f"truth:{seed}")
    found: dict[str, str] = {}
    failures = 0
    while len(found) < count:
        candidate: Architecture = space.sample(rng)
        key = candidate.for_images(image_shape, classes).graph.hash
        failures = failures + 1 if key in found else 0
        if failures > ATTEMPTS:
            raise UserError(f"space {space.name!r} has {len(found)} architectures, not {count}")
        found.setdefault(key, str(candidate))
    return list(found.values())


def make_ground_truth(
    job: GroundTruthJob, report: Callable[[GroundTruthProgress], None]
) -> list[Row]:
    """Train what is not trained yet; a row is written as each training ends.

    Args:
        job: What to train.
        report: Called before the first training and after each.

    Returns:
        A row for each architecture and seed, all seeds of an architecture after each other.

    Raises:
        UserError: If the file was made with other settings, or a process was ended from outside.
    """
    wanted = [(name, seed) for name in job.architectures for seed in range(1, job.seeds + 1)]
    with RowFile(job.output, COLUMNS, settings(job)) as file:
        known = {_key(row) for row in file.rows}
        missing = [key for key in wanted if key not in known]
        done, total = len(wanted) - len(missing), len(wanted)
        report(GroundTruthProgress(done, total, 0.0, float("nan")))
        train = train_side_by_side if job.device.type == "cpu" else train_populations
        with closing(train(job, missing)) as rows:
            for row in rows:
                file.append([row])
                done += 1
                report(GroundTruthProgress(done, total, row["seconds"], row["validation_accuracy"]))
        place = {key: index for index, key in enumerate(wanted)}
        file.sort(lambda row: place.get(_key(row), len(place)))
        by_key = {_key(row): row for row in file.rows}
    return [by_key[key] for key in wanted]


def settings(job: GroundTruthJob) -> dict[str, Any]:
    """What trainings in one file must agree in."""
    return {
        "space": job.space.name,
        "skeleton": dict(job.space.skeleton),
        "data": job.data.name,
        "data_fingerprint": job.data.fingerprint,
        "image_size": job.data.image_shape[-1],
        "drawn": job.drawn,
        "test": job.test is not None,
        "recipe": {
            "steps": job.steps,
            "learning_rate": job.sgd.learning_rate,
            "batch_size": job.batch_size,
            "weight_decay": job.sgd.weight_decay,
            "shift": SHIFT,
        },
    }


def _key(row: Row) -> tuple[str, int]:
    return row["architecture"], int(row["seed"])


def train_side_by_side(
    job: GroundTruthJob, missing: Sequence[tuple[str, int]]
) -> Generator[dict[str, Any]]:
    """On a CPU: a row for each architecture and seed, as they are finished."""
    if missing:
        compile_gradients()  # once, before the processes start
    with job.pool.start(partial, _train_one, job, tasks=len(missing), gradients=True) as workers:
        yield from workers.as_completed(missing)


def train_populations(
    job: GroundTruthJob, missing: Sequence[tuple[str, int]]
) -> Generator[dict[str, Any]]:
    """On a GPU: a row for each architecture and seed; those of one seed train together."""
    for seed in sorted({seed for _, seed in missing}):
        names = [name for name, own in missing if own == seed]
        for start in range(0, len(names), POPULATION):
            began, some = time.process_time(), names[start : start + POPULATION]
            graphs = [_graph(job, name) for name in some]
            population = train_together_from_scratch(
                graphs, job.data, job.steps, seed, job.device, job.batch_size, SHIFT, job.sgd
            )
            seconds = (time.process_time() - began) / len(some)
            splits = [job.data.validation, job.test]
            accuracies = [
                [None] * len(some)
                if split is None
                else measure_accuracies(population.logits, split, job.data, job.device)
                for split in splits
            ]
            for name, graph, *found in zip(some, graphs, *accuracies, strict=True):
                yield _row(name, seed, graph, seconds, *found)


def _train_one(job: GroundTruthJob, architecture: str, seed: int) -> dict[str, Any]:
    """One training: a row."""
    data, graph = job.data, _graph(job, architecture)
    began = time.process_time()
    network = train_from_scratch(graph, data, job.steps, seed, job.batch_size, SHIFT, job.sgd)
    seconds = time.process_time() - began
    validation = measure_accuracy(network, data.validation, data)
    test = None if job.test is None else measure_accuracy(network, job.test, data)
    return _row(architecture, seed, graph, seconds, validation, test)


def _graph(job: GroundTruthJob, architecture: str) -> Graph:
    shape, classes = job.data.image_shape, job.data.num_classes
    return job.space.parse(architecture).for_images(shape, classes).graph


def _row(
    architecture: str,
    seed: int,
    graph: Graph,
    seconds: float,
    validation: float | None,
    test: float | None,
) -> dict[str, Any]:
    assert validation is not None
    return {
        "architecture": architecture,
        "seed": seed,
        "validation_accuracy": round(validation, 6),
        "test_accuracy": "" if test is None else round(test, 6),
        "parameters": graph.parameter_count,
        "flops": graph.flops,
        "seconds": round(seconds, 2),
    }


def accuracies_by_seed(rows: Sequence[Row], column: str) -> tuple[list[str], Values]:
    """Architectures and their accuracies (seeds, architectures).

    Architectures that lack a seed that others have are left out.

    Raises:
        UserError: If an accuracy is not a number.
    """
    table: dict[str, dict[str, float]] = {}
    for row in rows:
        try:
            accuracy = float(row[column])
        except ValueError as error:
            raise UserError(
                f"column {column!r} of {row['architecture']} holds {row[column]!r}, not a number"
            ) from error
        table.setdefault(row["architecture"].strip(), {})[row.get("seed", "")] = accuracy
    seeds = sorted({seed for values in table.values() for seed in values})
    whole = {name: values for name, values in table.items() if len(values) == len(seeds)}
    matrix = np.array([[values[seed] for values in whole.values()] for seed in seeds])
    return list(whole), matrix.reshape(len(seeds), len(whole))


def summarise_ground_truth(by_seed: Values) -> GroundTruthSummary:
    """What the trainings say; see `accuracies_by_seed` for the shape."""
    seeds, count = by_seed.shape
    mean = by_seed.mean(axis=0)
    agreement = ceiling(by_seed)
    return GroundTruthSummary(
        architectures=count,
        seeds=seeds,
        mean=float(mean.mean()),
        best=float(np.max(mean)),
        worst=float(np.min(mean)),
        between_architectures=float(mean.std(ddof=1)) if count > 1 else float("nan"),
        between_seeds=seed_noise(by_seed),
        ceiling=agreement,
        ceiling_of_mean=ceiling_of_mean(agreement.value, seeds),
    )
