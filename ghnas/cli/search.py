"""`ghnas search`: the main job."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ghnas.cli import options
from ghnas.cli.continuing import continue_run, join_study, joined_study
from ghnas.cli.ghns import SIZES, Given, choose_ghn
from ghnas.cli.objectives import (
    SCORE_IMAGES,
    SHORT_TRAININGS,
    default_objective,
    proxy_score,
    zero_shot,
)
from ghnas.cli.options import BUDGET, number, numbers, text
from ghnas.cli.summary import BEST, as_dict, far_from_training, measure_latencies, summarise
from ghnas.cli.terminal import Meter, console, meter, print_json, say, say_compiling
from ghnas.cli.trainings import (
    asked_trainings,
    go_on,
    new_trainings,
    no_trainings,
    train_candidates,
    wanted_trainings,
)
from ghnas.utils.errors import UserError

if TYPE_CHECKING:
    import torch

    from ghnas.engine.objectives import ImageObjective
    from ghnas.engine.progress import SearchProgress
    from ghnas.engine.run import Run
    from ghnas.utils.processes import Pool

EXAMPLE = "Example: ghnas search --space darts --budget 10000 --max-params 40k"


def search(
    context: typer.Context,
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="With --resume: the run to go on with."),
    ] = None,
    space: Annotated[
        str | None, text("--space", "NAME|FILE", "A search space, or a YAML file.", "darts")
    ] = None,
    budget: options.Budget = None,
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
            "the one that ships; else one is adapted",
        ),
    ] = None,
    adapt: options.Adapt = None,
    image_size: options.ImageSize = None,
    seed: options.SearchSeed = None,
    objective: Annotated[
        str | None,
        text(
            "--objective",
            "LIST",
            "accuracy, loss, composite or predicted, without a hypernetwork naswot or another "
            "proxy, alone or with params, flops or latency: accuracy,params.",
            "predicted if a predictor ships, or what the space's file says; naswot without a "
            "hypernetwork",
        ),
    ] = None,
    max_params: Annotated[
        int | None, number("--max-params", "Most parameters, such as 40k or 1.5M.")
    ] = None,
    max_flops: Annotated[
        int | None, number("--max-flops", "Most FLOPs (multiply-adds x 2), such as 20M.")
    ] = None,
    max_latency: Annotated[
        float | None,
        options.duration(
            "--max-latency",
            options.latency("--max-latency"),
            "Longest time that a batch may take, such as 5ms: predicted from networks of the "
            "space that are measured first; the best are measured.",
        ),
    ] = None,
    latency_batch: Annotated[
        int | None, number("--latency-batch", "Images of that batch.", "1", most=2**16)
    ] = None,
    latency_threads: Annotated[
        int | None, number("--latency-threads", "Threads on a CPU.", "1", most=1024)
    ] = None,
    cells: options.Cells = None,
    channels: options.Channels = None,
    device: options.Device = "auto",
    cluster: options.Cluster = None,
    storage: Annotated[
        str | None,
        text("--storage", "URL", "Optuna storage, such as sqlite:///nas.db.", "a file in the run"),
    ] = None,
    join: Annotated[
        str | None,
        text(
            "--join",
            "STUDY",
            "A study in --storage that several processes, on several machines, fill together: the "
            "first makes it, the others take space, budget and the rest from it.",
            "none",
        ),
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
            "score and those that a predictor chooses, and order them by their loss; 0: none.",
            str(SHORT_TRAININGS),
            least=0,
            earlier="--refine",
        ),
    ] = None,
    train_time: Annotated[
        float | None,
        options.duration(
            "--time",
            options.seconds("--time"),
            "In place of --train: as many as can be trained in a time, such as 30m.",
        ),
    ] = None,
    train_epochs: Annotated[
        Any,
        numbers(
            "--train-epochs",
            "Passes over the training images of each; 1,3: the best third again, for three.",
            "1",
        ),
    ] = None,
    train_steps: Annotated[
        Any,
        numbers(
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
    mutate: Annotated[
        bool,
        typer.Option(
            "--mutate",
            help="Before each batch of trainings, score mutations of the best so far: further "
            "candidates.",
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with RUN, or with the latest run.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Search a space: sample candidates, predict their weights, score and rank them.

    Where no hypernetwork was trained for space and images, the nearest one is
    adapted, once; where that fails a training-free proxy scores candidates.
    """
    params = context.params.items()
    asked = {key: value for key, value in params if value is not None and value is not False}
    out = console(json)
    place = options.device_of(device, cluster)
    pool = options.pool_of(cluster)
    shortened = asked_trainings(asked) if join is None else no_trainings(asked)
    if resume:
        if adapt is not None:
            raise UserError("a run goes on with the hypernetwork it has: leave --adapt out")
        found, goal = continue_run(out, results, run, asked, place, pool)
    elif run is not None:
        raise UserError(f"unexpected {run!r}: name a run with --resume only")
    elif join is not None and (study := joined_study(asked)) is not None:
        found, goal = join_study(out, results, study, asked, place, pool)
    else:
        found, goal = _start(out, results, asked, shortened, place, pool)
    _search(out, found, goal, results)
    wanted = wanted_trainings(found, shortened)
    if wanted:
        train_candidates(out, found, goal, wanted, results)
    measure_latencies(out, found, goal)
    best = found.ranked(BEST)  # once: of 10,000 it takes seconds
    far = far_from_training(best, goal.ghn, found.space)
    summarise(out, found, best, results, far)
    if json:
        print_json(as_dict(found, best, far))


