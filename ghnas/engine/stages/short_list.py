"""The second stage of a search: a short training of candidates that a predictor chooses.

A zero-shot score sees a small network at one point; a short training at full depth sees how fast
the architecture learns. It costs as much as hundreds of zero-shot scores, so that only a few
candidates have one. The first are the best by the score of the search, zero-shot or a proxy, and
as many at random; from then on a predictor that is fitted to what was observed chooses among all
candidates (`ghnas.engine.samplers.PredictorSearch`). Scores are features of the predictor and a
source of starters, never a filter: where they say nothing about accuracy, they decide nothing.
Mutations of the best may join the candidates. A few of the random ones are trained a second time,
which tells the noise of a training; the best are trained longer, if the plan says so.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count

import optuna

from ghnas.architectures.architecture import Architecture
from ghnas.architectures.graph import Graph
from ghnas.engine.objectives import Objective
from ghnas.engine.order import make_order, write_order, zero_shot_scores
from ghnas.engine.run import SHORT_LIST, Run
from ghnas.engine.samplers import PredictorSearch
from ghnas.engine.search import check_one_objective
from ghnas.engine.stages.mutations import Mutations
from ghnas.engine.stages.training_jobs import TrainingJob, seconds_of_training, train_all
from ghnas.engine.stages.training_plan import TrainingPlan, measured
from ghnas.engine.storage import writing
from ghnas.engine.trainings import (
    TrainingRecord,
    first_outcomes,
    frozen_training,
    quality,
    read_trainings,
)
from ghnas.engine.trials import Trial, rank_trials
from ghnas.utils.errors import UserError
from ghnas.utils.statistics import Values

STARTERS = 4
"""Of the best by the score, before the predictor knows anything."""


@dataclass(frozen=True)
class TrainingProgress:
    """How far the trainings of a run are.

    Args:
        done: Trainings recorded, those of earlier calls included.
        total: All, by what is known now.
        doing: What is being done, in a few words; empty for the first training of candidates.
        eta: Seconds to go; None while nothing was measured.
    """

    done: int
    total: int
    doing: str = ""
    eta: float | None = None


Report = Callable[[TrainingProgress], None]


def train_short_list(
    run: Run,
    job: TrainingJob,
    plan: TrainingPlan,
    report: Report,
    objective: Objective | None = None,
) -> None:
    """Train candidates of a run as a plan says, and keep what comes out.

    Which ones depends on the run and on what was observed alone, so that an interrupted stage goes
    on as if it had not been, and a larger count adds to a smaller one. Each training is a trial of
    the study `<run>-short-list`, with its training loss as intermediate values; one that is
    finished is never done again. `Run.ranked` puts what was trained first from then on, see
    `ghnas.engine.order`.

    Args:
        run: With one objective.
        job: How networks are trained; its number of steps is the plan's to say.
        plan: How many, and how long.
        report: Called before the first training and after each.
        objective: The one that the run was started with: scores mutations of the best, which join
            the candidates before each batch, as further trials of the search. None: there are none.

    Raises:
        UserError: If the run has several objectives, its short list was trained in another way,
            another process searches in it, a training process was ended from outside, or the
            disk is full. What was finished by then is kept.
    """
    check_one_objective(run.manifest.objectives)
    with run.locked():
        stage = _Stage(run, job, plan, report, objective)
        stage.train_chosen()
        stage.train_twice()
        stage.train_best_longer()
        order = make_order(run.space, list(stage.trials.values()), stage.records)
        if order is not None:
            with writing(run.path):
                write_order(run.path, order)


def estimate_seconds(run: Run, job: TrainingJob, plan: TrainingPlan) -> tuple[int, float]:
    """How many candidates a plan will train, and how long all of it takes: what is left to do.

    From what was recorded, or else from some steps of two candidates.

    Args:
        run, job, plan: As in `train_short_list`.

    Returns:
        Candidates, and seconds.
    """
    records = run.trainings()
    pool, _ = _candidates(run)
    step = measured(records, job.side_by_side) or _probe(job, plan, pool)
    count = plan.goal(len(pool), step)
    left = plan.all_steps(count) - sum(record.steps for record in records)
    return count, max(left, 0) * step


def _probe(job: TrainingJob, plan: TrainingPlan, pool: Sequence[Trial]) -> float:
    """Seconds of a step, the evaluation at the end included, divided by the trainings that run
    side by side."""
    graphs = [_graph(job, trial) for trial in (pool[0], pool[len(pool) // 2])]
    step, beside = seconds_of_training(graphs, job)
    return (step + beside / plan.steps[0]) / job.side_by_side


class _Stage:
    """A run's trainings: what is recorded, and what is left to do."""

    def __init__(
        self,
        run: Run,
        job: TrainingJob,
        plan: TrainingPlan,
        report: Report,
        objective: Objective | None,
    ) -> None:
        self.run, self.job, self.plan, self.report = run, job, plan, report
        self.study = _open_study(run, job, plan)
        searched, joined = _candidates(run)
        self.trials = {trial.number: trial for trial in (*searched, *joined)}
        self.records = read_trainings(self.study.get_trials(deepcopy=False))
        self.known = {(item.trial, item.steps, item.repeat) for item in self.records}
        self.mutations = Mutations(run, objective) if objective else None
        self.sampler = self._sampler([trial.architecture for trial in searched])
        self.candidates = len(searched)
        self.first_batch = self._ask(0)
        self.count = 0
        """Candidates to train, as far as is known."""
        self._began, self._steps = time.monotonic(), 0

    def _sampler(self, pool: Sequence[Architecture]) -> PredictorSearch:
        """Chooses among candidates that are ordered by their score."""
        self.by_architecture = {trial.architecture: trial for trial in self.trials.values()}

        def scores(chosen: Sequence[Architecture]) -> Values:
            return zero_shot_scores([self.by_architecture[item] for item in chosen])

        return PredictorSearch(
            self.run.space,
            ("maximize",),
            pool=pool,
            admit=self._admit if self.mutations else None,
            starters=pool[:STARTERS],
            scores=scores,
        )

    def _admit(self, mutations: Sequence[Architecture]) -> list[Architecture]:
        assert self.mutations is not None
        admitted = self.mutations.admit(mutations)
        self.trials |= {trial.number: trial for trial in admitted}
        self.by_architecture |= {trial.architecture: trial for trial in admitted}
        return [trial.architecture for trial in admitted]

    @property
    def outcomes(self) -> Mapping[int, float]:
        """Of each candidate that was trained."""
        return first_outcomes(self.records)

    def train_chosen(self) -> None:
        """Ask, train and tell, a batch at a time; what is recorded is asked for again, and told."""
        step = measured(self.records, self.job.side_by_side)
        if step is None and self.plan.seconds is not None:
            step = _probe(self.job, self.plan, list(self.trials.values()))
        told: list[int] = []
        for number in count():
            # by earlier batches alone, so that an interrupted one is as large as it was to be
            step = self._seconds_of_step(told) or step or 0.0
            self.count = max(self.plan.goal(self.candidates, step), len(told))
            self._show("")
            known = self.outcomes
            if max(len(told), len(known)) >= self.count:
                return
            asked = self._ask(number) if number else self.first_batch
            left = [item for item in asked if item not in known]
            chosen = left[: self.count - len(known)]
            self._train(chosen, self.plan.steps[0])
            if len(chosen) < len(left):  # what the next batch is depends on whole ones
                return
            told += self._tell(asked)

    def _seconds_of_step(self, told: Sequence[int]) -> float | None:
        first = {(number, self.plan.steps[0], 0) for number in told}
        earlier = [r for r in self.records if (r.trial, r.steps, r.repeat) in first]
        return measured(earlier, self.job.side_by_side)

    def train_twice(self) -> None:
        """Train some of the first batch, of which the last are random, a second time."""
        first = [number for number in reversed(self.first_batch) if number in self.outcomes]
        self._train(first[: self.plan.twice(len(self.outcomes))], self.plan.steps[0], repeat=1)

    def train_best_longer(self) -> None:
        """Train the best of each length longer; see `TrainingPlan`."""
        survivors = self.plan.survivors(len(self.outcomes))
        lengths = zip(survivors[1:], self.plan.steps, self.plan.steps[1:], strict=False)
        for kept, before, steps in lengths:
            found = {r.trial: r.outcome for r in self.records if (r.steps, r.repeat) == (before, 0)}
            places = {number: place for place, number in enumerate(self.trials)}
            best = sorted(found, key=lambda number: (-found[number], places[number]))
            self._train(best[:kept], steps)

    def _ask(self, batch: int) -> list[int]:
        rng = random.Random(f"{self.run.manifest.seed}:{SHORT_LIST}:{batch}")
        asked = self.sampler.ask(self.sampler.batch_size, rng)
        return [self.by_architecture[item].number for item in dict.fromkeys(asked)]

    def _tell(self, asked: Sequence[int]) -> list[int]:
        """Tell the sampler of those that were trained; returns them."""
        outcomes = self.outcomes
        trained = [number for number in asked if number in outcomes]
        self.sampler.tell(
            [replace(self.trials[n].architecture, values=(outcomes[n],)) for n in trained]
        )
        return trained

    def _train(self, numbers: Sequence[int], steps: int, repeat: int = 0) -> None:
        """Train candidates that were not trained in this way, and record each."""
        left = [number for number in numbers if (number, steps, repeat) not in self.known]
        doing = "again" if repeat else "" if steps == self.plan.steps[0] else f"{steps:,} steps"
        graphs = {number: _graph(self.job, self.trials[number]) for number in left}
        with closing(train_all(graphs, self.job.of(steps, repeat))) as results:
            for number, training, seconds in results:
                record = TrainingRecord(number, steps, repeat, quality(training), round(seconds, 3))
                frozen = frozen_training(self.run.form, self.trials[number], record, training)
                with writing(self.run.study_path):
                    self.study.add_trial(frozen)
                self.records.append(record)
                self.known.add((number, steps, repeat))
                self._steps += steps
                self._show(doing)

    def _show(self, doing: str) -> None:
        """Report how far it is."""
        left = self.plan.all_steps(self.count) - sum(record.steps for record in self.records)
        total = max(self.plan.trainings(self.count), len(self.records))
        pace = (time.monotonic() - self._began) / self._steps if self._steps else None
        eta = None if pace is None else max(left, 0) * pace
        self.report(TrainingProgress(len(self.records), total, doing, eta))


def _open_study(run: Run, job: TrainingJob, plan: TrainingPlan) -> optuna.Study:
    """The stage's study; all its first trainings are alike."""
    study = run.study_beside(SHORT_LIST, "short_training", "maximize")
    way = {"steps": plan.steps[0], "skeleton": dict(job.space.skeleton), "start": job.start}
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


def _candidates(run: Run) -> tuple[list[Trial], list[Trial]]:
    """Those of the search, the best first; and those that joined it later, in their order."""
    ranked = rank_trials(run.study(), run.form)
    budget = run.manifest.budget
    joined = [trial for trial in ranked if trial.number >= budget]
    return (
        [trial for trial in ranked if trial.number < budget],
        sorted(joined, key=lambda trial: trial.number),
    )


def _graph(job: TrainingJob, trial: Trial) -> Graph:
    return job.space.architecture(trial.architecture.choices).graph
