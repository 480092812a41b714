"""The short trainings that `ghnas search` is asked for."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ghnas.cli import options
from ghnas.cli.ghns import SIZES, Given
from ghnas.cli.objectives import SHORT_TRAININGS
from ghnas.cli.terminal import Meter, meter, say, say_compiling
from ghnas.utils.errors import UserError

if TYPE_CHECKING:
    from ghnas.engine.manifest import ShortList
    from ghnas.engine.objectives import ImageObjective
    from ghnas.engine.run import Run
    from ghnas.engine.stages.short_list import TrainingProgress
    from ghnas.engine.stages.training_jobs import TrainingJob
    from ghnas.engine.stages.training_plan import TrainingPlan

STARTS = {"ghn": "predicted weights", "kaiming": "Kaiming initialisation"}


def asked_trainings(asked: Given) -> dict[str, Any]:
    """What the command line says of trainings, by the fields of `ShortList`.

    Raises:
        UserError: If options exclude each other, or the start is none.
    """
    if "train" in asked and "train_time" in asked:
        raise UserError("--train says how many, --time for how long: give one of them")
    if asked.get("train_from", "ghn") not in STARTS:
        raise UserError(f"--train-from is ghn or kaiming, not {asked['train_from']!r}")
    found = options.given(
        count=asked.get("train"),
        seconds=asked.get("train_time"),
        steps=asked.get("train_steps"),
        epochs=asked.get("train_epochs"),
        cells=asked.get("train_cells"),
        start=asked.get("train_from"),
        mutate=asked.get("mutate"),
    )
    if "count" in found or "seconds" in found:  # the other one may stand in the manifest
        found = {"count": None, "seconds": None} | found
    if "epochs" in found and "steps" not in found:
        found["steps"] = None
    return found


def no_trainings(asked: Given) -> dict[str, Any]:
    """That none are wanted, of a process that joins a study.

    Raises:
        UserError: If the command line asks for some.
    """
    if asked_trainings(asked):
        raise UserError(
            "processes that join a study do not train candidates: when it is full, let one of them "
            "do it, with ghnas search --resume --train 32"
        )
    return {"count": 0}


def new_trainings(objectives: Sequence[str], shortened: dict[str, Any]) -> ShortList | None:
    """The trainings of a new run, None for none.

    Raises:
        UserError: If they are asked for, and there are several objectives.
    """
    from ghnas.engine.manifest import ShortList
    from ghnas.engine.search import check_one_objective

    if not {"count", "seconds"} & shortened.keys():
        count = SHORT_TRAININGS if len(objectives) == 1 else 0
        shortened = {"count": count, **shortened}
    if shortened["count"] == 0:
        return None
    check_one_objective(objectives)
    return ShortList(**shortened)


def wanted_trainings(run: Run, shortened: dict[str, Any]) -> ShortList | None:
    """The trainings that a run is to have after this call, None for no more than it has."""
    from ghnas.engine.manifest import ShortList

    started = run.manifest.short_list or ShortList()
    wanted = started.model_copy(update=shortened)
    return wanted if wanted.count or wanted.seconds else None


def train_candidates(
    out: Console, run: Run, objective: ImageObjective, wanted: ShortList, results: Path
) -> None:
    """Give candidates a short training: first what it takes, then a meter."""
    from ghnas.engine.stages.short_list import train_short_list
    from ghnas.engine.stages.training_jobs import steps_of_epoch, training_job
    from ghnas.engine.stages.training_plan import plan_of
    from ghnas.reports.commands import as_words, training_options

    plan = plan_of(wanted, steps_of_epoch(objective.data))
    job = training_job(run, objective, plan.steps[0], wanted.cells, wanted.start)
    if job.device.type == "cpu":
        say_compiling(out, "execute", "differentiate")
    _announce(out, run, job, plan)
    again = f"{run.name} {as_words(training_options(wanted))}"
    kept = f": what was trained is kept in {run.path}\n{go_on(again, results)}"
    with meter(out, "trained", kept) as shown:
        scorer = objective if wanted.mutate else None
        train_short_list(run, job, plan, lambda progress: _report(shown, progress), scorer)


def _announce(out: Console, run: Run, job: TrainingJob, plan: TrainingPlan) -> None:
    """What will be trained, and how long it takes."""
    from ghnas.engine.stages.short_list import estimate_seconds
    from ghnas.reports.numbers import format_seconds
    from ghnas.reports.tables import describe_skeleton

    count, seconds = estimate_seconds(run, job, plan)
    skeleton = job.space.skeleton
    size = describe_skeleton({key: skeleton[key] for key in SIZES if key in skeleton})
    size = f": {size}" if size else ""
    start = f"from {STARTS[job.start]}"
    say(out, f"training {count} candidates for {plan.steps[0]:,} steps each, {start}{size}")
    longer = [
        f"the best {kept} again for {steps:,} steps"
        for kept, steps in zip(plan.survivors(count)[1:], plan.steps[1:], strict=True)
    ]
    if twice := plan.twice(count):
        longer.insert(0, f"{twice} a second time, to see how much two trainings differ")
    if longer:
        say(out, f"then {', then '.join(longer)}: {plan.trainings(count)} trainings in all")
    side_by_side = f", {job.side_by_side} side by side" if job.side_by_side > 1 else ""
    say(out, f"this takes about {format_seconds(seconds)}{side_by_side}")


def _report(shown: Meter, progress: TrainingProgress) -> None:
    left = progress.total - progress.done
    # trainings are not equally long: the rate that ends when the remaining steps do
    rate = left / progress.eta if progress.eta else None
    shown.update(progress.done, progress.total, progress.doing, rate)


def go_on(run: str, results: Path) -> str:
    """The command that goes on with a run."""
    return f"go on with: ghnas search --resume {run}{results_option(results)}"


def results_option(results: Path) -> str:
    """The option that finds the results folder again, for a command to be printed."""
    return "" if results == options.DEFAULT_RESULTS else f" --results {shlex.quote(str(results))}"
