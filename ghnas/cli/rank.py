"""`ghnas rank`: rankings side by side, against accuracies that are known."""

from __future__ import annotations

import platform
import shlex
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ghnas.cli import options
from ghnas.cli.ranking_ghn import find_predictor, fitting
from ghnas.cli.terminal import Pace, as_json, console, meter, print_json, say
from ghnas.cli.truth import ImageSize, Workers, describe_estimate
from ghnas.utils.files import write_atomically

if TYPE_CHECKING:
    from ghnas.data import ImageData
    from ghnas.ghn.config import GHNInfo
    from ghnas.ranking.comparison import Comparison
    from ghnas.ranking.methods import Scored, ScoreJob
    from ghnas.spaces import Space
    from ghnas.utils.statistics import Estimate

EXAMPLE = (
    "Example: ghnas rank --truth truth-darts-my-images.csv --space darts --data ./my-images "
    "--ghn mine.safetensors"
)
SCORE_IMAGES, PROXY_IMAGES = 512, 64
DEFAULT_METHODS = "default"


def rank(
    truth: Annotated[
        Path,
        typer.Option(
            "--truth",
            metavar="FILE",
            help="CSV with a column architecture and accuracies, as `ghnas truth` writes it.",
        ),
    ],
    column: Annotated[
        str | None,
        typer.Option(
            "--column",
            metavar="NAME",
            help="The accuracies' column.",
            show_default="test_accuracy, or the first with accuracy in its name",
        ),
    ] = None,
    space: options.Space = "darts",
    data: options.Data = "embedded",
    methods: Annotated[
        str,
        typer.Option(
            "--methods",
            metavar="LIST",
            help="ghn-accuracy, ghn-loss, ghn-naswot, composite, params, flops, synflow, naswot, "
            "jacov, snip, grasp, grad-norm, fisher, zen, vote, ensemble; ghn-steps-K and steps-K: "
            "accuracy after K SGD steps from predicted or random weights; ghn-tse-K and tse-K: "
            "their training loss, as `ghnas search --refine` ranks by. default: all without "
            "training; default,tse-100 adds one.",
        ),
    ] = "default",
    ghn: options.GHN = None,
    split: Annotated[
        str,
        typer.Option(
            "--split",
            metavar="all|tune|test",
            help="By a digest of the architecture's text: a quarter for tuning, the others to "
            "report on.",
        ),
    ] = "all",
    count: Annotated[
        int | None,
        options.number_option(
            "--count", "Random architectures of the file.", least=3, show_default="all"
        ),
    ] = None,
    seed: Annotated[
        int, options.number_option("--seed", "Of --count and of initialisation.", least=0)
    ] = 0,
    cells: options.Cells = None,
    channels: options.Channels = None,
    proxy_cells: Annotated[
        int | None,
        options.number_option(
            "--proxy-cells", "Cells for the proxies.", most=200, show_default="--cells"
        ),
    ] = None,
    proxy_channels: Annotated[
        int | None,
        options.number_option(
            "--proxy-channels", "Channels for the proxies.", most=4096, show_default="--channels"
        ),
    ] = None,
    image_size: ImageSize = None,
    score_images: Annotated[
        int, options.number_option("--score-images", "Validation images for the GHN's scores.")
    ] = SCORE_IMAGES,
    proxy_images: Annotated[
        int, options.number_option("--proxy-images", "Training images for the proxies.", least=2)
    ] = PROXY_IMAGES,
    workers: Workers = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="DIR",
            help="The folder to write.",
            show_default="rank-SPACE-DATA",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Compare rankings with trained accuracies: which one can be trusted on this data set?

    Scores the architectures of a CSV file by every method and shows rank correlations, the
    accuracy that is lost by each method's first choice, and seconds a candidate on one core. Run
    the same command again to go on after an interruption; other methods add to the same folder.
    """
    from ghnas.data import evaluation_batches, random_batches
    from ghnas.engine.stages.short_list import BATCH
    from ghnas.ghn.checkpoint import train_command
    from ghnas.ranking.comparison import as_dict, compare, read_truth, subset
    from ghnas.ranking.methods import ScoreJob, base_methods, check_methods, needs_ghn, steps_of
    from ghnas.reports.rankings import write_comparison
    from ghnas.scoring.evaluation import SCORE_BATCH
    from ghnas.utils.devices import cores

    names = _listed(methods)
    check_methods(names)
    optional = ghn is None and DEFAULT_METHODS in methods.split(",")
    out = console(json)
    known = subset(read_truth(truth, column), split, count, seed)
    predictor = find_predictor(out, names, optional, ghn, space, data)
    info = predictor.info if predictor else None
    chosen, images = _load(out, truth, space, data, cells, channels, image_size, info)
    train = train_command(space, data)
    predictor = fitting(out, predictor, optional, chosen, images, train)
    info = predictor.info if predictor else None
    own = images.mean, images.std
    if info:  # all methods see the images as the hypernetwork knows them, as in a search
        images = images.normalised_with(info.mean, info.std)
    names = [name for name in names if predictor or not needs_ghn(name)]
    for_proxies = _for_proxies(chosen, proxy_cells, proxy_channels)
    output = output or Path(f"rank-{chosen.name}-{images.name}")
    training = partial(
        random_batches, images.train, seed=seed, device="cpu", mean=images.mean, std=images.std
    )
    augmented = partial(training, mirror=images.mirror, shift=1)  # as a search's short list
    job = ScoreJob(
        space=chosen,
        proxy_space=for_proxies,
        data=images.without_test(),
        architectures=known.architectures,
        methods=base_methods(names),
        ghn=predictor.ghn if predictor else None,
        ghn_name=_describe(info, chosen, score_images) if info else "",
        checks=evaluation_batches(
            images.validation.take(score_images), SCORE_BATCH, device="cpu",
            mean=images.mean, std=images.std,
        ),
        batch=next(training(proxy_images)),
        steps=list(islice(augmented(BATCH), max(map(steps_of, names)))),
        seed=seed,
        output=output / "scores.csv",
        workers=workers or cores(),
    )  # fmt: skip
    settings = {
        "space": chosen.name,
        "proxy_skeleton": dict(for_proxies.skeleton),
        "data": images.name,
        "data_fingerprint": images.fingerprint,
        "image_size": images.image_shape[-1],
        "proxy_images": proxy_images,
    }
    if (images.mean, images.std) != own:
        settings["normalised_with"] = [images.mean, images.std]
    say(out, f"scoring {len(known.architectures):,} architectures by {', '.join(names)}")
    began = time.monotonic()
    try:
        scored = _score(out, job, settings, names)
    except KeyboardInterrupt:
        say(out, f"\ninterrupted; finished scores are in {output}: run the same command again")
        raise
    took = time.monotonic() - began
    say(out, "computing correlations and their intervals")
    comparison = compare(known, names, scored)
    notes = _notes(comparison, settings, split, seed, job)
    content = {"output": str(output), "split": split, "seed": seed, "hypernetwork": job.ghn_name}
    content |= {**settings, **as_dict(comparison)}
    write_comparison(output, comparison, [*notes, _made_by(took, job.workers)])
    write_atomically(output / "ranking.json", as_json(content))
    _print(out, comparison, notes, output)
    if json:
        print_json(content)


def _score(
    out: Console, job: ScoreJob, settings: dict[str, Any], names: list[str]
) -> dict[str, dict[str, Scored]]:
    """Scores by all methods but those that follow from the whole list, with meters."""
    from ghnas.ranking.methods import (
        COMPONENT_METHODS,
        COMPOSITE,
        composite_scores,
        reference_architectures,
        score_all,
    )

    def run(job: ScoreJob, unit: str) -> dict[str, dict[str, Scored]]:
        with meter(out, unit) as shown:
            pace = Pace()
            return score_all(
                job, settings, lambda done, total: shown.update(done, total, "", pace.rate(done))
            )

    scored = run(job, "architectures")
    if COMPOSITE in names:
        others = reference_architectures(job.space)
        parts = tuple(COMPONENT_METHODS.values())
        distinct = tuple(dict.fromkeys(others))
        reference = run(replace(job, architectures=distinct, methods=parts), "for comparison")
        of_job = {m: {n: scored[m][n] for n in job.architectures} for m in parts}
        scored[COMPOSITE] = composite_scores(of_job, reference, others)
    return scored


def _listed(methods: str) -> list[str]:
    """The methods of a comma-separated list, each once, earlier names made new."""
    from ghnas.ranking.methods import DEFAULT
    from ghnas.spaces.files import EARLIER_NAMES

    names = [name.strip() for name in methods.split(",") if name.strip()]
    return list(
        dict.fromkeys(
            m
            for n in names
            for m in (DEFAULT if n == DEFAULT_METHODS else (EARLIER_NAMES.get(n, n),))
        )
    )


def _load(
    out: Console,
    truth: Path,
    space: str,
    data: str,
    cells: int | None,
    channels: int | None,
    image_size: int | None,
    info: GHNInfo | None,
) -> tuple[Space, ImageData]:
    """The space and the images.

    What is not given is as in the trainings, if they say it, or as the hypernetwork was trained.
    """
    from ghnas.cli.loading import load_images, load_skeleton
    from ghnas.utils.tables import read_settings

    trained = read_settings(truth) or {}
    name = load_skeleton(space, None, None).name
    skeleton = info.skeleton if info and info.space == name else {}
    if trained.get("space") == name:
        skeleton = trained["skeleton"]
    reason = "as asked for"
    if image_size is None and trained.get("image_size"):
        image_size, reason = trained["image_size"], f"as in the trainings of {truth}"
    if image_size is None and info and info.image_shape:
        image_size, reason = info.image_shape[-1], "as the hypernetwork was trained"
    images = load_images(out, data, image_size)
    if image_size is None:
        reason = "the data's own size, as neither --image-size nor a hypernetwork says another"
    height, width = images.image_shape[1:]
    say(out, f"scoring and training at {height}x{width} pixels: {reason}")
    if trained.get("data_fingerprint") not in (None, images.fingerprint):
        say(out, f"note: the trainings in {truth} were on other images than {data}")
    return load_skeleton(space, cells, channels, skeleton), images


def _for_proxies(space: Space, cells: int | None, channels: int | None) -> Space:
    changes = {"cells": cells, "channels": channels}
    given = {key: value for key, value in changes.items() if value is not None}
    return space.with_skeleton(**given) if given else space


def _notes(
    comparison: Comparison, settings: dict[str, Any], split: str, seed: int, job: ScoreJob
) -> list[str]:
    """Sentences on how the figures were made."""
    from ghnas.engine.stages.short_list import BATCH
    from ghnas.ranking.methods import steps_of

    ghn_name, skeleton = job.ghn_name, dict(job.space.skeleton)
    truth, size = comparison.truth, settings["image_size"]
    notes = [
        f"{len(truth.architectures):,} architectures of {settings['space']}, part {split}, seed "
        f"{seed}; {settings['data']} at {size}x{size}; against {truth.column}, mean of "
        f"{len(truth.by_seed)}",
        f"proxies: {_size(settings['proxy_skeleton'])}; {settings['proxy_images']} training "
        f"images, Kaiming initialisation, seed {seed}",
    ]
    if any(steps_of(ranking.method) for ranking in comparison.rankings):
        notes.append(f"short trainings: {_size(skeleton)}; {size}x{size}; {BATCH} images a step")
    if ghn_name:
        notes.append(f"hypernetwork: {ghn_name}")
    notes += [
        "95 % intervals: percentile bootstrap over architectures, 1,000 samples",
        "lost: accuracy in points below the best one here; seconds: a candidate on one core",
    ]
    if comparison.ceiling is not None:
        agreement = describe_estimate(comparison.ceiling)
        notes.append(f"ceiling: the seeds of the trainings agree with Spearman {agreement}")
    notes += [f"left out: {name} {reason}" for name, reason in comparison.left_out.items()]
    return notes


def _describe(info: GHNInfo, space: Space, score_images: int) -> str:
    """Which hypernetwork, for which skeleton, on how many validation images."""
    from ghnas.scoring.evaluation import SCORE_BATCH

    size = _size(dict(space.skeleton))
    return f"{info.sha256[:12]}; {size}; {score_images} validation images, {SCORE_BATCH} at a time"


def _size(skeleton: dict[str, Any]) -> str:
    known = [key for key in ("cells", "channels") if key in skeleton]
    return ", ".join(f"{skeleton[key]} {key}" for key in known)


def _made_by(seconds: float, workers: int) -> str:
    from ghnas.reports.tables import format_seconds

    return (
        f"made by `{shlex.join(['ghnas', *sys.argv[1:]])}` on {time.strftime('%Y-%m-%d')}, "
        f"{format_seconds(seconds)} in this call on {workers} processes, {platform.machine()}"
    )


def _print(out: Console, comparison: Comparison, notes: list[str], output: Path) -> None:
    from ghnas.reports.tables import table

    shown = {
        "spearman": "Spear-\nman",
        "kendall": "Ken-\ndall",
        "spearman_best_tenth": "in best\ntenth",
        "regret_1": "lost,\nfirst",
        "regret_5": "lost,\nof 5",
    }
    rows = []
    for ranking in comparison.rankings:
        cells = [_cell(name, ranking.figures[name]) for name in shown]
        rows.append((ranking.method, *cells, f"{ranking.seconds:.3f}"))
    out.print(table("Rankings against trained accuracy", ("method", *shown.values(), "s"), rows))
    for note in notes:
        say(out, note)
    say(out, f"wrote {output}: ranking.md, .csv and .json, scores.csv, plots")


def _cell(name: str, estimate: Estimate) -> str:
    """The figure, and below it its interval."""
    if estimate.value != estimate.value:
        return "-"
    scale, digits = (100, 1) if name.startswith("regret") else (1, 2)
    value, low, high = (
        f"{scale * x:.{digits}f}" for x in (estimate.value, estimate.low, estimate.high)
    )
    return value if name == "kendall" else f"{value}\n{low} {high}"
