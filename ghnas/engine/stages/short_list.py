"""The second stage of a search: its best candidates, given a short training and ordered by it.

A zero-shot score sees a small network at one point; a short training at full depth sees how fast
the architecture learns. It costs as much as hundreds of zero-shot scores, so that only a short
list is worth it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import torch
from optuna.trial import FrozenTrial

from ghnas.architectures.graph import Graph
from ghnas.architectures.network import kaiming
from ghnas.data import random_batches
from ghnas.engine.manifest import SHORT_TRAINING_STEPS
from ghnas.engine.objectives import ZeroShot
from ghnas.engine.run import SHORT_LIST, Run
from ghnas.engine.search import check_one_objective
from ghnas.engine.storage import writing
from ghnas.engine.trials import Trial, TrialFormat, rank_trials
from ghnas.executors.base import Parameters
from ghnas.executors.fused import compile_gradients
from ghnas.scoring.composite import FLOOR
from ghnas.scoring.evaluation import Batch
from ghnas.spaces import Space, parse_space
from ghnas.training.populations import POPULATION, train_together
from ghnas.training.sgd import SGDSettings
from ghnas.training.short import SETTINGS, ShortTraining, train_briefly
from ghnas.utils.devices import cores
from ghnas.utils.errors import UserError
from ghnas.utils.processes import Workers

BATCH = 64
"""Images of each step."""


def quality(refined: ShortTraining) -> float:
    """What a short list is ordered by, higher is better: minus the training loss, in nats.

    Of the second half of the steps, on the same images for all: see `ShortTraining.summed_loss`.
    """
    return -refined.summed_loss()


@dataclass(frozen=True)
class RefineJob:
    """How to train a short list.

    Args:
        space: The run's, with the skeleton to train.
        batches: Training images and labels, one for each step; all candidates see the same.
        checks: Validation images and labels.
        device: Where.
        workers: Processes on a CPU.
        seed: Of Kaiming initialisation.
        settings: How to train.
    """

    space: Space
    batches: Sequence[Batch]
    checks: Sequence[Batch]
    device: torch.device
    workers: int
    seed: int = 0
    settings: SGDSettings = SETTINGS


def short_list_job(
    run: Run, objective: ZeroShot, steps: int = SHORT_TRAINING_STEPS, cells: int | None = None
) -> RefineJob:
    """The short training of the best candidates of a run.

    Args:
        run: A zero-shot run.
        objective: The one that it was started with; its images are trained on, normalised as
            for the zero-shot scores.
        steps: SGD steps of each.
        cells: Of the networks that are trained; None: as many as in the space's file.
    """
    space, info, data = run.space, objective.ghn.info, objective.data
    file = parse_space(run.manifest.space_text, run.manifest.space)
    depth = cells or file.skeleton.get("cells")
    if isinstance(depth, int):
        space = space.with_skeleton(cells=depth)
    batches = random_batches(
        data.train, BATCH, seed=run.manifest.seed, device=objective.device,
        mean=info.mean or data.mean, std=info.std or data.std, mirror=data.mirror, shift=1,
    )  # fmt: skip
    return RefineJob(
        space,
        list(islice(batches, steps)),
        objective.batches(),
        objective.device,
        objective.workers or cores(),
        run.manifest.seed,
    )


def train_short_list(
    run: Run, job: RefineJob, count: int, report: Callable[[int, int], None]
) -> None:
    """Train the best candidates of a run that were not trained yet, and keep what comes out.

    `Run.ranked` puts them first from then on. Each is a trial of the study `<run>-refine`, with
    its training loss as intermediate values; one that is finished is never trained again.

    Args:
        run: With one objective.
        job: How.
        count: The best so many by the zero-shot score.
        report: Called with the candidates done and their number.

    Raises:
        UserError: If the run has several objectives, its short list was trained in another way,
            another process searches in it, a training process was ended from outside, or the
            disk is full. What was finished by then is kept.
    """
    check_one_objective(run.manifest.objectives)
    with run.locked():
        study = run.study_beside(SHORT_LIST, "short_training", "maximize")
        way = {"steps": len(job.batches), "skeleton": dict(job.space.skeleton)}
        for key, value in way.items():
            known = study.user_attrs.get(key, value)
            if known != value:
                raise UserError(
                    f"the short list of {run.name} was trained with {key} {known}, not {value}: "
                    "use the same again, or start a new search"
                )
            study.set_user_attr(key, value)
        best = rank_trials(run.study(), run.form)[:count]
        done_before = {trial.number for trial in run.ranked() if trial.short_training is not None}
        left = {trial.number: trial for trial in best if trial.number not in done_before}
        done = len(best) - len(left)
        report(done, len(best))
        shape, classes = run.manifest.image_shape, len(run.manifest.classes)
        space = job.space.for_images(shape, classes)
        graphs = {
            number: space.architecture(trial.architecture.choices).graph
            for number, trial in left.items()
        }
        with closing(train_all(graphs, job)) as results:
            for number, refined, seconds in results:
                with writing(run.study_path):
                    study.add_trial(_frozen(run.form, left[number], refined, seconds))
                done += 1
                report(done, len(best))


def train_all(
    graphs: Mapping[int, Graph], job: RefineJob
) -> Generator[tuple[int, ShortTraining, float]]:
    """Train networks from Kaiming initialisation, all on the same images.

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
    count = min(job.workers, len(graphs))
    with Workers(count, partial, _train_one, job, gradients=True) as workers:
        yield from workers.as_completed(graphs.items())


def _train_one(job: RefineJob, number: int, graph: Graph) -> tuple[int, ShortTraining, float]:
    began = time.monotonic()
    refined = train_briefly(graph, _initial(job, graph), job.batches, job.checks, job.settings)
    return number, refined, time.monotonic() - began


def _train_populations(
    graphs: Mapping[int, Graph], job: RefineJob
) -> Iterator[tuple[int, ShortTraining, float]]:
    """On a GPU many at a time."""
    items = list(graphs.items())
    for start in range(0, len(items), POPULATION):
        began, some = time.monotonic(), items[start : start + POPULATION]
        own = [graph for _, graph in some]
        weights = [_initial(job, graph) for graph in own]
        trained = train_together(own, weights, job.batches, job.checks, job.settings)
        seconds = (time.monotonic() - began) / len(some)
        for (number, _), refined in zip(some, trained, strict=True):
            yield number, refined, seconds


def _initial(job: RefineJob, graph: Graph) -> Parameters:
    initial = kaiming(graph, torch.Generator().manual_seed(job.seed))
    return {name: value.to(job.device) for name, value in initial.items()}


def _frozen(form: TrialFormat, trial: Trial, refined: ShortTraining, seconds: float) -> FrozenTrial:
    """The outcome, as a trial with the parameters of the search's own."""
    frozen = form.frozen(replace(trial, seconds=seconds))
    frozen.values = [max(quality(refined), FLOOR)]
    frozen.user_attrs |= {
        "trial": trial.number,
        "accuracy": refined.score.accuracy,
        "loss": refined.score.loss,
    }
    frozen.intermediate_values = {
        step: loss for step, loss in enumerate(refined.losses, start=1) if math.isfinite(loss)
    }
    return frozen