def _start(
    out: Console,
    results: Path,
    asked: Given,
    shortened: Given,
    device: torch.device,
    pool: Pool,
) -> tuple[Run, ImageObjective]:
    """A new run for what was asked."""
    from ghnas.engine.manifest import Sources
    from ghnas.engine.objectives import DEFAULT_PROXY, check_objectives, check_proxies
    from ghnas.engine.samplers import check_sampler
    from ghnas.engine.search import check_one_objective, start_run
    from ghnas.engine.stages.inputs import keep_ghn

    name, sampler = asked.get("space", "darts"), asked.get("sampler", "random")
    space = options.load_skeleton(name, {key: asked[key] for key in SIZES if key in asked})
    check_sampler(sampler)  # before anything is loaded
    if (shortened.get("count") or shortened.get("seconds")) and "objective" in asked:
        check_one_objective(asked["objective"].split(","))
    source = options.data_source(asked.get("data", "embedded"))
    choice = choose_ghn(out, asked, space, source, device)
    check, default = (
        (check_objectives, default_objective(space, source))
        if choice.ghn
        else (check_proxies, DEFAULT_PROXY)
    )
    asked = asked | {"objective": check(asked.get("objective", default).split(","))}
    short_list = new_trainings(asked["objective"], shortened)
    objective: ImageObjective
    if choice.ghn:
        space, objective = zero_shot(out, asked, choice, source, device, pool)
    else:
        space, objective = choice.space, proxy_score(out, asked, choice, source, device, pool)
    run = start_run(
        results,
        space,
        objective,
        asked.get("budget", BUDGET),
        sampler=sampler,
        seed=asked.get("seed", 0),
        max_parameters=asked.get("max_params"),
        max_flops=asked.get("max_flops"),
        max_latency=asked.get("max_latency"),
        storage=asked.get("storage"),
        join=asked.get("join"),
        sources=Sources(data=source, ghn=str(choice.ghn.resolve()) if choice.ghn else None),
        short_list=short_list,
        space_name=name,
    )
    if choice.ghn and choice.adapted:
        keep_ghn(run, choice.ghn)
    return run, objective


def _search(out: Console, run: Run, objective: ImageObjective, results: Path) -> None:
    """Search until the budget is spent, with a meter."""
    from ghnas.engine.runs import summarise_run
    from ghnas.engine.search import search_run
    from ghnas.reports.numbers import format_seconds

    manifest, before = run.manifest, len(run.study().get_trials(deepcopy=False))
    if before >= manifest.budget:
        if summarise_run(run.path).done < before:  # who recorded the last was killed then
            with suppress(UserError):  # the folder may be read-only by now
                search_run(run, objective)
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
            search_run(run, objective, partial(_report, shown, objective.pool, manifest.uses_ghn))
    except KeyboardInterrupt:
        kept = f"{len(run.study().get_trials(deepcopy=False)):,} of {manifest.budget:,} candidates"
        say(out, f"\ninterrupted: {kept} are kept in {run.path}")
        say(out, go_on(run.name, results))
        raise
    took = format_seconds(time.monotonic() - began)
    say(out, f"{manifest.budget - before:,} candidates in {took}")


def _report(shown: Meter, pool: Pool, is_accuracy: bool, progress: SearchProgress) -> None:
    from ghnas.reports.numbers import format_best

    note = f"best {format_best(progress.best, is_accuracy)}, {pool.size} workers"
    if progress.finishing:
        note = "finishing what is being scored; Ctrl-C again to drop it"
    shown.update(progress.done, progress.budget, note, progress.rate)
