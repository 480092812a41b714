"""`ghnas search`: the main job."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ghnas.cli import options
from ghnas.cli.objectives import (
    NO_GHN,
    SCORE_IMAGES,
    SHORT_LIST,
    SIZES,
    Given,
    ghn_path,
    proxy_score,
    zero_shot,
)
from ghnas.cli.options import number, text
from ghnas.cli.terminal import Meter, console, meter, print_json, say, say_compiling
from ghnas.utils.errors import UserError

if TYPE_CHECKING:
    import torch

    from ghnas.engine.manifest import Manifest, ShortList
    from ghnas.engine.objectives import ImageObjective
    from ghnas.engine.progress import SearchProgress
    from ghnas.engine.run import Run

EXAMPLE = "Example: ghnas search --space darts --budget 10000 --max-params 40k"
BUDGET, BEST, TRAIN_EPOCHS = 1000, 10, 1
STARTS = {"ghn": "predicted weights", "kaiming": "Kaiming initialisation"}
READY_MADE = ("embedded", "digitscapes", "cifar10")
"""Data sets that are no folder."""


def search(
    context: typer.Context,
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="With --resume: the run to go on with."),
    ] = None,
    space: Annotated[
        str | None, text("--space", "NAME|FILE", "A search space, or a YAML file.", "darts")
    ] = None,
    budget: Annotated[int | None, number("--budget", "Candidates to score.", str(BUDGET))] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            "--sampler",
            "--strategy",
            metavar="NAME",
            help="random, evolution, local, tpe, nsga2 or predictor.",
            show_default="random",
        ),
    ] = None,
    data: Annotated[str | None, text("--data", "NAME|DIR", options.IMAGES, "embedded")] = None,
    ghn: Annotated[
        Path | None,
        text(
            "--ghn",
            "NAME|FILE|none",
            "A hypernetwork that ships, such as darts-cifar10, or one made by `ghnas train`; none: "
            "a training-free proxy scores candidates.",
            "the one that ships, else none",
        ),
    ] = None,
    seed: Annotated[
        int | None, number("--seed", "Equal seeds give equal runs.", "0", least=0)
    ] = None,
    objective: Annotated[
        str | None,
        text(
            "--objective",
            "LIST",
            "accuracy or composite, without a hypernetwork naswot or another proxy, alone or with "
            "params or flops: accuracy,params.",
            "what the space's file says; naswot without a hypernetwork",
        ),
    ] = None,
    max_params: Annotated[
        int | None, number("--max-params", "Most parameters, such as 40k or 1.5M.")
    ] = None,
    max_flops: Annotated[
        int | None, number("--max-flops", "Most FLOPs (multiply-adds x 2), such as 20M.")
    ] = None,
    cells: options.Cells = None,
    channels: options.Channels = None,
    device: options.Device = "auto",
    storage: Annotated[
        str | None,
        text("--storage", "URL", "Optuna storage, such as sqlite:///nas.db.", "a file in the run"),
    ] = None,
    results: options.Results = options.DEFAULT_RESULTS,
    score_images: Annotated[
        int | None,
        number("--score-images", "Images for a score.", f"{SCORE_IMAGES}; 64 for a proxy"),
    ] = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", help="Score every candidate on all images; default: drop poor ones early."
        ),
    ] = False,
    train: Annotated[
        int | None,
        number(
            "--train",
            "After the search, give N candidates a short training, the best by their "
            "score and those that a predictor chooses, and order them by their loss.",
            "none",
            earlier="--refine",
        ),
    ] = None,
    train_epochs: Annotated[
        int | None,
        number("--train-epochs", "Passes over the training images of each.", str(TRAIN_EPOCHS)),
    ] = None,
    train_steps: Annotated[
        int | None,
        number(
            "--train-steps",
            "SGD steps of each, of 64 images, in place of epochs.",
            "none",
            earlier="--refine-steps",
        ),
    ] = None,
    train_cells: Annotated[
        int | None,
        number(
            "--train-cells",
            "Depth of the networks that are trained.",
            "as in the space's file",
            most=200,
            earlier="--refine-cells",
        ),
    ] = None,
    train_from: Annotated[
        str | None,
        text(
            "--train-from",
            "ghn|kaiming",
            "Start from predicted weights, or from random ones.",
            "ghn, where it predicts for networks of that depth",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with RUN, or with the latest run.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Search a space: sample candidates, predict their weights, score and rank them.

    Where no hypernetwork ships for space and images, a training-free proxy scores them.
    """
    from ghnas.engine.manifest import ShortList
    from ghnas.utils.devices import pick_device

    asked = {key: value for key, value in context.params.items() if value not in (None, False)}
    out = console(json)
    place = pick_device(device)
    shortened = options.given(
        count=train, steps=train_steps, epochs=train_epochs, cells=train_cells, start=train_from
    )
    if train_from not in (None, "ghn", "kaiming"):
        raise UserError(f"--train-from is ghn or kaiming, not {train_from!r}")
    if train_epochs and not train_steps:
        shortened["steps"] = None
    if resume:
        found, goal = _continue(out, results, run, asked, place)
    elif run is not None:
        raise UserError(f"unexpected {run!r}: name a run with --resume only")
    else:
        short_list = ShortList(**shortened) if train else None
        found, goal = _start(out, results, asked, short_list, place)
    _search(out, found, goal, results)
    if train or found.manifest.short_list:
        started = found.manifest.short_list or ShortList(count=train or 0)
        wanted = started.model_copy(update=shortened)
        _train_short_list(out, found, goal, wanted, results)
    _summarise(out, found, results)
    if json:
        print_json(_as_dict(found))


