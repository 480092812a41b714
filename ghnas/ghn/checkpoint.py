"""Hypernetwork files: safetensors with everything else in the header. Nothing is executed."""

from __future__ import annotations

import hashlib
import json
import shlex
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ghnas.data import ImageData
from ghnas.ghn.config import GENERAL, GHNConfig, GHNInfo
from ghnas.ghn.encoder import channel_table
from ghnas.ghn.model import GHN, restored
from ghnas.ghn.published import read_published, write_published
from ghnas.spaces import Space
from ghnas.spaces.files import explain
from ghnas.utils.errors import UserError, UserNote
from ghnas.utils.tensor_files import (
    is_pytorch_file,
    read_metadata,
    read_tensors,
    write_tensors,
)

FORMAT = "1"
FOLDER = Path(__file__).resolve().parent.parent / "checkpoints"


class GHNMismatchWarning(UserNote):
    """A hypernetwork is used for networks or images that it was not trained for.

    Example:
        >>> import warnings
        >>> import ghnas
        >>> ghn, data = ghnas.load_ghn("darts-embedded"), ghnas.load_data("embedded")
        >>> deeper = ghnas.load_space("darts").with_skeleton(cells=8)
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     trained = ghnas.ZeroShot(ghn, data).space_for(deeper)
        >>> str(caught[0].message).partition(":")[0]
        'the hypernetwork was trained for cells 5, these networks have cells 8'
    """


def list_ghns() -> dict[str, Path]:
    """The hypernetworks that ship with the package, by name: the space and the data set.

    Example:
        >>> import ghnas
        >>> sorted(ghnas.list_ghns())[:3]
        ['darts-cifar10', 'darts-embedded', 'general-cifar10']
    """
    files = sorted(FOLDER.glob("*.safetensors"))
    return {path.stem.replace("digitscapes", "embedded"): path for path in files}


def save_ghn(path: Path, ghn: GHN) -> None:
    """Write a hypernetwork; an existing file is replaced in one step.

    Args:
        path: Ends in `.safetensors`, our format, or in `.pt`, that of the published checkpoints,
            which has no room for `ghn.info`.
        ghn: The hypernetwork.

    Raises:
        UserError: If `path` ends otherwise.
    """
    if path.suffix == ".pt":
        return write_published(path, ghn)
    if path.suffix != ".safetensors":
        raise UserError(f"a GHN file must end in .safetensors or .pt, not {path.name!r}")
    header = asdict(ghn.info) | {"config": ghn.config.as_dict()}
    del header["sha256"], header["path"]
    metadata = {"format": FORMAT, "ghnas": json.dumps(header)}
    return write_tensors(path, ghn.state_dict(), metadata)


def load_ghn(name: str | PathLike[str]) -> GHN:
    """Read a hypernetwork.

    Args:
        name: One that ships (`list_ghns`), a file of ours, or one in the format of the published
            PyTorch checkpoints.

    Returns:
        The hypernetwork in evaluation mode on the CPU; its `info` says what it was trained for.

    Raises:
        UserError: If there is none, or it is damaged or not a hypernetwork.

    Example:
        >>> import ghnas
        >>> ghnas.load_ghn("darts-embedded").info.space
        'darts'
    """
    shipped = list_ghns()
    path = shipped.get(str(name)) or Path(name)
    if not path.is_file():
        raise UserError(
            f"no GHN file at {path}: train one with `ghnas train`, or name one that ships: "
            f"{', '.join(shipped)}"
        )
    ghn = read_published(path) if is_pytorch_file(path) else _read(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    ghn.info = replace(ghn.info, sha256=digest, path=str(path.resolve()))
    _drop_subnormal(ghn)
    return ghn.eval()


@torch.no_grad()
def _drop_subnormal(module: nn.Module) -> None:
    """Make zeros of what weight decay left below the normal numbers of a float: processors need
    up to a hundred times as long for such a product."""
    for parameter in module.parameters():
        parameter[parameter.abs() < 1e-30] = 0


def read_header(path: Path) -> tuple[GHNConfig, GHNInfo]:
    """How a hypernetwork in a file of our own format is built, and what it was trained for,
    without its tensors.

    Raises:
        UserError: As `load_ghn`.
    """
    config, info = _header(path, read_metadata(path))
    try:
        return GHNConfig(**config), info
    except (TypeError, ValueError) as error:
        raise _unknown(path, error) from error


def _read(path: Path) -> GHN:
    """Read a file of our own format."""
    tensors, metadata = read_tensors(path)
    config, info = _header(path, metadata)
    try:
        return restored(config, info, tensors)
    except (TypeError, ValueError) as error:
        raise _unknown(path, error) from error


def _header(path: Path, metadata: Mapping[str, str]) -> tuple[dict[str, Any], GHNInfo]:
    if "ghnas" not in metadata:
        raise UserError(f"{path} is a safetensors file, but not a GHN of ghnas")
    if metadata.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {metadata.get('format')}, this version of ghnas reads {FORMAT}"
        )
    try:
        header = json.loads(metadata["ghnas"])
        return header.pop("config"), GHNInfo(**header)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise _unknown(path, error) from error


def _unknown(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} is damaged or not a GHN that is known ({explain(error)})")


