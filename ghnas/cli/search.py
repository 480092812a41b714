"""`ghnas search`: the main job."""

from __future__ import annotations

import random
import shlex
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ghnas.cli import options
from ghnas.cli.refining import refine_shortlist, results_option
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


@dataclass(frozen=True)
class Request:
    """What the command line asks for; None where it says nothing."""

    space: str | None
    budget: int | None
    sampler: str | None
    data: str | None
    ghn: Path | None
    seed: int | None
    objective: str | None
    max_params: int | None
    max_flops: int | None
    cells: int | None
    channels: int | None
    storage: str | None
    score_images: int | None
    exact: bool | None
    refine: int | None
    refine_steps: int | None
    refine_cells: int | None


def search(
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
            "After the search, train the N best for a moment and order them by their loss.",
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

    request = Request(
        space,
        budget,
        sampler,
        data,
        ghn,
        seed,
        objective,
        max_params,
        max_flops,
        cells,
        channels,
        storage,
        score_images,
        exact or None,
        refine,
        refine_steps,
        refine_cells,
    )
    out = console(json)
    place = pick_device(device)
    if resume:
        found, zero_shot = _continue(out, results, run, request, place)
    elif run is not None:
        raise UserError(f"unexpected {run!r}: name a run with --resume only")
    else:
        found, zero_shot = _start(out, results, request, place)
    _search(out, found, zero_shot, results)
    wanted = found.manifest.short_list
    if count := refine or (wanted.count if wanted else 0):
        steps = refine_steps or (wanted.steps if wanted else REFINE_STEPS)
        depth = refine_cells or (wanted.cells if wanted else None)
        refine_shortlist(out, found, zero_shot, results, count, steps, depth)
    _summarise(out, found, results)
    if json:
        print_json(_as_dict(found))


def _start(
    out: Console, results: Path, request: Request, device: torch.device
) -> tuple[Run, ZeroShot]:
    """A new run for what was asked."""
    from ghnas.cli.loading import data_source, load_skeleton, prepare, skeleton_for
    from ghnas.engine.constraints import Limits, require_feasible
    from ghnas.engine.manifest import ShortList, Sources
    from ghnas.engine.objectives import ZeroShot, check_objectives
    from ghnas.engine.run import create_run
    from ghnas.engine.runs import new_run_folder
    from ghnas.engine.samplers import check_sampler
    from ghnas.engine.search import check_one_objective, new_manifest

    space_name = request.space or "darts"
    space = load_skeleton(space_name, request.cells, request.channels)
    sampler = request.sampler or "random"
    objectives = check_objectives((request.objective or space.objective).split(","))
    check_sampler(sampler)  # before anything is loaded
    if request.refine:
        check_one_objective(objectives)
    source = data_source(request.data or "embedded")
    prepared = prepare(out, space, space_name, source, request.ghn)
    space = skeleton_for(out, space_name, request.cells, request.channels, prepared.ghn.info)
    objective = ZeroShot(
        prepared.ghn,
        prepared.data,
        objectives=objectives,
        images=request.score_images or SCORE_IMAGES,
        keep=None if request.exact else KEEP,
        device=device,
    )
    space = objective.space_for(space)
    limits = Limits(request.max_params, request.max_flops)
    if limits:  # or a run without candidates would stay behind
        require_feasible(space, limits, random.Random(request.seed or 0))
    short_list = None
    if request.refine:
        steps = request.refine_steps or REFINE_STEPS
        short_list = ShortList(count=request.refine, steps=steps, cells=request.refine_cells)
    manifest = new_manifest(
        space,
        objective,
        request.budget or BUDGET,
        sampler=sampler,
        seed=request.seed or 0,
        max_parameters=request.max_params,
        max_flops=request.max_flops,
        storage=request.storage,
        sources=Sources(data=source, ghn=prepared.ghn.info.path),
        short_list=short_list,
        space_name=space_name,
    )
    return create_run(new_run_folder(results, space.name, sampler), manifest), objective


def _continue(
    out: Console, results: Path, name: str | None, request: Request, device: torch.device
) -> tuple[Run, ZeroShot]:
    """An earlier run, with what it was started with."""
    from ghnas.engine.runs import find_run
    from ghnas.engine.stages.inputs import load_inputs, zero_shot

    run = find_run(results, name)
    _check_same(run.name, run.manifest, request)
    with meter(out, "images") as shown:
        ghn, data = load_inputs(run, shown.update)
    return run, zero_shot(run, ghn, data, device)


def _check_same(name: str, manifest: Manifest, request: Request) -> None:
    """Options given beside --resume must be those of the run."""
    from ghnas.cli.loading import data_source
    from ghnas.engine.objectives import check_objectives

    if request.data is not None:
        request = replace(request, data=data_source(request.data))
    if request.ghn is not None:
        request = replace(request, ghn=request.ghn.resolve())
    if request.objective is not None:
        known = ",".join(check_objectives(request.objective.split(",")))
        request = replace(request, objective=known)
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
    for key, value in started.items():
        asked = getattr(request, key)
        if asked is not None and asked != value:
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
    began = time.monotonic()
    try:
        with meter(out, "candidates") as shown:
            pace = Pace()
            search_run(
                run,
                objective,
                lambda progress: _report(shown, progress),
                prepare=lambda done, total: shown.update(
                    done, total, "for comparison", pace.rate(done)
                ),
            )
    except KeyboardInterrupt:
        kept = f"{len(run.study().get_trials(deepcopy=False)):,} of {manifest.budget:,} candidates"
        say(out, f"\ninterrupted: {kept} are kept in {run.path}")
        say(out, f"go on with: ghnas search --resume {run.name}{results_option(results)}")
        raise
    took = format_seconds(time.monotonic() - began)
    say(out, f"{manifest.budget - before:,} candidates in {took}")


def _report(shown: Meter, progress: SearchProgress) -> None:
    from ghnas.reports.tables import format_percent

    note = f"best {format_percent(progress.best)}"
    if progress.finishing:
        note = "finishing what is being scored; Ctrl-C again to drop it"
    shown.update(progress.done, progress.budget, note, progress.rate)


def _summarise(out: Console, run: Run, results: Path) -> None:
    """The best candidates, where everything is, and what to do next."""
    from ghnas.reports.tables import ranking_table

    say(out, "")
    best = run.ranked(BEST)
    out.print(ranking_table(run, best))
    say(out, f"everything is in {run.path}")
    say(out, f"in the browser:   optuna-dashboard {shlex.quote(run.storage_url)}")
    if len(run.manifest.objectives) == 1 and all(item.short_training is None for item in best):
        again = f"ghnas search --resume --refine {SHORT_LIST}{results_option(results)}"
        say(out, f"a better order:   {again}")
    say(out, f"next:             ghnas finetune top-5{results_option(results)}")


def _as_dict(run: Run) -> dict[str, Any]:
    """The result for programs."""
    return {
        "run": run.name,
        "path": str(run.path),
        "storage": run.storage_url,
        "manifest": run.manifest.model_dump(mode="json"),
        "best": [item.as_dict(run.manifest.objectives) for item in run.ranked(BEST)],
    }
