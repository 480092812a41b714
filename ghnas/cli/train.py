"""`ghnas train`: train a graph hypernetwork."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ghnas.cli import options
from ghnas.cli.options import number, positive, text
from ghnas.cli.terminal import Meter, console, meter, print_json, say, say_compiling
from ghnas.utils.errors import UserError

if TYPE_CHECKING:
    from ghnas.data import ImageData
    from ghnas.ghn.config import GHNConfig
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
    preset: Annotated[
        str | None,
        text("--preset", "ghn2|ghn1|mlp", "The kind of hypernetwork.", "ghn2, or as --from"),
    ] = None,
    steps: Annotated[int, number("--steps", "Updates in all.")] = 2000,
    meta_batch: Annotated[
        int, number("--meta-batch", "Architectures in each update.", most=4096)
    ] = 8,
    batch_size: Annotated[
        int, number("--batch-size", "Images in each update.", least=2, most=2**20)
    ] = 64,
    learning_rate: Annotated[
        float,
        positive("--learning-rate", "Adam's, divided by 10 at 2/3 and at 5/6 of the steps."),
    ] = 1e-3,
    hid: Annotated[
        int | None,
        number(
            "--hid", "Width of the hypernetwork: a multiple of 4.", "32, or as --from", most=4096
        ),
    ] = None,
    start: Annotated[
        str | None,
        text(
            "--from",
            "NAME|FILE",
            "Start from another hypernetwork, of any space and images: far fewer steps. general "
            "and shipped name the nearest that ships, see `ghnas ghns`.",
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
    augment: options.Augmentation = "shift",
    evaluate_every: Annotated[
        int, number("--evaluate-every", "Steps between evaluations and saves.")
    ] = 200,
    average: Annotated[
        int,
        number("--average", "Write the mean of the weights at the last so many evaluations."),
    ] = 1,
    workers: Annotated[
        int | None,
        number("--workers", "Processes to train with.", "one for each core", least=0, most=1024),
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Train a graph hypernetwork for a space and a data set.

    Shows loss, zero-shot accuracy on held-out architectures, rate and remaining time. Run the
    same command again to go on after an interruption.
    """
    from ghnas.data.augmentation import check_augment
    from ghnas.ghn.config import GENERAL, PRESETS
    from ghnas.training.hypernetwork.mixture import MIXED_CLIP
    from ghnas.training.hypernetwork.training import Job, TrainSettings
    from ghnas.training.hypernetwork.training import train as run_training
    from ghnas.utils.devices import cores, pick_device

    if preset is not None and preset not in PRESETS:
        raise UserError(f"unknown preset {preset!r}: use {', '.join(PRESETS)}")
    if hid is not None and hid % 4:
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
        augment=check_augment(augment),
        seed=seed,
        evaluate_every=evaluate_every,
        average=average,
        workers=min(cores(), meta_batch) if workers is None else workers,
    )
    origin = start_file(start, chosen, images) if start else None
    config = _config(images.num_classes, preset, hid, origin)
    job = Job(chosen, images, config, settings, output, place, origin, files)
    kind = f"from {start}" if start else preset or "ghn2"
    say(out, f"training {kind} for {chosen.name} on {images.name}, {place.type}, into {output}")
    if place.type == "cpu":
        say_compiling(out, "execute", "differentiate")
    kept = "; the last evaluated state is kept: run the same command to go on"
    with meter(out, "steps", kept) as shown:
        info = run_training(job, lambda progress: _report(shown, progress))
    say(out, f"wrote {output}")
    searched = "SPACE" if space == GENERAL else space
    say(out, f"search with it: ghnas search --space {searched} --data {data} --ghn {output}")
    if json:
        print_json({"output": str(output), "training": info.training})


def start_file(name: str, space: Source, data: ImageData) -> Path:
    """The file of the hypernetwork that --from names.

    Args:
        name: `general`, `shipped`, one of `ghnas ghns`, or a file.
        space: What is trained for.
        data: The same.

    Raises:
        UserError: If no general one ships.
    """
    from ghnas.data.sources import EMBEDDED
    from ghnas.ghn.checkpoint import shipped_ghn
    from ghnas.ghn.library import bases, cached, shipped

    known = shipped()
    nearest = bases(space.name, data, known)
    if name == "shipped":
        return shipped_ghn(space.name, EMBEDDED) or nearest[0].path
    if name == "general":
        general = [item.path for item in nearest if item.is_general]
        if not general:
            raise UserError("no general hypernetwork ships: --from shipped takes the nearest")
        return general[0]
    return {item.name: item.path for item in [*cached(), *known]}.get(name, Path(name))


def _config(classes: int, preset: str | None, hid: int | None, origin: Path | None) -> GHNConfig:
    """How the hypernetwork is built: as was asked for, else as the one to start from."""
    from ghnas.ghn.checkpoint import load_ghn
    from ghnas.ghn.config import PRESETS, GHNConfig

    if origin is None or preset is not None:
        kind: Any = PRESETS[preset or "ghn2"]
        return GHNConfig(num_classes=classes, hid=hid or 32, **kind)
    config = load_ghn(origin).config
    return replace(config, num_classes=classes, hid=hid or config.hid)


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
    show_training(shown, progress, note)


def show_training(shown: Meter, progress: TrainProgress, note: str) -> None:
    """How far the training of a hypernetwork is; a line for each evaluation."""
    shown.update(progress.step, progress.steps, note, progress.steps_per_second)
    if progress.held_out is not None:
        shown.line(
            f"step {progress.step}: loss {progress.loss:.3f}, zero-shot accuracy on held-out "
            f"architectures {100 * progress.held_out:.1f} %"
        )
