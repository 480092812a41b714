"""`ghnas search`: the main job."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ghnas.cli import options
from ghnas.cli.terminal import Meter, Pace, console, meter, print_json, say
from ghnas.utils.errors import UserError

if TYPE_CHECKING:
    import torch

    from ghnas.engine.manifest import Manifest
    from ghnas.engine.objectives import ZeroShot
    from ghnas.engine.progress import SearchProgress
    from ghnas.engine.run import Run

EXAMPLE = "Example: ghnas search --space darts --budget 10000 --max-params 40k"
BUDGET, SCORE_IMAGES, KEEP, BEST, REFINE_STEPS, SHORT_LIST = 1000, 512, 100, 10, 100, 20


SIZES = ("cells", "channels")
"""Settings of a skeleton that say how large a network is."""

Given = dict[str, Any]
"""The options that the command line gives, by the names of `search`'s parameters."""


def search(
    context: typer.Context,
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="With --resume: the run to go on with."),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            "--space",
            metavar="NAME|FILE",
            help="A search space, or a YAML file.",
            show_default="darts",
        ),
    ] = None,
    budget: Annotated[
        int | None,
        options.number_option("--budget", "Candidates to score.", show_default=str(BUDGET)),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            "--sampler",
            "--strategy",
            metavar="NAME",
            help="random, evolution, tpe or nsga2.",
            show_default="random",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="NAME|DIR",
            help="embedded, cifar10, a folder of images by class, or a folder of parquet files.",
            show_default="embedded",
        ),
    ] = None,
    ghn: options.GHN = None,
    seed: Annotated[
        int | None,
        options.number_option("--seed", "Equal seeds give equal runs.", 0, show_default="0"),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            "--objective",
            metavar="LIST",
            help="accuracy or composite, alone or with params or flops: accuracy,params.",
            show_default="what the space's file says",
        ),
    ] = None,
    max_params: Annotated[
        int | None, options.number_option("--max-params", "Most parameters, such as 40k or 1.5M.")
    ] = None,
    max_flops: Annotated[
        int | None,
        options.number_option("--max-flops", "Most FLOPs (multiply-adds x 2), such as 20M."),
    ] = None,
    cells: options.Cells = None,
    channels: options.Channels = None,
    device: options.Device = "auto",
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            metavar="URL",
            help="Optuna storage, such as sqlite:///nas.db.",
            show_default="a file in the run",
        ),
    ] = None,
    results: options.Results = options.DEFAULT_RESULTS,
    score_images: Annotated[
        int | None,
        options.number_option(
            "--score-images", "Validation images for a score.", show_default=str(SCORE_IMAGES)
        ),
    ] = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", help="Score every candidate on all images; default: drop poor ones early."
        ),
    ] = False,
    refine: Annotated[
        int | None,
        options.number_option(
            "--refine",
            "After the search, give the N best a short training and order them by their loss.",
            show_default="none",
        ),
    ] = None,
    refine_steps: Annotated[
        int | None,
        options.number_option(
            "--refine-steps", "SGD steps of each, of 64 images.", show_default=str(REFINE_STEPS)
        ),
    ] = None,
    refine_cells: Annotated[
        int | None,
        options.number_option(
            "--refine-cells",
            "Depth of the networks that are trained.",
            most=200,
            show_default="as in the space's file",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with RUN, or with the latest run.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Search a space: sample candidates, predict their weights, score and rank them."""
    from ghnas.utils.devices import pick_device

    given = {key: value for key, value in context.params.items() if value not in (None, False)}
    out = console(json)
    place = pick_device(device)
    if resume:
        found, zero_shot = _continue(out, results, run, given, place)
    elif run is not None:
        raise UserError(f"unexpected {run!r}: name a run with --resume only")
    else:
        found, zero_shot = _start(out, results, given, place)
    _search(out, found, zero_shot, results)
    wanted = found.manifest.short_list
    if count := refine or (wanted.count if wanted else 0):
        steps = refine_steps or (wanted.steps if wanted else REFINE_STEPS)
        depth = refine_cells or (wanted.cells if wanted else None)
        _train_short_list(out, found, zero_shot, results, count, steps, depth)
    _summarise(out, found, results)
    if json:
        print_json(_as_dict(found))


def _start(out: Console, results: Path, given: Given, device: torch.device) -> tuple[Run, ZeroShot]:
    """A new run for what was asked."""
    from ghnas.cli.loading import data_source, load_skeleton, prepare, skeleton_for
    from ghnas.engine.manifest import ShortList, Sources
    from ghnas.engine.objectives import ZeroShot, check_objectives
    from ghnas.engine.samplers import check_sampler
    from ghnas.engine.search import check_one_objective, start_run

    name, cells, channels = given.get("space", "darts"), given.get("cells"), given.get("channels")
    space = load_skeleton(name, cells, channels)
    sampler = given.get("sampler", "random")
    objectives = check_objectives(given.get("objective", space.objective).split(","))
    check_sampler(sampler)  # before anything is loaded
    short_list = None
    if "refine" in given:
        check_one_objective(objectives)
        steps = given.get("refine_steps", REFINE_STEPS)
        short_list = ShortList(count=given["refine"], steps=steps, cells=given.get("refine_cells"))
    source = data_source(given.get("data", "embedded"))
    prepared = prepare(out, space, name, source, given.get("ghn"))
    space = skeleton_for(out, name, cells, channels, prepared.ghn.info)
    objective = ZeroShot(
        prepared.ghn,
        prepared.data,
        objectives=objectives,
        images=given.get("score_images", SCORE_IMAGES),
        keep=None if "exact" in given else KEEP,
        device=device,
    )
    run = start_run(
        results,
        space,
        objective,
        given.get("budget", BUDGET),
        sampler=sampler,
        seed=given.get("seed", 0),
        max_parameters=given.get("max_params"),
        max_flops=given.get("max_flops"),
        storage=given.get("storage"),
        sources=Sources(data=source, ghn=prepared.ghn.info.path),
        short_list=short_list,
        space_name=name,
    )
    return run, objective


def _continue(
    out: Console, results: Path, name: str | None, given: Given, device: torch.device
) -> tuple[Run, ZeroShot]:
    """An earlier run, with what it was started with."""
    from ghnas.engine.runs import find_run
    from ghnas.engine.stages.inputs import load_inputs, zero_shot

    run = find_run(results, name)
    _check_same(run.name, run.manifest, given)
    with meter(out, "images") as shown:
        ghn, data = load_inputs(run, shown.update)
    return run, zero_shot(run, ghn, data, device)


def _check_same(name: str, manifest: Manifest, given: Given) -> None:
    """Options given beside --resume must be those of the run."""
    from ghnas.cli.loading import data_source
    from ghnas.engine.objectives import check_objectives
    from ghnas.ghn.checkpoint import list_ghns

    started = {
        "space": manifest.space,
        "budget": manifest.budget,
        "sampler": manifest.sampler,
        "data": manifest.sources.data,
        "ghn": Path(manifest.sources.ghn or ""),
        "seed": manifest.seed,
        "objective": ",".join(manifest.objectives),
        "max_params": manifest.max_parameters,
        "max_flops": manifest.max_flops,
        "cells": manifest.skeleton.get("cells"),
        "channels": manifest.skeleton.get("channels"),
        "storage": manifest.storage,
        "score_images": manifest.objective.get("images"),
        "exact": manifest.objective.get("keep") is None,
    }
    meant: dict[str, Callable[[Any], Any]] = {
        "data": data_source,
        "ghn": lambda path: list_ghns().get(str(path), path).resolve(),
        "objective": lambda text: ",".join(check_objectives(text.split(","))),
    }
    for key, value in started.items():
        asked = meant.get(key, lambda same: same)(given[key]) if key in given else value
        if asked != value:
            option = "--" + key.replace("_", "-")
            raise UserError(
                f"run {name} was started with {option} {value}, not {asked}: "
                f"leave {option} out to go on, or start a new run without --resume"
            )


def _search(out: Console, run: Run, objective: ZeroShot, results: Path) -> None:
    """Search until the budget is spent, with a meter."""
    from ghnas.engine.search import search_run
    from ghnas.executors.fused import are_compiled
    from ghnas.reports.tables import format_seconds

    manifest, before = run.manifest, len(run.study().get_trials(deepcopy=False))
    if before >= manifest.budget:
        say(out, f"run {run.name}: all {manifest.budget:,} candidates are scored")
        return
    if objective.device.type == "cpu" and not are_compiled():
        say(out, "compiling the kernels for this machine, once: about 20 s")
    going_on = f", going on after {before:,}" if before else ""
    what = f"{manifest.budget:,} candidates of {manifest.space}, sampler {manifest.sampler}"
    say(out, f"run {run.name}: {what}{going_on}")
    if "composite" in manifest.objectives:
        say(out, "first, random architectures to compare with")
        with meter(out, "for comparison") as shown:
            pace = Pace()
            objective.prepare(
                run.space, lambda done, total: shown.update(done, total, "", pace.rate(done))
            )
    began = time.monotonic()
    try:
        with meter(out, "candidates") as shown:
            search_run(run, objective, lambda progress: _report(shown, progress))
    except KeyboardInterrupt:
        kept = f"{len(run.study().get_trials(deepcopy=False)):,} of {manifest.budget:,} candidates"
        say(out, f"\ninterrupted: {kept} are kept in {run.path}")
        say(out, f"go on with: ghnas search --resume {run.name}{_results_option(results)}")
        raise
    took = format_seconds(time.monotonic() - began)
    say(out, f"{manifest.budget - before:,} candidates in {took}")


def _report(shown: Meter, progress: SearchProgress) -> None:
    from ghnas.reports.tables import format_percent

    note = f"best {format_percent(progress.best)}"
    if progress.finishing:
        note = "finishing what is being scored; Ctrl-C again to drop it"
    shown.update(progress.done, progress.budget, note, progress.rate)


def _train_short_list(
    out: Console,
    run: Run,
    objective: ZeroShot,
    results: Path,
    count: int,
    steps: int,
    cells: int | None,
) -> None:
    """Give the best candidates a short training, with a meter."""
    from ghnas.engine.stages.short_list import short_list_job, train_short_list
    from ghnas.reports.tables import describe_skeleton

    job = short_list_job(run, objective, steps, cells)
    skeleton = job.space.skeleton
    size = describe_skeleton({key: skeleton[key] for key in SIZES if key in skeleton})
    say(out, f"training the {count} best for {steps} steps each: {size}")
    try:
        with meter(out, "trained") as shown:
            pace = Pace()
            train_short_list(
                run, job, count,
                lambda done, total: shown.update(done, total, "", pace.rate(done)),
            )  # fmt: skip
    except KeyboardInterrupt:
        say(out, f"\ninterrupted: what was trained is kept in {run.path}")
        again = f"{run.name} --refine {count} --refine-steps {steps}"
        depth = f" --refine-cells {cells}" if cells else ""
        say(out, f"go on with: ghnas search --resume {again}{depth}{_results_option(results)}")
        raise


def _results_option(results: Path) -> str:
    """The option that finds the results folder again, for a command to be printed."""
    return "" if results == options.DEFAULT_RESULTS else f" --results {shlex.quote(str(results))}"


def _summarise(out: Console, run: Run, results: Path) -> None:
    """The best candidates, where everything is, and what to do next."""
    from ghnas.reports.tables import ranking_table

    say(out, "")
    best = run.ranked(BEST)
    out.print(ranking_table(run, best))
    say(out, f"everything is in {run.path}")
    say(out, f"in the browser:   optuna-dashboard {shlex.quote(run.storage_url)}")
    if len(run.manifest.objectives) == 1 and all(item.short_training is None for item in best):
        again = f"ghnas search --resume --refine {SHORT_LIST}{_results_option(results)}"
        say(out, f"a better order:   {again}")
    say(out, f"next:             ghnas finetune top-5{_results_option(results)}")


def _as_dict(run: Run) -> dict[str, Any]:
    """The result for programs."""
    return {
        "run": run.name,
        "path": str(run.path),
        "storage": run.storage_url,
        "manifest": run.manifest.model_dump(mode="json"),
        "best": [item.as_dict(run.manifest.objectives) for item in run.ranked(BEST)],
    }
