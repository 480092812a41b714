"""Hypernetwork files: safetensors with everything else in the header. Nothing is executed."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ghnas.data import ImageData
from ghnas.ghn.config import GHNConfig, GHNInfo
from ghnas.ghn.model import GHN
from ghnas.ghn.published import is_pytorch_file, read_published
from ghnas.spaces import Space
from ghnas.utils.errors import UserError
from ghnas.utils.files import replace_atomically

FORMAT = "1"


def save_ghn(path: Path, ghn: GHN, info: GHNInfo) -> None:
    """Write a hypernetwork; an existing file is replaced in one step."""
    header = asdict(info) | {"config": ghn.config.as_dict()}
    del header["sha256"]
    metadata = {"format": FORMAT, "ghnas": json.dumps(header)}
    tensors = {key: value.detach().cpu().contiguous() for key, value in ghn.state_dict().items()}
    replace_atomically(path, lambda beside: save_file(tensors, beside, metadata=metadata))


def load_ghn(path: Path) -> tuple[GHN, GHNInfo]:
    """Read a hypernetwork, in evaluation mode on the CPU.

    Args:
        path: A file of ours, or one in the format of the published PyTorch checkpoints.

    Raises:
        UserError: If the file is missing, damaged, or not a hypernetwork.
    """
    if not path.is_file():
        raise UserError(f"no GHN file at {path}: train one with `ghnas train`")
    if is_pytorch_file(path):
        ghn, epoch = read_published(path)
        ghn.info = GHNInfo(ghn.config, training={"epochs": epoch}, sha256=_sha256(path))
        return ghn, ghn.info
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or not a GHN file ({error})") from error
    if "ghnas" not in metadata:
        raise UserError(f"{path} is a safetensors file, but not a GHN of ghnas")
    if metadata.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {metadata.get('format')}, this version of ghnas reads {FORMAT}"
        )
    try:
        header = json.loads(metadata["ghnas"])
        shape = tuple(header["config"].pop("max_shape"))
        config = GHNConfig(max_shape=shape, **header.pop("config"))
        lists: dict[str, Any] = {
            key: tuple(header.pop(key)) for key in ("classes", "image_shape", "mean", "std")
        }
        info = GHNInfo(config=config, sha256=_sha256(path), **lists, **header)
        ghn = GHN(config, info)
        ghn.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path} is not a GHN that this version can read ({error})") from error
    return ghn.eval(), info


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def start_from(ghn: GHN, path: Path) -> GHNInfo:
    """Copy another hypernetwork's weights; what depends on the number of classes stays as it is.

    Returns:
        What the other one was trained for.

    Raises:
        UserError: As `load_ghn`, or if the other one is built differently.
    """
    other, info = load_ghn(path)
    ours, theirs = ghn.config.as_dict(), info.config.as_dict()
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
    return info


def find_ghn(space: str, data: str, train: str | None = None) -> Path:
    """The hypernetwork that ships with the package for a space and a data set.

    Args:
        space: The space's name.
        data: The data set's name.
        train: The command that trains one, where the names alone do not make it.

    Raises:
        UserError: If none does, with the command that trains one.
    """
    path = Path(__file__).resolve().parent.parent / "checkpoints" / f"{space}-{data}.safetensors"
    if not path.is_file():
        raise UserError(
            f"no trained GHN ships for space {space!r} and data {data!r}: "
            f"train one with `{train or train_command(space, data)}`, then pass it with --ghn"
        )
    return path


def check_ghn(info: GHNInfo, space: Space, data: ImageData, train: str | None = None) -> None:
    """Make sure that a hypernetwork fits.

    Args:
        info: What it was trained for.
        space: What it shall be used for.
        data: The same for the data set.
        train: As in `find_ghn`.

    Raises:
        UserError: If it is for another space, skeleton, data set, classes or image size, with
            the command that trains the right one.
    """
    train = f"train one with `{train or train_command(space.name, data.name)}`"
    if info.space and info.space != space.name:
        raise UserError(f"the GHN is for space {info.space!r}, not {space.name!r}: {train}")
    if info.config.num_classes != data.num_classes:
        raise UserError(
            f"the GHN predicts for {info.config.num_classes} classes, data set {data.name!r} "
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