def start_from(ghn: GHN, path: Path) -> GHNInfo:
    """Copy another hypernetwork's weights; what depends on the number of classes stays as it is.

    The embeddings of channel counts are copied by count: the place of one in the table depends on
    the number of classes, which is among them.

    Returns:
        What the other one was trained for.

    Raises:
        UserError: As `load_ghn`, or if the other one is built differently.
    """
    other = load_ghn(path)
    ours, theirs = ghn.config.as_dict(), other.config.as_dict()
    wrong = [key for key in ours if key != "num_classes" and ours[key] != theirs[key]]
    if wrong:
        key = wrong[0]
        raise UserError(
            f"cannot start from {path}: it has {key} {theirs[key]}, this training has {ours[key]}"
        )
    own = ghn.state_dict()
    for name, value in other.state_dict().items():
        if own[name].shape == value.shape:
            own[name].copy_(value)
    if ghn.config.num_classes != other.config.num_classes:
        own[_CHANNELS].copy_(other.state_dict()[_CHANNELS][_same_channels(ghn, other)])
    return other.info


_CHANNELS = "shape_enc.embed_channel.weight"


def _same_channels(ghn: GHN, other: GHN) -> torch.Tensor:
    """For each row of a hypernetwork's table of channel counts the other's row of that count; for
    that of its classes the row of the other's classes."""
    counts = channel_table(ghn.config.num_classes)
    if ghn.config.num_classes not in channel_table(1):  # no other layer has so many channels
        counts[counts.index(ghn.config.num_classes)] = other.config.num_classes
    rows = other.shape_enc.channel_index[torch.tensor(counts)]
    return torch.cat([rows, other.shape_enc.channel_index[:1]])  # last: there is no parameter


def shipped_ghn(space: str, data: str) -> Path | None:
    """The hypernetwork that ships with the package for a space and a data set, by their names; None
    if none does."""
    path = FOLDER / f"{space}-{data}.safetensors"
    return path if path.is_file() else None


def find_ghn(space: str, data: str, train: str | None = None) -> Path:
    """As `shipped_ghn`, for what cannot do without.

    Args:
        space: The space's name.
        data: The data set's name.
        train: The command that trains one, where the names alone do not make it.

    Raises:
        UserError: If none does, with the command that trains one.
    """
    path = shipped_ghn(space, data)
    if path is None:
        raise UserError(
            f"no trained GHN ships for space {space!r} and data {data!r}: "
            f"train one with `{train or train_command(space, data)}`, then pass it with --ghn"
        )
    return path


def check_ghn(ghn: GHN, space: Space, data: ImageData, train: str | None = None) -> None:
    """Refuse a hypernetwork for another task, and warn of one for other networks or images.

    Args:
        ghn: The hypernetwork.
        space: What it shall be used for.
        data: The same for the data set.
        train: As in `find_ghn`.

    Raises:
        UserError: If it is for another space, data set, classes or image size, with the command
            that trains the right one.

    Warns:
        GHNMismatchWarning: If it was trained for another skeleton, or on other images of the
            same name, such as another copy of CIFAR-10: its weights may fit less well.
    """
    refuse_mismatch(ghn, space, data, train)
    info = ghn.info
    differs = [key for key in space.skeleton if not _same_setting(info, space, key)]
    if differs:
        trained, used = (
            ", ".join(f"{key} {skeleton[key]}" for key in differs)
            for skeleton in (info.skeleton, space.skeleton)
        )
        _warn(f"was trained for {trained}, these networks have {used}")
    if info.fingerprint and info.fingerprint != data.fingerprint:
        _warn(f"was trained on other images named {data.name!r}")


def _warn(mismatch: str) -> None:
    text = f"the hypernetwork {mismatch}: the predicted weights may fit less well"
    warnings.warn(text, GHNMismatchWarning, stacklevel=3)


def _same_setting(info: GHNInfo, space: Space, key: str) -> bool:
    """Whether a setting of the skeleton is as in the training, which may not have had it."""
    if key not in info.skeleton:
        return True
    return json.dumps(space.skeleton[key]) == json.dumps(info.skeleton[key])


def trained_skeleton(info: GHNInfo, space: Space) -> Space:
    """A space with the skeleton that a hypernetwork was trained for, where the space has it."""
    known = {key: value for key, value in info.skeleton.items() if key in space.skeleton}
    return space.with_skeleton(**known) if known else space


def refuse_mismatch(ghn: GHN, space: Space, data: ImageData, train: str | None = None) -> None:
    """As `check_ghn`, without warnings."""
    info = ghn.info
    train = f"train one with `{train or train_command(space.name, data.name)}`"
    if info.space not in ("", GENERAL, space.name):
        raise UserError(f"the GHN is for space {info.space!r}, not {space.name!r}: {train}")
    if ghn.config.num_classes != data.num_classes:
        raise UserError(
            f"the GHN predicts for {ghn.config.num_classes} classes, data set {data.name!r} "
            f"has {data.num_classes}: {train}"
        )
    if not info.data:
        return
    if tuple(info.image_shape) != tuple(data.image_shape):
        raise UserError(
            f"the GHN is for images of {_size(info.image_shape)}, data set {data.name!r} has "
            f"{_size(data.image_shape)}: {train}"
        )
    if info.data != data.name or info.classes != data.classes:
        raise UserError(f"the GHN is for data set {info.data!r}, not {data.name!r}: {train}")


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape[1:])) + f" with {shape[0]} channels"


def train_command(space: str, data: str) -> str:
    """The command that trains a hypernetwork for a space and a data set, by name or path."""
    return f"ghnas train --space {shlex.quote(space)} --data {shlex.quote(data)}"
