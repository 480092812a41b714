"""Options that several commands share, how their values are read, and what they name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ghnas.cli.terminal import meter
from ghnas.utils.errors import UserError

if TYPE_CHECKING:
    import torch

    from ghnas.data import ImageData
    from ghnas.spaces import Space
    from ghnas.utils.processes import Pool

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
_PART = r"(?:([0-9]{1,6}(?:\.[0-9]{1,6})?)%s)?"
_TIME = re.compile("".join(_PART % unit for unit in "hms"), re.IGNORECASE)
_MOST, _MOST_REAL = 10**18, 1e6
"""No count of anything that a computer does in a lifetime, and no rate or strength, is larger."""
_LATENCY = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?|\.[0-9]{1,6})(us|ms|s)", re.IGNORECASE)
_NUMBER = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?|\.[0-9]+)([kmgb]?)", re.IGNORECASE)


def whole_number(option: str, least: int = 1, most: int | None = None) -> Callable[[Any], int]:
    """A reader of whole numbers such as 10000, 10_000, 40k and 1.5M.

    Args:
        option: The option's name, for messages.
        least: The smallest value allowed.
        most: The largest value allowed.

    Returns:
        A function that raises UserError for anything else.
    """
    bounds = f"{least} or more" if most is None else f"{least} to {most}"

    def read(text: Any) -> int:
        match = _NUMBER.fullmatch(str(text).strip()[:100])
        value = Fraction(match[1]) * _UNITS[match[2].lower()] if match else Fraction("0.5")
        if value.denominator != 1 or not least <= value <= (most or _MOST):
            raise UserError(f"{option} must be a whole number of {bounds}, not {text!r}")
        return int(value)

    return read


def positive_number(option: str) -> Callable[[Any], float]:
    """A reader of numbers above zero; see `whole_number`."""
    return _real_number(option, "above 0", lambda value: 0 < value <= _MOST_REAL)


def share_of_one(option: str) -> Callable[[Any], float]:
    """A reader of numbers from 0 up to, but not, 1; see `whole_number`."""
    return _real_number(option, "of at least 0 and below 1", lambda value: 0 <= value < 1)


def _real_number(
    option: str, bounds: str, accepts: Callable[[float], bool]
) -> Callable[[Any], float]:
    def read(text: Any) -> float:
        try:
            value = float(str(text))
        except ValueError:
            value = float("nan")
        if not accepts(value):
            raise UserError(f"{option} must be a number {bounds}, not {text!r}")
        return value

    return read


def ascending_numbers(option: str) -> Callable[[Any], tuple[int, ...]]:
    """A reader of whole numbers such as 1,3 where each is above the one before; see
    `whole_number`."""
    read = whole_number(option)

    def read_all(text: Any) -> tuple[int, ...]:
        values = tuple(read(item) for item in str(text).split(","))
        if list(values) != sorted(set(values)):
            raise UserError(f"{option} must be a number, or several that ascend, not {text!r}")
        return values

    return read_all


def seconds(option: str, least: float = 1e-3) -> Callable[[Any], float]:
    """A reader of times such as 90s, 30m, 2h and 1h30m, as seconds.

    Args:
        option: The option's name, for messages.
        least: The shortest time allowed; with 0 a plain 0 is one.
    """
    example = "a time such as 90s, 30m or 1h30m" + (", or 0" if least == 0 else "")

    def read(text: Any) -> float:
        match = _TIME.fullmatch(str(text).strip())
        parts = match.groups() if match and any(match.groups()) else ()
        found = sum(
            unit * float(part or 0) for unit, part in zip((3600, 60, 1), parts, strict=False)
        )
        nothing = str(text).strip() == "0"
        if not (parts or nothing) or found < least:
            raise UserError(f"{option} must be {example}, not {text!r}")
        return found

    return read


def latency(option: str) -> Callable[[Any], float]:
    """A reader of short times such as 5ms, 800us and 0.1s, as seconds; see `seconds`."""

    def read(text: Any) -> float:
        match = _LATENCY.fullmatch(str(text).strip())
        found = (
            float(match[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[match[2].lower()] if match else 0
        )
        if found <= 0:
            raise UserError(f"{option} must be a time such as 5ms, 800us or 0.1s, not {text!r}")
        return found

    return read


def text(name: str, metavar: str, help: str, default: str = "") -> Any:
    """An option that takes a word or a path.

    Args:
        name: With dashes.
        metavar: What the help calls its value.
        help: A sentence.
        default: What the help says of it; empty: the value itself.
    """
    return typer.Option(name, metavar=metavar, help=help, show_default=default or True)


def number(
    name: str,
    help: str,
    default: str = "",
    *,
    least: int = 1,
    most: int | None = None,
    earlier: str | None = None,
) -> Any:
    """An option that takes a whole number; see `text` and `whole_number`.

    Args:
        earlier: What it was called before; goes on working.
    """
    names = [name, earlier] if earlier else [name]
    reader = whole_number(name, least, most)
    return typer.Option(*names, metavar="N", parser=reader, help=help, show_default=default or True)


def numbers(name: str, help: str, default: str, *, earlier: str | None = None) -> Any:
    """An option that takes ascending whole numbers; see `number`."""
    names = [name, earlier] if earlier else [name]
    return typer.Option(
        *names, metavar="N,...", parser=ascending_numbers(name), help=help, show_default=default
    )


def duration(name: str, reader: Callable[[Any], float], help: str, default: str = "none") -> Any:
    """An option that takes a time.

    Args:
        name: With its dashes.
        reader: Of what is given, as `seconds` and `latency` make them.
        help: What it does.
        default: What stands in the help for the default.
    """
    return typer.Option(name, metavar="TIME", parser=reader, help=help, show_default=default)


def share(name: str, help: str) -> Any:
    """An option that takes a number of at least 0 and below 1."""
    return typer.Option(name, metavar="X", parser=share_of_one(name), help=help)


def positive(name: str, help: str) -> Any:
    """An option that takes a number above zero."""
    return typer.Option(name, metavar="X", parser=positive_number(name), help=help)


BUDGET, MOST_SEED = 1000, 2**62
DEFAULT_RESULTS = Path("results")
IMAGES = "embedded, cifar10, or a folder: of images by class, parquet files or tar shards."
Results = Annotated[Path, text("--results", "DIR", "The folder that holds the runs.")]
RunName = Annotated[str | None, text("--run", "RUN", "A run's name or folder.", "the latest")]
Device = Annotated[str, text("--device", "auto|cpu|cuda", "Where to compute; auto takes a GPU.")]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print the result as JSON on stdout, progress on stderr."),
]
SpaceName = Annotated[str, text("--space", "NAME|FILE", "A search space, or a YAML file.")]
DataName = Annotated[str, text("--data", "NAME|DIR", IMAGES)]
Cells = Annotated[
    int | None, number("--cells", "Cells of the network, or of each of its stages.", most=200)
]
Channels = Annotated[int | None, number("--channels", "Channels of the first cell.", most=4096)]
Adapt = Annotated[
    float | None,
    duration(
        "--adapt",
        seconds("--adapt", least=0),
        "Where none was trained for space and images: train the nearest one on for so long, "
        "such as 90s, 5m or 1h, once; 0: score by a training-free proxy instead.",
        "5m",
    ),
]
ImageSize = Annotated[
    int | None, number("--image-size", "Resize images to so many pixels each way.", most=1024)
]
GHN = Annotated[
    Path | None,
    text(
        "--ghn",
        "NAME|FILE",
        "A hypernetwork that ships, such as darts-cifar10, or one made by `ghnas train`.",
        "the one that ships",
    ),
]
Augmentation = Annotated[
    str,
    text(
        "--augment",
        "shift|crop|randaugment",
        "Images moved by a pixel, random resized crops, or crops with RandAugment.",
    ),
]
BatchSize = Annotated[int, number("--batch-size", "Images in a step.", least=2, most=2**20)]
Cluster = Annotated[
    str | None,
    text(
        "--cluster",
        "auto|ADDRESS",
        "Use the workers of a Ray cluster: the one of this machine, or ray://HOST:10001.",
        "this machine's processes",
    ),
]
Workers = Annotated[int | None, number("--workers", "Processes.", "one for each core", most=1024)]
Column = Annotated[
    str | None,
    text(
        "--column",
        "NAME",
        "The accuracies' column.",
        "test_accuracy, or the first with accuracy in its name",
    ),
]
Budget = Annotated[int | None, number("--budget", "Candidates to score.", str(BUDGET), most=10**8)]
SearchSeed = Annotated[
    int | None, number("--seed", "Equal seeds give equal runs.", "0", least=0, most=MOST_SEED)
]
Seed = Annotated[int, number("--seed", "Equal seeds give equal results.", least=0, most=MOST_SEED)]


def pool_of(cluster: str | None, workers: int | None = None) -> Pool:
    """Where a command computes.

    Args:
        cluster: Of --cluster.
        workers: Of --workers; None: one for each core, or as many as the cluster holds.

    Raises:
        UserError: If the cluster cannot be used.
    """
    from ghnas.utils.devices import cores
    from ghnas.utils.processes import LocalPool

    if cluster is None:
        return LocalPool(workers or cores())
    from ghnas.utils.cluster import RayPool

    return RayPool(cluster, workers=workers)


def device_of(device: str, cluster: str | None) -> torch.device:
    """Where to compute; the workers of a cluster do so on CPUs.

    Raises:
        UserError: If there is no such device, or it is a GPU and there is a cluster.
    """
    from ghnas.utils.devices import pick_device

    if cluster is None:
        return pick_device(device)
    if device not in ("auto", "cpu"):
        raise UserError("the workers of a cluster compute on CPUs: leave --device out")
    return pick_device("cpu")


def given(**settings: Any) -> dict[str, Any]:
    """The settings that are not None."""
    return {key: value for key, value in settings.items() if value is not None}


READY_MADE = ("embedded", "digitscapes", "cifar10")
"""Data sets that are no folder."""


def data_source(spec: str) -> str:
    """What a run remembers of `--data`: a folder by its full path, so that it is found again."""
    from ghnas.data.sources import data_folder

    folder = data_folder(spec)
    return str(folder.resolve()) if spec not in READY_MADE and folder.is_dir() else spec


def load_skeleton(name: str, known: Mapping[str, Any] | None = None, **settings: Any) -> Space:
    """A space with other settings of its skeleton.

    Args:
        name: Of the space, or its file.
        known: Settings that stand for those in the space's file, where none are given.
        settings: What was given; None where nothing was.

    Raises:
        UserError: If there is no such space, or it has no such setting.
    """
    from ghnas.spaces import load_space

    return load_space(name).with_skeleton(**{**(known or {}), **given(**settings)})


def load_images(out: Console, spec: str, image_size: int | None) -> ImageData:
    """A data set, with a meter while many files are read.

    Raises:
        UserError: If it cannot be found, read or used.
    """
    from ghnas.data import load_data

    with meter(out, "images") as shown:
        return load_data(spec, image_size=image_size, progress=shown.update)


def shipped_ghn(out: Console, space: str, space_name: str, data: str) -> Path:
    """The hypernetwork that ships for a space and a data set.

    Args:
        out: Where to show progress.
        space: The space's name.
        space_name: What the user called it: a name or a file.
        data: The data set's name or folder.

    Raises:
        UserError: If none ships, with the command that trains one; before that, whatever is
            wrong with the images, for the training would stop there.
    """
    from ghnas.data import data_name
    from ghnas.ghn.checkpoint import find_ghn, train_command

    try:
        return find_ghn(space, data_name(data), train_command(space_name, data))
    except UserError:
        load_images(out, data, None)
        raise
