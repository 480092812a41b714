"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ghnas.utils.errors import UserError

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


def number_option(
    name: str,
    help: str,
    least: int = 1,
    most: int | None = None,
    show_default: bool | str = True,
) -> Any:
    """An option that takes a whole number."""
    return typer.Option(
        name,
        metavar="N",
        parser=whole_number(name, least, most),
        help=help,
        show_default=show_default,
    )


def learning_rate_option(help: str) -> Any:
    """`--learning-rate`, a number above zero."""
    name = "--learning-rate"
    return typer.Option(name, metavar="X", parser=positive_number(name), help=help)


DEFAULT_RESULTS = Path("results")
Results = Annotated[
    Path, typer.Option("--results", metavar="DIR", help="The folder that holds the runs.")
]
RunName = Annotated[
    str | None,
    typer.Option("--run", metavar="RUN", help="A run's name or folder.", show_default="the latest"),
]
Device = Annotated[
    str,
    typer.Option("--device", metavar="auto|cpu|cuda", help="Where to compute; auto takes a GPU."),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print the result as JSON on stdout, progress on stderr."),
]
Space = Annotated[
    str, typer.Option("--space", metavar="NAME|FILE", help="A search space, or a YAML file.")
]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="NAME|DIR",
        help="embedded, cifar10, a folder of images by class, or a folder of parquet files.",
    ),
]
Cells = Annotated[
    int | None,
    number_option("--cells", "Cells of the network, or of each of its stages.", most=200),
]
Channels = Annotated[
    int | None, number_option("--channels", "Channels of the first cell.", most=4096)
]
GHN = Annotated[
    Path | None,
    typer.Option(
        "--ghn",
        metavar="NAME|FILE",
        help="A hypernetwork that ships, such as darts-cifar10, or one made by `ghnas train`.",
        show_default="the one that ships",
    ),
]
Seed = Annotated[int, number_option("--seed", "Equal seeds give equal results.", least=0)]
