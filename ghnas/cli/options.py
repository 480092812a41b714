"""Options that several commands share, how their values are read, and what they name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ghnas.cli.terminal import meter
from ghnas.utils.errors import UserError

if TYPE_CHECKING:
    from ghnas.data import ImageData
    from ghnas.spaces import Space

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
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
        match = _NUMBER.fullmatch(str(text).strip())
        value = float(match[1]) * _UNITS[match[2].lower()] if match else float("nan")
        if not value.is_integer() or value < least or (most is not None and value > most):
            raise UserError(f"{option} must be a whole number of {bounds}, not {text!r}")
        return int(value)

    return read


def positive_number(option: str) -> Callable[[Any], float]:
    """A reader of numbers above zero; see `whole_number`."""

    def read(text: Any) -> float:
        try:
            value = float(str(text))
        except ValueError:
            value = float("nan")
        if not 0 < value < float("inf"):
            raise UserError(f"{option} must be a number above 0, not {text!r}")
        return value

    return read


def share_of_one(option: str) -> Callable[[Any], float]:
    """A reader of numbers from 0 up to, but not, 1; see `whole_number`."""

    def read(text: Any) -> float:
        try:
            value = float(str(text))
        except ValueError:
            value = float("nan")
        if not 0 <= value < 1:
            raise UserError(f"{option} must be a number of at least 0 and below 1, not {text!r}")
        return value

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


def share(name: str, help: str) -> Any:
    """An option that takes a number of at least 0 and below 1."""
    return typer.Option(name, metavar="X", parser=share_of_one(name), help=help)


def positive(name: str, help: str) -> Any:
    """An option that takes a number above zero."""
    return typer.Option(name, metavar="X", parser=positive_number(name), help=help)


DEFAULT_RESULTS = Path("results")
IMAGES = "embedded, cifar10, a folder of images by class, or a folder of parquet files."
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
ImageSize = Annotated[
    int | None, number("--image-size", "Resize images to so many pixels each way.")
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
BatchSize = Annotated[int, number("--batch-size", "Images in a step.", least=2)]
Workers = Annotated[int | None, number("--workers", "Processes.", "one for each core")]
Column = Annotated[
    str | None,
    text(
        "--column",
        "NAME",
        "The accuracies' column.",
        "test_accuracy, or the first with accuracy in its name",
    ),
]
Seed = Annotated[int, number("--seed", "Equal seeds give equal results.", least=0)]


def given(**settings: Any) -> dict[str, Any]:
    """The settings that are not None."""
    return {key: value for key, value in settings.items() if value is not None}


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
