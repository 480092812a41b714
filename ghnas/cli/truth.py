"""`ghnas truth`: train architectures from scratch, to know what a ranking is worth."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ghnas.cli import options
from ghnas.cli.options import number, positive, text
from ghnas.cli.terminal import console, meter, print_json, say, say_compiling

if TYPE_CHECKING:
    from ghnas.training.ground_truth import GroundTruthSummary

EXAMPLE = (
    "Example: ghnas truth --space darts --data ./my-images --count 20 --seeds 2 --steps 500, "
    "then ghnas rank --truth truth-darts-my-images.csv --data ./my-images"
)


def truth(
    space: options.SpaceName = "darts",
    data: options.DataName = "embedded",
    count: Annotated[
        int, number("--count", "Random architectures, no two the same.", least=2)
    ] = 20,
    seeds: Annotated[int, number("--seeds", "Trainings of each; 2 or more show the noise.")] = 2,
    steps: Annotated[int, number("--steps", "SGD steps of each training.")] = 500,
    learning_rate: Annotated[
        float, positive("--learning-rate", "At the first step; it falls to zero as a cosine.")
    ] = 0.1,
    batch_size: options.BatchSize = 64,
    cells: options.Cells = None,
    channels: options.Channels = None,
    image_size: options.ImageSize = None,
    test: Annotated[
        bool, typer.Option("--test", help="Measure on the test images too, for final figures.")
    ] = False,
    seed: Annotated[
        int, number("--seed", "Which architectures are drawn.", least=0, most=options.MOST_SEED)
    ] = 0,
    device: options.Device = "auto",
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    output: Annotated[
        Path | None,
        text("--output", "FILE", "The CSV file to write.", "truth-SPACE-DATA.csv"),
    ] = None,
    json: options.Json = False,
) -> None:
    """Train random architectures of a space, each from several seeds.

    Tells how far two trainings of the same architectures agree: no ranking can be better than
    that. `ghnas rank --truth` compares rankings with what is written here. Run the same command
    again to go on after an interruption; a larger --count or --seeds adds to the file.
    """
    from ghnas.training.ground_truth import (
        GroundTruthJob,
        accuracies_by_seed,
        draw_architectures,
        make_ground_truth,
        summarise_ground_truth,
    )
    from ghnas.training.sgd import SGDSettings

    out, place = console(json), options.device_of(device, cluster)
    pool = options.pool_of(cluster, workers)
    chosen = options.load_skeleton(space, cells=cells, channels=channels)
    images = options.load_images(out, data, image_size)
    names = draw_architectures(chosen, images.image_shape, images.num_classes, count, seed)
    output = output or Path(f"truth-{chosen.name}-{images.name}.csv")
    job = GroundTruthJob(
        space=chosen,
        data=images.without_test(),
        test=images.load_test() if test else None,
        architectures=names,
        seeds=seeds,
        drawn=f"seed {seed}",
        output=output,
        pool=pool,
        steps=steps,
        batch_size=batch_size,
        sgd=SGDSettings(learning_rate),
        device=place,
    )
    say(
        out,
        f"training {count} architectures of {chosen.name} from {seeds} seeds on {images.name} "
        f"at {images.image_shape[-1]}x{images.image_shape[-1]}, {steps} steps each, into {output}",
    )
    if place.type == "cpu":
        say_compiling(out, "execute", "differentiate")
    kept = f"; finished trainings are in {output}: run the same command again"
    with meter(out, "trainings", kept) as shown:
        rows = make_ground_truth(
            job, lambda p: shown.update(p.done, p.total, _describe(p.seconds, p.accuracy))
        )
    column = "test_accuracy" if test else "validation_accuracy"
    summary = summarise_ground_truth(accuracies_by_seed(rows, column)[1])
    _print(out, summary, column, output, space, data)
    if json:
        print_json({"output": str(output), "column": column, **asdict(summary)})


def _describe(seconds: float, accuracy: float) -> str:
    from ghnas.reports.numbers import format_percent, format_seconds

    known = accuracy == accuracy
    return f"last {format_percent(accuracy)} in {format_seconds(seconds)}" if known else ""


def _print(
    out: Console, summary: GroundTruthSummary, column: str, output: Path, space: str, data: str
) -> None:
    from ghnas.reports.numbers import format_estimate, format_percent
    from ghnas.reports.tables import table

    measured = "test" if column == "test_accuracy" else "validation"
    rows: list[tuple[str, str]] = [
        ("mean accuracy", format_percent(summary.mean)),
        ("worst to best", f"{format_percent(summary.worst)} to {format_percent(summary.best)}"),
        ("standard deviation between architectures", format_percent(summary.between_architectures)),
    ]
    if summary.seeds > 1:
        rows += [
            ("standard deviation between seeds", format_percent(summary.between_seeds)),
            ("Spearman of one seed with another", format_estimate(summary.ceiling)),
            ("the most that a score can reach", f"{summary.ceiling_of_mean:.2f}"),
        ]
    out.print(
        table(
            f"{summary.architectures} architectures, {summary.seeds} seeds",
            ("", "value"),
            rows,
            caption=f"{measured} accuracy, running statistics; 95 % bootstrap interval",
        )
    )
    say(out, f"wrote {output}")
    say(out, f"next: ghnas rank --truth {output} --space {space} --data {data}")