def _start(
    out: Console,
    results: Path,
    asked: Given,
    short_list: ShortList | None,
    device: torch.device,
) -> tuple[Run, ImageObjective]:
    """A new run for what was asked."""
    from ghnas.engine.manifest import Sources
    from ghnas.engine.objectives import DEFAULT_PROXY, check_objectives, check_proxies
    from ghnas.engine.samplers import check_sampler
    from ghnas.engine.search import check_one_objective, start_run

    name, sampler = asked.get("space", "darts"), asked.get("sampler", "random")
    space = options.load_skeleton(name, {key: asked[key] for key in SIZES if key in asked})
    check_sampler(sampler)  # before anything is loaded
    source = _data_source(asked.get("data", "embedded"))
    path = ghn_path(asked, space, source)
    check, default = (check_objectives, space.objective) if path else (check_proxies, DEFAULT_PROXY)
    asked = asked | {"objective": check(asked.get("objective", default).split(","))}
    if short_list:
        check_one_objective(asked["objective"])
    objective: ImageObjective
    if path:
        space, objective = zero_shot(out, asked, space, source, path, device)
    else:
        objective = proxy_score(out, asked, space, source, device)
    run = start_run(
        results,
        space,
        objective,
        asked.get("budget", BUDGET),
        sampler=sampler,
        seed=asked.get("seed", 0),
        max_parameters=asked.get("max_params"),
        max_flops=asked.get("max_flops"),
        storage=asked.get("storage"),
        sources=Sources(data=source, ghn=str(path.resolve()) if path else None),
        short_list=short_list,
        space_name=name,
    )
    return run, objective


def _data_source(spec: str) -> str:
    """What a run remembers of `--data`: a folder by its full path, so that it is found again."""
    folder = Path(spec).expanduser()
    return str(folder.resolve()) if spec not in READY_MADE and folder.is_dir() else spec


def _continue(
    out: Console, results: Path, name: str | None, asked: Given, device: torch.device
) -> tuple[Run, ImageObjective]:
    """An earlier run, with what it was started with."""
    from ghnas.engine.runs import find_run
    from ghnas.engine.stages.inputs import load_inputs, objective_of

    run = find_run(results, name)
    _check_same(run.name, run.manifest, asked)
    with meter(out, "images") as shown:
        ghn, data = load_inputs(run, shown.update)
    return run, objective_of(run, ghn, data, device)


def _check_same(name: str, manifest: Manifest, asked: Given) -> None:
    """Options given beside --resume must be those of the run."""
    from ghnas.engine.objectives import check_objectives, check_proxies
    from ghnas.ghn.checkpoint import list_ghns

    check = check_objectives if manifest.uses_ghn else check_proxies
    started = {
        "space": manifest.space,
        "budget": manifest.budget,
        "sampler": manifest.sampler,
        "data": manifest.sources.data,
        "ghn": Path(manifest.sources.ghn) if manifest.sources.ghn else NO_GHN,
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
        "data": _data_source,
        "ghn": lambda path: path if path == NO_GHN else list_ghns().get(str(path), path).resolve(),
        "objective": lambda text: ",".join(check(text.split(","))),
    }
    for key, value in started.items():
        wanted = meant.get(key, lambda same: same)(asked[key]) if key in asked else value
        if wanted != value:
            option = "--" + key.replace("_", "-")
            raise UserError(
                f"run {name} was started with {option} {value}, not {wanted}: "
                f"leave {option} out to go on, or start a new run without --resume"
            )


