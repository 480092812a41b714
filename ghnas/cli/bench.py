"""`ghnas bench`: samplers on a table of accuracies."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from ghnas.cli import options
from ghnas.cli.options import number, text
from ghnas.cli.terminal import as_json, console, meter, print_json, say
from ghnas.utils.errors import UserError
from ghnas.utils.files import write_atomically

EXAMPLE = "Example: ghnas bench accuracies.csv --space nasbench201 --seeds 50"


def bench(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE",
            help="CSV with a column architecture and trained accuracies, such as `ghnas truth` "
            "writes or a published table.",
            show_default=False,
        ),
    ],
    space: options.SpaceName = "darts",
    column: options.Column = None,
    scores: Annotated[
        str | None,
        text(
            "--scores",
            "LIST",
            "Columns with zero-shot scores, higher is better: compared as orders, and given to "
            "the predictor.",
            "none",
        ),
    ] = None,
    scores_file: Annotated[
        Path | None,
        text(
            "--scores-file",
            "FILE",
            "CSV with a column architecture and the scores, such as `ghnas rank` writes.",
            "the table",
        ),
    ] = None,
    samplers: Annotated[
        str, text("--samplers", "LIST", "Which to compare, by name.")
    ] = "random,evolution,local,tpe,nsga2,predictor",
    trainings: Annotated[
        str, text("--trainings", "LIST", "After how many trainings the loss is taken.")
    ] = "8,16,32,64,128",
    seeds: Annotated[int, number("--seeds", "Searches of each sampler.")] = 20,
    split: Annotated[
        str,
        text(
            "--split",
            "all|tune|test",
            "By a digest of the architecture's text: a quarter for tuning, the others to report "
            "on.",
        ),
    ] = "all",
    workers: options.Workers = None,
    output: Annotated[
        Path | None, text("--output", "DIR", "The folder to write.", "bench-SPACE")
    ] = None,
    json: options.Json = False,
) -> None:
    """Compare samplers on a table of accuracies: which finds the best with the fewest trainings?

    A training is a look into the table, so a hundred searches take a minute. Shows how far the best
    found is from the table's best, after so many trainings, with 95 % intervals over seeds.
    """
    from ghnas.engine.bench import Table, bench
    from ghnas.reports.benches import bench_table, write_bench
    from ghnas.reports.numbers import format_seconds
    from ghnas.spaces import load_space
    from ghnas.training.truth_table import read_scores, read_truth, subset
    from ghnas.utils.devices import cores

    out = console(json)
    read = options.whole_number("--trainings")
    marks = sorted({read(item) for item in trainings.split(",")})
    names = [item.strip() for item in samplers.split(",")]
    known = subset(read_truth(table, column), split)
    wanted = [item.strip() for item in scores.split(",")] if scores else []
    if scores_file and not wanted:
        raise UserError("--scores-file needs --scores: the names of its columns")
    columns = read_scores(scores_file or table, wanted, known.architectures)
    chosen = load_space(space)
    content = Table(chosen, known.architectures, 100 * known.mean, columns)
    folder = output or Path(f"bench-{chosen.name}")
    began = time.monotonic()
    with meter(out, "searches") as shown:
        curves = bench(content, names, marks, seeds, workers or cores(), shown.update)
    took = format_seconds(time.monotonic() - began)
    notes = [
        f"{len(known.architectures):,} architectures of {chosen.name}, part {split}, "
        f"{known.column}: best {content.accuracies.max():.2f} %, mean "
        f"{content.accuracies.mean():.2f} %",
        f"regret: points below that best, mean over {seeds} seeds with a 95 % interval "
        "(percentile bootstrap over seeds, 1,000 samples)",
        f"made by `{shlex.join(['ghnas', *sys.argv[1:]])}` on {time.strftime('%Y-%m-%d')} "
        f"in {took}",
    ]
    write_bench(folder, curves, notes)
    result = {
        "output": str(folder),
        "table": str(table),
        "column": known.column,
        "split": split,
        "architectures": len(known.architectures),
        "methods": [curve.as_dict() for curve in curves],
    }
    write_atomically(folder / "bench.json", as_json(result))
    out.print(bench_table(curves))
    for note in notes[:2]:
        say(out, note)
    say(out, f"wrote {folder}: bench.md and .json, regret.svg")
    if json:
        print_json(result)
