"""`ghnas finetune`: train the best candidates from their predicted weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ghnas.cli import options
from ghnas.cli.terminal import Meter, console, meter, print_json, say

if TYPE_CHECKING:
    from ghnas.finetune import EpochReport

EXAMPLE = "Example: ghnas finetune top-5 --epochs 20 --baseline"


def finetune(
    which: Annotated[
        str, typer.Argument(metavar="WHICH", help="top-N, front, trial-N or a genotype in quotes.")
    ] = "top-5",
    run: options.RunName = None,
    epochs: Annotated[int, options.number_option("--epochs", "Passes over the images.")] = 10,
    batch_size: Annotated[
        int, options.number_option("--batch-size", "Images in a step.", least=2)
    ] = 64,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            metavar="X",
            parser=options.positive_number("--learning-rate"),
            help="Of SGD at the start; it falls to 0 along a cosine.",
            show_default="by the trainer",
        ),
    ] = None,
    baseline: Annotated[
        bool,
        typer.Option(
            "--baseline", help="Train from Kaiming initialisation too, and count the steps saved."
        ),
    ] = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    results: options.Results = options.DEFAULT_RESULTS,
    json: options.Json = False,
) -> None:
    """Fine-tune the best candidates of a run with SGD, from the hypernetwork's weights.

    Writes weights, architecture and history for ghnas.load(path), which gives the trained
    network back. Test images are read here alone.
    """
    from ghnas.cli.selection import select
    from ghnas.device import pick_device
    from ghnas.finetune import FinetuneSettings
    from ghnas.finetune import finetune as run_finetuning
    from ghnas.study import find_run
