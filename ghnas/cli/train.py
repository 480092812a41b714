"""`ghnas train`: train a graph hypernetwork."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ghnas.cli import options
from ghnas.cli.options import number, positive, text
from ghnas.cli.terminal import Meter, console, meter, print_json, say, say_compiling
from ghnas.utils.errors import UserError

if TYPE_CHECKING:
    from ghnas.training.hypernetwork.meta_batches import Source
    from ghnas.training.hypernetwork.training import TrainProgress

EXAMPLE = (
    "Example: ghnas train --space darts --data ./my-images --steps 20000 --output mine.safetensors"
)


def train(
    space: Annotated[
        str,
        text("--space", "NAME|FILE|general", "A search space, a YAML file, or a mixture of many."),
    ] = "darts",
    data: options.DataName = "embedded",
    preset: Annotated[str, text("--preset", "ghn2|ghn1|mlp", "The kind of hypernetwork.")] = "ghn2",
    steps: Annotated[int, number("--steps", "Updates in all.")] = 2000,
    meta_batch: Annotated[int, number("--meta-batch", "Architectures in each update.")] = 8,
    batch_size: Annotated[int, number("--batch-size", "Images in each update.", least=2)] = 64,
    learning_rate: Annotated[
        float,
        positive("--learning-rate", "Adam's, divided by 10 at 2/3 and at 5/6 of the steps."),
    ] = 1e-3,
    hid: Annotated[int, number("--hid", "Width of the hypernetwork: a multiple of 4.")] = 32,
    start: Annotated[
        str | None,
        text(
            "--from",
            "FILE|shipped",
            "Start from another hypernetwork: far fewer steps, also for other images.",
            "random weights",
        ),
    ] = None,
    architectures: Annotated[
        Path | None,
        text(
            "--architectures",
            "DIR",
            "Draw from the files of `ghnas generate`; they decide on the space.",
            "drawn on the fly",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        text("--output", "FILE", "The .safetensors file to write.", "SPACE-DATA.safetensors"),
    ] = None,
    cells: options.Cells = None,
    channels: options.Channels = None,
    image_size: options.ImageSize = None,
    evaluate_every: Annotated[
        int, number("--evaluate-every", "Steps between evaluations and saves.")
    ] = 200,
    average: Annotated[
        int,
        number("--average", "Write the mean of the weights at the last so many evaluations."),
    ] = 1,
    workers: Annotated[
        int | None,
        number("--workers", "Processes to train with.", "one for each core", least=0),
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Train a graph hypernetwork for a space and a data set.

    Shows loss, zero-shot accuracy on held-out architectures, rate and remaining time. Run the
    same command again to go on after an interruption.
    """
    from ghnas.data.sources import EMBEDDED
    from ghnas.ghn.checkpoint import find_ghn
    from ghnas.ghn.config import GENERAL, PRESETS, GHNConfig
    from ghnas.training.hypernetwork.mixture import MIXED_CLIP
    from ghnas.training.hypernetwork.training import Job, TrainSettings
    from ghnas.training.hypernetwork.training import train as run_training
    from ghnas.utils.devices import cores, pick_device

    if preset not in PRESETS:
        raise UserError(f"unknown preset {preset!r}: use {', '.join(PRESETS)}")
    if hid % 4:
        raise UserError(f"--hid must be a multiple of 4, not {hid}")
    if output is not None and output.suffix != ".safetensors":
        raise UserError(f"--output must end in .safetensors, not {output.name!r}")
    out = console(json)
    place = pick_device(device)
    files = None
    if architectures is None:
        chosen = _source(space, cells, channels)
    else:
        from ghnas.spaces.archive import Architectures

        files = Architectures(architectures)
        chosen = files.space
    images = options.load_images(out, data, image_size)
    output = output or Path(f"{chosen.name}-{images.name}.safetensors")
    settings = TrainSettings(
        steps=steps,
        meta_batch=meta_batch,
        batch_size=batch_size,
        learning_rate=learning_rate,
        network_clip=MIXED_CLIP if space == GENERAL else TrainSettings.network_clip,
        seed=seed,
        evaluate_every=evaluate_every,
        average=average,
        workers=min(cores(), meta_batch) if workers is None else workers,
    )
    config = GHNConfig(num_classes=images.num_classes, hid=hid, **PRESETS[preset])  # type: ignore[arg-type]
    origin = find_ghn(chosen.name, EMBEDDED) if start == "shipped" else start and Path(start)
    job = Job(chosen, images, config, settings, output, place, origin or None, files)
    say(out, f"training {preset} for {chosen.name} on {images.name}, {place.type}, into {output}")
    if place.type == "cpu":
        say_compiling(out, "execute", "differentiate")
    kept = "; the last evaluated state is kept: run the same command to go on"
    try:
        with meter(out, "steps", kept) as shown:
            info = run_training(job, lambda progress: _report(shown, progress))
    except OSError as error:
        error.filename = error.filename or str(output)
        raise
    say(out, f"wrote {output}")
    searched = "SPACE" if space == GENERAL else space
    say(out, f"search with it: ghnas search --space {searched} --data {data} --ghn {output}")
    if json:
        print_json({"output": str(output), "training": info.training})


def _source(space: str, cells: int | None, channels: int | None) -> Source:
    """The space that is named, or the mixture of all."""
    from ghnas.ghn.config import GENERAL
    from ghnas.training.hypernetwork.mixture import Mixture

    if space != GENERAL:
        return options.load_skeleton(space, cells=cells, channels=channels)
    if options.given(cells=cells, channels=channels):
        raise UserError("--cells and --channels do not fit --space general, which draws them")
    return Mixture()


def _report(shown: Meter, progress: TrainProgress) -> None:
    note = f"loss {progress.loss:.3f} train {100 * progress.accuracy:.1f} %"
    shown.update(progress.step, progress.steps, note, progress.steps_per_second)
    if progress.held_out is not None:
        shown.line(
            f"step {progress.step}: loss {progress.loss:.3f}, zero-shot accuracy on held-out "
            f"architectures {100 * progress.held_out:.1f} %"
        )