def _search(out: Console, run: Run, objective: ImageObjective, results: Path) -> None:
    """Search until the budget is spent, with a meter."""
    from ghnas.engine.search import search_run
    from ghnas.reports.tables import format_seconds

    manifest, before = run.manifest, len(run.study().get_trials(deepcopy=False))
    if before >= manifest.budget:
        say(out, f"run {run.name}: all {manifest.budget:,} candidates are scored")
        return
    if objective.device.type == "cpu" and manifest.uses_ghn:
        say_compiling(out, "execute")
    going_on = f", going on after {before:,}" if before else ""
    what = f"{manifest.budget:,} candidates of {manifest.space}, sampler {manifest.sampler}"
    say(out, f"run {run.name}: {what}{going_on}")
    if "composite" in manifest.objectives:
        say(out, "first, random architectures to compare with")
        with meter(out, "for comparison") as shown:
            objective.prepare(run.space, shown.update)
    began = time.monotonic()
    try:
        with meter(out, "candidates") as shown:
            search_run(run, objective, lambda progress: _report(shown, progress, manifest.uses_ghn))
    except KeyboardInterrupt:
        kept = f"{len(run.study().get_trials(deepcopy=False)):,} of {manifest.budget:,} candidates"
        say(out, f"\ninterrupted: {kept} are kept in {run.path}")
        say(out, _go_on(run.name, results))
        raise
    took = format_seconds(time.monotonic() - began)
    say(out, f"{manifest.budget - before:,} candidates in {took}")


def _report(shown: Meter, progress: SearchProgress, is_accuracy: bool) -> None:
    from ghnas.reports.tables import format_best

    note = f"best {format_best(progress.best, is_accuracy)}"
    if progress.finishing:
        note = "finishing what is being scored; Ctrl-C again to drop it"
    shown.update(progress.done, progress.budget, note, progress.rate)


def _train_short_list(
    out: Console, run: Run, objective: ImageObjective, wanted: ShortList, results: Path
) -> None:
    """Give candidates a short training, with a meter."""
    from ghnas.engine.stages.short_list import short_list_job, steps_of_epoch, train_short_list
    from ghnas.reports.tables import describe_skeleton

    steps = wanted.steps or wanted.epochs * steps_of_epoch(objective.data)
    job = short_list_job(run, objective, steps, wanted.cells, wanted.start)
    skeleton = job.space.skeleton
    size = describe_skeleton({key: skeleton[key] for key in SIZES if key in skeleton})
    size = f": {size}" if size else ""
    start = f"from {STARTS[job.start]}"
    say(out, f"training {wanted.count} candidates for {steps:,} steps each, {start}{size}")
    if job.device.type == "cpu":
        say_compiling(out, "execute", "differentiate")
    settings = {"count": "", "steps": "-steps", "cells": "-cells", "start": "-from"}
    known = wanted.model_copy(update={"steps": steps}).model_dump()
    given = [f"--train{name} {known[key]}" for key, name in settings.items() if known[key]]
    again = " ".join([run.name, *given])
    kept = f": what was trained is kept in {run.path}\n{_go_on(again, results)}"
    with meter(out, "trained", kept) as shown:
        train_short_list(run, job, wanted.count, shown.update)


def _go_on(run: str, results: Path) -> str:
    return f"go on with: ghnas search --resume {run}{_results_option(results)}"


def _results_option(results: Path) -> str:
    """The option that finds the results folder again, for a command to be printed."""
    return "" if results == options.DEFAULT_RESULTS else f" --results {shlex.quote(str(results))}"


def _summarise(out: Console, run: Run, results: Path) -> None:
    """The best candidates, where everything is, and what to do next."""
    from ghnas.reports.dashboard import annotate
    from ghnas.reports.tables import describe_order, ranking_table

    with contextlib.suppress(UserError):  # a full disk takes nothing from what was found
        annotate(run)
    say(out, "")
    best = run.ranked(BEST)
    out.print(ranking_table(run, best))
    say(out, f"everything is in {run.path}")
    say(out, f"in the browser:   ghnas dashboard{_results_option(results)}")
    say(out, f"                  optuna-dashboard {shlex.quote(run.storage_url)}")
    say(out, f"as a page:        ghnas report{_results_option(results)}")
    if order := run.order:
        say(out, describe_order(order))
    if len(run.manifest.objectives) == 1 and all(item.short_training is None for item in best):
        again = f"ghnas search --resume --train {SHORT_LIST}{_results_option(results)}"
        say(out, f"trained a while:  {again}")
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
