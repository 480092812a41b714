"""The second stage of a search: a short training of candidates that a predictor chooses.

A zero-shot score sees a small network at one point; a short training at full depth sees how fast
the architecture learns. It costs as much as hundreds of zero-shot scores, so that only a few
candidates have one. The first are the best by the score of the search, zero-shot or a proxy, and
as many at random; from then on a predictor that is fitted to what was observed chooses among all
candidates (`ghnas.engine.samplers.PredictorSearch`). Scores are features of the predictor and a
source of starters, never a filter: where they say nothing about accuracy, they decide nothing.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Literal

import optuna
import torch
from optuna.trial import FrozenTrial

from ghnas.architectures.architecture import Architecture
from ghnas.architectures.graph import Graph
from ghnas.architectures.network import kaiming
from ghnas.data import ImageData, random_batches
from ghnas.engine.objectives import ImageObjective
from ghnas.engine.order import make_order, write_order, zero_shot_scores
from ghnas.engine.run import SHORT_LIST, Run
from ghnas.engine.samplers import PredictorSearch
from ghnas.engine.search import check_one_objective
from ghnas.engine.storage import writing
from ghnas.engine.trials import Trial, TrialFormat, rank_trials
from ghnas.executors.base import Parameters
from ghnas.executors.fused import compile_gradients
from ghnas.ghn.model import GHN
from ghnas.scoring.composite import FLOOR
from ghnas.scoring.evaluation import Batch
from ghnas.spaces import Space, parse_space
from ghnas.training.populations import POPULATION, train_together
from ghnas.training.sgd import SGDSettings
from ghnas.training.short import SETTINGS, ShortTraining, train_briefly
from ghnas.utils.devices import cores
from ghnas.utils.errors import UserError
from ghnas.utils.processes import Workers

Start = Literal["ghn", "kaiming"]
"""Where a training starts: from predicted weights, or from Kaiming initialisation."""
BATCH = 64
"""Images of each step."""
STARTERS = 4
"""Of the best by the score, before the predictor knows anything."""


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
        ghn: Trainings start from the weights that it predicts; None: from Kaiming initialisation.
    """

    space: Space
    batches: Sequence[Batch]
    checks: Sequence[Batch]
    device: torch.device
    workers: int
    seed: int = 0
    settings: SGDSettings = SETTINGS
    ghn: GHN | None = None

    @property
    def start(self) -> Start:
        """Where trainings start."""
        return "kaiming" if self.ghn is None else "ghn"


def steps_of_epoch(data: ImageData) -> int:
    """SGD steps that see each training image once."""
    return max(len(data.train) // BATCH, 1)


def short_list_job(
    run: Run,
    objective: ImageObjective,
    steps: int,
    cells: int | None = None,
    start: Start | None = None,
) -> RefineJob:
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
    batches = random_batches(
        data.train, BATCH, seed=run.manifest.seed, device=objective.device,
        mean=data.mean, std=data.std, mirror=data.mirror, shift=1,
    )  # fmt: skip
    return RefineJob(
        space,
        list(islice(batches, steps)),
        objective.batches(),
        objective.device,
        objective.workers or cores(),
        run.manifest.seed,
        ghn=None if start == "kaiming" else ghn,
    )


def train_short_list(
    run: Run, job: RefineJob, count: int, report: Callable[[int, int], None]
) -> None:
    """Train candidates of a run until so many have a short training, and keep what comes out.

    Which ones depends on the run and on what was observed alone, so that an interrupted stage goes
    on as if it had not been, and a larger count adds to a smaller one. Each is a trial of the
    study `<run>-short-list`, with its training loss as intermediate values; one that is finished
    is never trained again. `Run.ranked` puts them first from then on, see `ghnas.engine.order`.

    Args:
        run: With one objective.
        job: How.
        count: Candidates that are trained in the end.
        report: Called with the candidates done and their number.

    Raises:
        UserError: If the run has several objectives, its short list was trained in another way,
            another process searches in it, a training process was ended from outside, or the
            disk is full. What was finished by then is kept.
    """
    check_one_objective(run.manifest.objectives)
    with run.locked():
        study = _study(run, job)
        trials = {item.architecture: item for item in rank_trials(run.study(), run.form)}
        count = min(count, len(trials))
        outcomes = run.short_trainings()
        report(len(outcomes), max(count, len(outcomes)))
        if len(outcomes) < count:
            _train_chosen(run, job, study, trials, outcomes, count, report)
        order = make_order(run.space, list(trials.values()), outcomes)
        if order is not None:
            with writing(run.path):
                write_order(run.path, order)


def _study(run: Run, job: RefineJob) -> optuna.Study:
    """The stage's study; all its trainings are alike."""
    study = run.study_beside(SHORT_LIST, "short_training", "maximize")
    way = {"steps": len(job.batches), "skeleton": dict(job.space.skeleton), "start": job.start}
    # earlier versions knew one start, and did not write it down
    earlier = {"start": "kaiming"} if study.get_trials(deepcopy=False) else {}
    for key, value in way.items():
        known = study.user_attrs.get(key, earlier.get(key, value))
        if known != value:
            raise UserError(
                f"the short list of {run.name} was trained with {key} {known}, not {value}: "
                "use the same again, or start a new search"
            )
        study.set_user_attr(key, value)
    return study


def _train_chosen(
    run: Run,
    job: RefineJob,
    study: optuna.Study,
    trials: Mapping[Architecture, Trial],
    outcomes: dict[int, float],
    count: int,
    report: Callable[[int, int], None],
) -> None:
    """Ask, train and tell, a batch at a time; what is recorded is asked for again, and told. New
    outcomes are added to those that are given."""
    space = job.space.for_images(run.manifest.image_shape, len(run.manifest.classes))
    pool = list(trials)
    sampler = PredictorSearch(
        run.space,
        ("maximize",),
        pool=pool,
        starters=pool[:STARTERS],
        scores=lambda chosen: zero_shot_scores([trials[item] for item in chosen]),
    )
    batch = 0
    while len(outcomes) < count:
        rng = random.Random(f"{run.manifest.seed}:{SHORT_LIST}:{batch}")
        asked = [trials[item] for item in dict.fromkeys(sampler.ask(sampler.batch_size, rng))]
        left = [item for item in asked if item.number not in outcomes][: count - len(outcomes)]
        graphs = {item.number: space.architecture(item.architecture.choices).graph for item in left}
        by_number = {item.number: item for item in left}
        with closing(train_all(graphs, job)) as results:
            for number, refined, seconds in results:
                frozen = _frozen(run.form, by_number[number], refined, seconds)
                with writing(run.study_path):
                    study.add_trial(frozen)
                outcomes[number] = frozen.values[0]
                report(len(outcomes), count)
        known = [item for item in asked if item.number in outcomes]
        sampler.tell(
            [replace(item.architecture, values=(outcomes[item.number],)) for item in known]
        )
        batch += 1


def train_all(
    graphs: Mapping[int, Graph], job: RefineJob
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
    if job.ghn is not None:
        return job.ghn.predict_graphs([graph])[0]
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
