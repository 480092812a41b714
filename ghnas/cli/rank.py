"""`ghnas rank`: rankings side by side, against accuracies that are known."""

from __future__ import annotations

import platform
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console

from ghnas.cli import options
from ghnas.cli.options import number, text
from ghnas.cli.terminal import as_json, console, meter, print_json, say, say_compiling
from ghnas.utils.errors import UserError
from ghnas.utils.files import write_atomically

if TYPE_CHECKING:
    from ghnas.utils.processes import Pool

EXAMPLE = (
    "Example: ghnas rank --truth truth-darts-my-images.csv --space darts --data ./my-images "
    "--ghn mine.safetensors"
)
SCORE_IMAGES, PROXY_IMAGES = 512, 64


def rank(
    truth: Annotated[
        Path,
        text(
            "--truth",
            "FILE",
            "CSV with a column architecture and accuracies, as `ghnas truth` writes it.",
        ),
    ],
    column: options.Column = None,
    space: options.SpaceName = "darts",
    data: options.DataName = "embedded",
    methods: Annotated[
        str,
        text(
            "--methods",
            "LIST",
            "ghn-accuracy, ghn-loss, ghn-naswot, composite, params, flops, synflow, naswot, "
            "jacov, snip, grasp, grad-norm, fisher, zen, vote, ensemble; predicted: by the "
            "predictor that ships for space and data; ghn-steps-K and steps-K: "
            "accuracy after K SGD steps from predicted or random weights; ghn-tse-K and tse-K: "
            "their training loss, as `ghnas search --train` orders by. default: all without "
            "training; default,tse-100 adds one.",
        ),
    ] = "default",
    ghn: options.GHN = None,
    split: Annotated[
        str,
        text(
            "--split",
            "all|tune|test",
            "By a digest of the architecture's text: a quarter for tuning, the others to report "
            "on.",
        ),
    ] = "all",
    count: Annotated[
        int | None, number("--count", "Random architectures of the file.", "all", least=3)
    ] = None,
    seed: Annotated[
        int, number("--seed", "Of --count and of initialisation.", least=0, most=options.MOST_SEED)
    ] = 0,
    cells: options.Cells = None,
    channels: options.Channels = None,
    proxy_cells: Annotated[
        int | None, number("--proxy-cells", "Cells for the proxies.", "--cells", most=200)
    ] = None,
    proxy_channels: Annotated[
        int | None,
        number("--proxy-channels", "Channels for the proxies.", "--channels", most=4096),
    ] = None,
    image_size: options.ImageSize = None,
    score_images: Annotated[
        int, number("--score-images", "Validation images for the GHN's scores.")
    ] = SCORE_IMAGES,
    proxy_images: Annotated[
        int, number("--proxy-images", "Training images for the proxies.", least=2)
    ] = PROXY_IMAGES,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    output: Annotated[
        Path | None, text("--output", "DIR", "The folder to write.", "rank-SPACE-DATA")
    ] = None,
    json: options.Json = False,
) -> None:
    """Compare rankings with trained accuracies: which one can be trusted on this data set?

    Scores the architectures of a CSV file by every method and shows rank correlations, the
    accuracy that is lost by each method's first choice, and seconds a candidate on one core. Run
    the same command again to go on after an interruption; other methods add to the same folder.
    """
    from ghnas.ghn.checkpoint import check_ghn, load_ghn, train_command
    from ghnas.ghn.config import GHNInfo
    from ghnas.ranking.comparison import as_dict, compare
    from ghnas.ranking.methods import ScoreJob, listed_methods, needs_ghn, steps_of
    from ghnas.ranking.scores import score_all
    from ghnas.reports.rankings import comparison_table, describe_comparison, write_comparison
    from ghnas.spaces import load_space
    from ghnas.training.truth_table import read_truth, subset
    from ghnas.utils.tables import read_settings

    names = listed_methods(methods)
    pool = options.pool_of(cluster, workers)
    optional = ghn is None and "default" in methods.split(",")
    out = console(json)
    known = subset(read_truth(truth, column), split, count, seed)
    space_name, model, predictor = load_space(space).name, None, None
    if any(map(needs_ghn, names)):
        with _optional(out, optional):
            model = load_ghn(ghn or options.shipped_ghn(out, space_name, space, data))
    info = model.info if model else GHNInfo()
    # what is not given is as in the trainings, if they say it, or as the hypernetwork was trained
    trained = read_settings(truth) or {}
    same = next((s for s in (trained, asdict(info)) if s.get("space") == space_name), {})
    given = {"cells": cells, "channels": channels}
    chosen = options.load_skeleton(space, same.get("skeleton"), **given)
    known_size = info.image_shape[-1] if info.image_shape else None
    size, reason = next(
        (pair for pair in (
            (image_size, "as asked for"),
            (trained.get("image_size"), f"as in the trainings of {truth}"),
            (known_size, "as the hypernetwork was trained"),
        ) if pair[0]),
        (None, "the data's own size, as neither --image-size nor a hypernetwork says another"),
    )  # fmt: skip
    images = options.load_images(out, data, size)
    height, width = images.image_shape[1:]
    say(out, f"scoring and training at {height}x{width} pixels: {reason}")
    if trained.get("data_fingerprint") not in (None, images.fingerprint):
        say(out, f"note: the trainings in {truth} were on other images than {data}")
    if model:
        with _optional(out, optional):
            check_ghn(model, chosen, images, train_command(space, data))
            predictor = model
    names = [name for name in names if predictor or not needs_ghn(name)]
    output = output or Path(f"rank-{chosen.name}-{images.name}")
    job = ScoreJob(
        space=chosen,
        proxy_space=chosen.with_skeleton(
            **options.given(cells=proxy_cells, channels=proxy_channels)
        ),
        data=images.without_test(),
        architectures=known.architectures,
        methods=names,
        ghn=predictor,
        output=output / "scores.csv",
        score_images=score_images,
        proxy_images=proxy_images,
        seed=seed,
        pool=pool,
    )
    say(out, f"scoring {len(known.architectures):,} architectures by {', '.join(names)}")
    say_compiling(out, "execute", *(["differentiate"] if any(map(steps_of, names)) else []))
    began = time.monotonic()
    kept = f"; finished scores are in {output}: run the same command again"
    with meter(out, "architectures", kept) as shown:
        scored = score_all(job, shown.update)
    took = time.monotonic() - began
    say(out, "computing correlations and their intervals")
    comparison = compare(known, names, scored)
    notes = describe_comparison(comparison, job, split)
    content = {"output": str(output), "split": split, "seed": seed, "hypernetwork": job.ghn_name}
    content |= {**job.settings(), **as_dict(comparison)}
    write_comparison(output, comparison, [*notes, _made_by(took, pool)])
    write_atomically(output / "ranking.json", as_json(content))
    out.print(comparison_table(comparison))
    for note in notes:
        say(out, note)
    say(out, f"wrote {output}: ranking.md, .csv and .json, scores.csv, plots")
    if json:
        print_json(content)


@contextmanager
def _optional(out: Console, optional: bool) -> Iterator[None]:
    """Go on without a hypernetwork if `--methods` did not ask for one, and say so."""
    try:
        yield
    except UserError as error:
        if not optional:
            raise
        say(out, f"note: {error}; leaving out what needs one")


def _made_by(seconds: float, pool: Pool) -> str:
    from ghnas.reports.numbers import format_seconds

    return (
        f"made by `{shlex.join(['ghnas', *sys.argv[1:]])}` on {time.strftime('%Y-%m-%d')}, "
        f"{format_seconds(seconds)} in this call on {pool.size} workers, {platform.machine()}"
    )
