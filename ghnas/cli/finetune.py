"""`ghnas finetune`: train the best candidates from their predicted weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ghnas.cli import options
from ghnas.cli.options import number, positive, share, text
from ghnas.cli.terminal import console, meter, print_json, say, say_compiling
from ghnas.utils.errors import UserError

if TYPE_CHECKING:
    from ghnas.engine.run import Run
    from ghnas.engine.stages.finetuning import EpochReport, FinetuneResult

EXAMPLE = "Example: ghnas finetune top-5 --epochs 20 --baseline"


def finetune(
    which: Annotated[
        str, typer.Argument(metavar="WHICH", help="top-N, front, trial-N or a genotype in quotes.")
    ] = "top-5",
    run: options.RunName = None,
    epochs: Annotated[int, number("--epochs", "Passes over the images.")] = 5,
    batch_size: options.BatchSize = 64,
    learning_rate: Annotated[
        float, positive("--learning-rate", "Of SGD, at the first step.")
    ] = 0.1,
    baseline: Annotated[
        bool,
        typer.Option(
            "--baseline", help="Train from Kaiming initialisation too, and count the steps saved."
        ),
    ] = False,
    cells: options.Cells = None,
    channels: options.Channels = None,
    image_size: options.ImageSize = None,
    shots: Annotated[int | None, number("--shots", "Training images of each class.", "all")] = None,
    start: Annotated[
        str | None,
        text(
            "--start",
            "ghn|kaiming|trained",
            "From predicted weights, from Kaiming initialisation, or from those of the candidate's "
            "fine-tuned network where they fit into a larger one.",
            "ghn; kaiming for networks of another size than the search's",
        ),
    ] = None,
    cutout: Annotated[
        int, number("--cutout", "Side in pixels of the square cut from each image.", least=0)
    ] = 0,
    path_dropout: Annotated[
        float, share("--path-dropout", "Share of paths left out, rising from 0 to this.")
    ] = 0.0,
    auxiliary: Annotated[
        float, share("--auxiliary", "Weight of the loss of a second classifier inside.")
    ] = 0.0,
    label_smoothing: Annotated[
        float, share("--label-smoothing", "Share of the labels spread over all classes.")
    ] = 0.0,
    average: Annotated[
        float, share("--average", "Decay of the mean of the weights, which is kept: 0.999.")
    ] = 0.0,
    precision: Annotated[
        str, text("--precision", "fp32|bf16", "Of forward and backward; bf16 is autocast's.")
    ] = "fp32",
    accumulate: Annotated[
        int, number("--accumulate", "Parts of a batch, one after the other: less memory.")
    ] = 1,
    augment: options.Augmentation = "shift",
    seed: options.Seed = 0,
    device: options.Device = "auto",
    cluster: options.Cluster = None,
    results: options.Results = options.DEFAULT_RESULTS,
    json: options.Json = False,
) -> None:
    """Fine-tune the best candidates of a run with SGD, from the hypernetwork's weights.

    A run without a hypernetwork has its candidates trained from Kaiming initialisation, and so has
    a network of another size: --cells 20 --channels 36 --image-size 32 --epochs 600 --batch-size
    96 --learning-rate 0.025 --cutout 16 --path-dropout 0.2 --auxiliary 0.4 is the field's full
    training of a DARTS cell. Every finished epoch is kept.

    Writes weights, architecture and history for ghnas.load(path), which gives the trained
    network back. Test images are read here alone.
    """
    from ghnas.engine.runs import find_run, select

    place = options.device_of(device, cluster)
    found = find_run(results, run)
    chosen = select(found, which)

    from ghnas.data.augmentation import check_augment
    from ghnas.engine.stages.finetuning import FinetuneSettings, NetworkForm
    from ghnas.engine.stages.finetuning import finetune as run_finetuning
    from ghnas.training.recipe import Recipe

    if start not in (None, "ghn", "kaiming", "trained"):
        raise UserError(f"--start is ghn, kaiming or trained, not {start!r}")
    if precision not in ("fp32", "bf16"):
        raise UserError(f"--precision is fp32 or bf16, not {precision!r}")
    form = NetworkForm(options.given(cells=cells, channels=channels), image_size, start)  # type: ignore[arg-type]
    recipe = Recipe(
        cutout, path_dropout, auxiliary, label_smoothing, average,
        precision,  # type: ignore[arg-type]
        accumulate,
    )  # fmt: skip
    settings = FinetuneSettings(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        baseline=baseline,
        recipe=recipe,
        shots=shots,
        augment=check_augment(augment),
    )
    out = console(json)
    pool = options.pool_of(cluster)
    names = ", ".join(f"{item.name}{form.suffix}" for item in chosen)
    why = ""
    if not found.manifest.uses_ghn:
        why = ", for the run has no hypernetwork"
    elif form.suffix and start is None:
        why = ", for the hypernetwork was trained for networks of another size"
    if start == "trained":
        say(out, f"training {names} of {found.name}, {place.type}, from trained weights")
    elif why or start == "kaiming":
        way = f"from Kaiming initialisation{why}"
        say(out, f"training {names} of {found.name}, {place.type}, {way}")
    else:
        say(out, f"fine-tuning {names} of {found.name}, {place.type}")
    if place.type == "cpu":
        say_compiling(out, "execute", "differentiate")
    kept = "; finished epochs are kept: run the same command to go on"
    with meter(out, "epochs", kept) as shown:

        def report(epoch: EpochReport) -> None:
            shown.line(
                f"{epoch.name:<10}  {epoch.start:<7}  epoch {epoch.epoch}/{epoch.epochs}  "
                f"loss {epoch.loss:.3f}  validation {100 * epoch.accuracy:.1f} %  "
                f"{epoch.seconds:.1f} s"
            )
            if out.is_terminal:  # a bar below the lines
                shown.update(epoch.done, epoch.total)

        finished = run_finetuning(found, chosen, settings, place, report, form, pool)
    if json:
        print_json([_as_dict(found, item) for item in finished])
    else:
        _print_results(out, finished)


def _print_results(out: Console, finished: Sequence[FinetuneResult]) -> None:
    from ghnas.reports.tables import baseline_table, finetune_table

    say(out, "")
    out.print(finetune_table(finished))
    if any(item.baseline for item in finished):
        say(out, "")
        out.print(baseline_table(finished))
    for item in finished:
        say(out, f"ghnas.load({str(item.path)!r})")


def _as_dict(run: Run, item: FinetuneResult) -> dict[str, Any]:
    trained = asdict(item.trained)
    del trained["steps_saved"]
    return (
        item.trial.as_dict(run.manifest.objectives)
        | {"parameters": item.parameters, "flops": item.flops}
        | {"path": str(item.path), "zero_shot": item.zero_shot}
        | trained
        | {"baseline": item.baseline and asdict(item.baseline)}
    )
