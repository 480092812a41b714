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
from ghnas.cli.selection import ranked_as_dict
from ghnas.cli.terminal import Meter, Pace, console, meter, print_json, say
from ghnas.utils.errors import UserError

if TYPE_CHECKING:
    import torch

    from ghnas.cli.loading import Prepared
    from ghnas.engine.loop import SearchProgress
    from ghnas.engine.runs import Manifest, Run
    from ghnas.scoring.scorer import Scorer
    from ghnas.spaces import Space

EXAMPLE = "Example: ghnas search --space darts --budget 10000 --max-params 40k"
BUDGET, SCORE_IMAGES, BEST, REFINE_STEPS, SHORT_LIST = 1000, 512, 10, 100, 20


@dataclass(frozen=True)
class Request:
    """What the command line asks for; None where it says nothing."""

    space: str | None
    budget: int | None
    strategy: str | None
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
    strategy: Annotated[
        str | None,
        typer.Option(
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
            help="accuracy or consensus, alone or with params or flops: accuracy,params.",
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
    """Search a space: propose candidates, predict their weights, score and rank them."""
    from ghnas.utils.devices import pick_device

    request = Request(
        space,
        budget,
        strategy,
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
        found, prepared = _continue(out, results, run, request, place)
    elif run is not None:
        raise UserError(f"unexpected {run!r}: name a run with --resume only")
    else:
        found, prepared = _start(out, results, request, place)
    _search(out, found, prepared, place, results)
    manifest = found.manifest
    if count := refine or manifest.refine:
        steps, depth = refine_steps or manifest.refine_steps, refine_cells or manifest.refine_cells
        refine_shortlist(out, found, prepared, place, results, count, steps, depth)
    _summarise(out, found, results)
    if json:
        print_json(_as_dict(found))


def _start(
    out: Console, results: Path, request: Request, device: torch.device
) -> tuple[Run, Prepared]:
    """A new run for what was asked."""
    from ghnas.cli.loading import data_source, load_skeleton, prepare, skeleton_for
    from ghnas.engine.runs import create_run, new_manifest, parse_objectives
    from ghnas.engine.samplers import check_strategy
    from ghnas.scoring.racing import KEEP

    space_name = request.space or "darts"
    space = load_skeleton(space_name, request.cells, request.channels)
    strategy = request.strategy or "random"
    objectives = parse_objectives(request.objective or space.objective)
    check_strategy(strategy)  # before anything is loaded
    data = data_source(request.data or "embedded")
    prepared = prepare(out, space, space_name, data, request.ghn)
    space = skeleton_for(out, space_name, request.cells, request.channels, prepared.info)
    score_images = min(request.score_images or SCORE_IMAGES, len(prepared.data.validation))
    manifest = new_manifest(
        space=space,
        space_name=space_name,
        data=data,
        data_fingerprint=prepared.data.fingerprint,
        image_shape=prepared.data.image_shape,
        classes=prepared.data.classes,
        ghn=str(prepared.ghn_path.resolve()),
        ghn_sha256=prepared.info.sha256,
        budget=request.budget or BUDGET,
        score_images=score_images,
        keep=None if request.exact or objectives != ("accuracy",) else KEEP,
        strategy=strategy,
        objectives=objectives,
        seed=request.seed or 0,
        max_params=request.max_params,
        max_flops=request.max_flops,
        storage=request.storage,
        refine=request.refine,
        refine_steps=request.refine_steps or REFINE_STEPS,
        refine_cells=request.refine_cells,
        device=device.type,
    )
    _require_feasible(space, manifest)  # or a run without candidates would stay behind
    return create_run(results, manifest), prepared


def _scorer(out: Console, prepared: Prepared, manifest: Manifest, device: torch.device) -> Scorer:
    """Looks for further evidence where the consensus is an objective."""
    from ghnas.executors.fused import are_compiled
    from ghnas.scoring.composite import measure

    if device.type == "cpu" and not are_compiled():
        say(out, "compiling the kernels for this machine, once: about 20 s")
    wanted = measure if "consensus" in manifest.objectives else None
    return prepared.scorer(manifest.score_images, manifest.score_batch, device, wanted)


def _require_feasible(space: Space, manifest: Manifest) -> None:
    from ghnas.engine.constraints import Limits, require_feasible

    limits = Limits(manifest.max_params, manifest.max_flops)
    if limits:
        space = space.for_images(manifest.image_shape, len(manifest.classes))
        require_feasible(space, limits, random.Random(manifest.seed))


def _continue(
    out: Console, results: Path, name: str | None, request: Request, device: torch.device
) -> tuple[Run, Prepared]:
    """An earlier run, with what it was started with."""
    from ghnas.cli.loading import prepare
    from ghnas.engine.runs import find_run

    run = find_run(results, name)
    manifest = run.manifest
    _check_same(run.name, manifest, request)
    ghn = Path(manifest.ghn)
    shipped = request.ghn is None and not ghn.exists()  # the package may have moved since
    ghn_used = None if shipped else ghn
    prepared = prepare(out, run.space, manifest.space, manifest.data, ghn_used)
    run.check_inputs(ghn_sha256=prepared.info.sha256, data_fingerprint=prepared.data.fingerprint)
    return run, prepared


def _check_same(name: str, manifest: Manifest, request: Request) -> None:
    """Options given beside --resume must be those of the run."""
    from ghnas.cli.loading import data_source

    if request.data is not None:
        request = replace(request, data=data_source(request.data))
    if request.ghn is not None:
        request = replace(request, ghn=request.ghn.resolve())
    skeleton = manifest.skeleton
    started = {
        "space": manifest.space,
        "budget": manifest.budget,
        "strategy": manifest.strategy,
        "data": manifest.data,
        "ghn": Path(manifest.ghn),
        "seed": manifest.seed,
        "objective": ",".join(manifest.objectives),
        "max_params": manifest.max_params,
        "max_flops": manifest.max_flops,
        "cells": skeleton.get("cells"),
        "channels": skeleton.get("channels"),
        "storage": manifest.storage,
        "score_images": manifest.score_images,
        "exact": manifest.keep is None,
    }
    for key, value in started.items():
        asked = getattr(request, key)
        if asked is not None and asked != value:
            option = "--" + key.replace("_", "-")
            raise UserError(
                f"run {name} was started with {option} {value}, not {asked}: "
                f"leave {option} out to go on, or start a new run without --resume"
            )


def _search(
    out: Console, run: Run, prepared: Prepared, device: torch.device, results: Path
) -> None:
    """Search until the budget is spent, with a meter."""
    from ghnas.engine.loop import search as run_search
    from ghnas.reports.tables import format_seconds

    manifest, before = run.manifest, len(run.recorded())
    if before >= manifest.budget:
        say(out, f"run {run.name}: all {manifest.budget:,} candidates are scored")
        return
    scorer = _scorer(out, prepared, manifest, device)
    reference = None
    if "consensus" in manifest.objectives:
        from ghnas.scoring.composite import reference_for

        say(out, "first, random architectures to compare with")
        with meter(out, "for comparison") as shown:
            pace = Pace()
            reference = reference_for(
                run.space,
                scorer,
                manifest.image_shape,
                lambda done, total: shown.update(done, total, "", pace.rate(done)),
            )
    going_on = f", going on after {before:,}" if before else ""
    what = f"{manifest.budget:,} candidates of {manifest.space}, strategy {manifest.strategy}"
    say(out, f"run {run.name}: {what}{going_on}")
    began = time.monotonic()
    try:
        with meter(out, "candidates") as shown:
            run_search(run, scorer, lambda progress: _report(shown, progress), reference)
    except KeyboardInterrupt:
        kept = f"{len(run.recorded()):,} of {manifest.budget:,} candidates"
        say(out, f"\ninterrupted: {kept} are kept in {run.path}")
        say(out, f"go on with: ghnas search --resume {run.name}{results_option(results)}")
        raise
    took = format_seconds(time.monotonic() - began)
    say(out, f"{manifest.budget - before:,} candidates in {took}")


def _report(shown: Meter, progress: SearchProgress) -> None:
    from ghnas.reports.tables import format_percent

    best = format_percent(progress.best_accuracy)
    shown.update(progress.done, progress.budget, f"best {best}", progress.rate)


def _summarise(out: Console, run: Run, results: Path) -> None:
    """The best candidates, where everything is, and what to do next."""
    from ghnas.reports.tables import ranking_table

    say(out, "")
    best = run.ranked(BEST)
    out.print(ranking_table(run, best))
    say(out, f"everything is in {run.path}")
    say(out, f"in the browser:   optuna-dashboard {shlex.quote(run.storage_url)}")
    if len(run.manifest.objectives) == 1 and all(item.refined is None for item in best):
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
        "best": [ranked_as_dict(item) for item in run.ranked(BEST)],
    }
