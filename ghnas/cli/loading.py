"""From what the command line says to spaces, images and hypernetworks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ghnas.cli.terminal import meter, say
from ghnas.utils.errors import UserError

if TYPE_CHECKING:
    from ghnas.data import ImageData
    from ghnas.ghn.config import GHNInfo
    from ghnas.ghn.model import GHN
    from ghnas.spaces import Space

READY_MADE = ("embedded", "digitscapes", "cifar10")


def load_skeleton(
    name: str, cells: int | None, channels: int | None, known: Mapping[str, Any] | None = None
) -> Space:
    """A space with the skeleton settings that were given.

    Args:
        name: Of the space, or its file.
        cells: If it was given.
        channels: The same.
        known: Settings that stand for those in the space's file, where none were given.

    Raises:
        UserError: If there is no such space, or it has no such setting.
    """
    from ghnas.spaces import load_space

    space = load_space(name)
    changes = {"cells": cells, "channels": channels}
    given = {key: value for key, value in changes.items() if value is not None}
    settings = {**(known or {}), **given}
    return space.with_skeleton(**settings) if settings else space


def skeleton_for(
    out: Console, name: str, cells: int | None, channels: int | None, info: GHNInfo
) -> Space:
    """A space with the settings that were given, and else as a hypernetwork was trained for.

    A file of the user's own says itself what it is.

    Args:
        out: Where to say that it is not that of the space's file.
        name: Of the space, or its file.
        cells: If it was given.
        channels: The same.
        info: What the hypernetwork was trained for.

    Raises:
        UserError: As `load_skeleton`.
    """
    from ghnas.ghn.checkpoint import trained_skeleton
    from ghnas.reports.tables import describe_skeleton
    from ghnas.spaces import list_spaces

    space = load_skeleton(name, cells, channels)
    if name not in list_spaces():
        return space
    given = {"cells": cells, "channels": channels}
    settings = {key: value for key, value in given.items() if value is not None}
    trained = trained_skeleton(info, space)
    trained = trained.with_skeleton(**settings) if settings else trained
    if trained.skeleton != space.skeleton:
        shape = describe_skeleton(trained.skeleton)
        say(out, f"networks as the hypernetwork was trained for: {shape}")
    return trained


def data_source(spec: str) -> str:
    """What a run remembers of `--data`: a folder by its full path, so that it is found again."""
    folder = Path(spec).expanduser()
    return str(folder.resolve()) if spec not in READY_MADE and folder.is_dir() else spec


def load_images(out: Console, spec: str, image_size: int | None) -> ImageData:
    """A data set, with a meter while many files are read.

    Raises:
        UserError: If it cannot be found, read or used.
    """
    from ghnas.data import load_data

    with meter(out, "images") as shown:
        return load_data(spec, image_size=image_size, progress=shown.update)


@dataclass(frozen=True)
class Prepared:
    """What a search computes with."""

    space: Space
    data: ImageData
    ghn: GHN


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


def prepare(out: Console, space: Space, space_name: str, data: str, ghn: Path | None) -> Prepared:
    """Load the data set and the hypernetwork of a search, and make sure that they fit.

    Args:
        out: Where to show progress.
        space: The search space.
        space_name: What the user called it: a name or a file.
        data: The data set's name or folder; images get the size that the hypernetwork knows.
        ghn: The hypernetwork's file; None takes the one that ships.

    Raises:
        UserError: If something is missing, damaged or does not fit, with what to do.
    """
    from ghnas.ghn.checkpoint import load_ghn, refuse_mismatch, train_command

    model = load_ghn(ghn or shipped_ghn(out, space.name, space_name, data))
    shape = model.info.image_shape
    images = load_images(out, data, shape[-1] if shape else None)
    refuse_mismatch(model, space, images, train_command(space_name, data))
    return Prepared(space, images, model)
