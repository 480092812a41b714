"""Which hypernetworks there are, and which one a search takes or adapts.

Adapted ones are kept in the user's cache, a file for each fingerprint of space, images and classes.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ghnas.data import ImageData
from ghnas.ghn.checkpoint import list_ghns, read_header
from ghnas.ghn.config import GENERAL, GHNInfo
from ghnas.spaces import Space, list_spaces, load_space
from ghnas.utils.errors import UserError, UserNote
from ghnas.utils.files import cache_folder

CACHE_LIMIT = 300 * 10**6
"""Bytes of all adapted hypernetworks together; those not used for longest are removed."""
Where = Literal["shipped", "cache", "here"]


@dataclass(frozen=True)
class KnownGHN:
    """A hypernetwork's file, of which only the header was read.

    Args:
        name: What `--ghn` and `ghnas ghns remove` take.
        path: The file.
        where: In the package, in the user's cache, or in the working folder.
        info: What it was trained for.
    """

    name: str
    path: Path
    where: Where
    info: GHNInfo

    @property
    def is_general(self) -> bool:
        """Whether it is for every space."""
        return self.info.space == GENERAL

    @property
    def steps(self) -> int:
        """Steps of its last training."""
        return int(self.info.training.get("steps", 0))

    @property
    def accuracy(self) -> float | None:
        """Zero-shot accuracy on held-out architectures; None if it is not known."""
        training = self.info.training
        if adapted := training.get("adaptation"):
            return float(adapted["held_out"])
        history = training.get("history") or [{}]
        held_out: float | None = history[-1].get("held_out")
        return held_out

    @property
    def near_chance(self) -> bool:
        """Whether an adaptation learned nothing."""
        return bool(self.info.training.get("adaptation", {}).get("near_chance", False))

    @cached_property
    def sha256(self) -> str:
        """Of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Task:
    """What a hypernetwork is wanted for.

    Args:
        space: With the skeleton that is to be searched.
        data: The images and their classes.
    """

    space: Space
    data: ImageData

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides on the networks and the images: the space's choices and
        skeleton, the images, the classes. Comments of a space's file have no say."""
        content = {
            "space": definition(self.space),
            "data": self.data.fingerprint,
            "classes": self.data.classes,
            "image_shape": tuple(self.data.image_shape),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def definition(space: Space) -> dict[str, Any]:
    """What a space's file and skeleton say, without what changes no network."""
    return space.file.model_dump(mode="json", exclude={"description", "objective"})


def describe(info: GHNInfo) -> str:
    """What a hypernetwork was trained for, in a few words."""
    space = "every space" if info.space == GENERAL else info.space or "no space in particular"
    return f"{space} on {info.data}" if info.data else space


# ------------------------------------------------------------------ what there is


def shipped() -> list[KnownGHN]:
    """The hypernetworks of the package."""
    return [
        KnownGHN(name, path, "shipped", read_header(path)[1]) for name, path in list_ghns().items()
    ]


def cached() -> list[KnownGHN]:
    """The adapted hypernetworks of the user's cache; damaged files are passed over with a note."""
    return list(_readable(sorted(_folder().glob("*.safetensors")), "cache"))


def in_folder(folder: Path) -> list[KnownGHN]:
    """The hypernetworks in a folder of the user's; other files are passed over."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserNote)
        return list(_readable(sorted(folder.glob("*.safetensors")), "here"))


def _readable(paths: Iterable[Path], where: Where) -> Iterable[KnownGHN]:
    for path in paths:
        try:
            info = read_header(path)[1]
        except UserError as error:
            warnings.warn(f"passed over: {error}", UserNote, stacklevel=3)
        else:
            yield KnownGHN(path.stem, path, where, info)


# ------------------------------------------------------------------ the choice


def exact(space: Space, data: str, known: Iterable[KnownGHN]) -> KnownGHN | None:
    """The hypernetwork that was trained for a space that ships, if there is one.

    Args:
        space: With the skeleton that is to be searched.
        data: The name of the data set, whose images need not have been read.
        known: To choose from.
    """
    fitting = (item for item in known if (item.info.space, item.info.data) == (space.name, data))
    return next((item for item in fitting if _is_for(item.info, space)), None)


def _is_for(info: GHNInfo, space: Space) -> bool:
    """Whether a space is the one of its name that ships, with the skeleton of the training."""
    if space.name not in list_spaces():
        return False
    trained = load_space(space.name)
    known = {key: value for key, value in info.skeleton.items() if key in trained.skeleton}
    return definition(trained.with_skeleton(**known)) == definition(space)


def _same_data(info: GHNInfo, data: ImageData) -> bool:
    """Whether a hypernetwork knows the images, or others of that name, such as another copy of
    CIFAR-10, at their size."""
    same = info.fingerprint == data.fingerprint or info.data == data.name
    return same and info.classes == data.classes and info.image_shape == tuple(data.image_shape)


def general_for(data: ImageData, known: Iterable[KnownGHN]) -> KnownGHN | None:
    """The hypernetwork for every space on these images and classes, if there is one.

    Args:
        data: The images.
        known: To choose from.
    """
    fitting = (item for item in known if item.is_general and _same_data(item.info, data))
    return next(fitting, None)


def bases(space: str, data: ImageData, known: Iterable[KnownGHN]) -> list[KnownGHN]:
    """From which hypernetworks to adapt, the best one first.

    Those of the same images come first, the general one before the others; then general ones of
    other images; then those of the same space; then all others. Among equals one with as many
    classes, then one for images of the same size, then the one whose images have the nearest mean
    and standard deviation (photographs resemble one another), then a shipped one, then the first
    by name.

    Args:
        space: The name of the space to adapt to.
        data: The images to adapt to.
        known: To choose from; what an adaptation left near chance is passed over.
    """

    def distance(item: KnownGHN) -> tuple[Any, ...]:
        info = item.info
        here, same_space = _same_data(info, data), info.space == space
        group = 0 if here else 1 if item.is_general else 2 if same_space else 3
        return (
            group,
            not item.is_general,
            not same_space,
            len(info.classes) != data.num_classes,
            tuple(info.image_shape) != tuple(data.image_shape),
            _unlike(info, data),
            item.where != "shipped",
            item.name,
        )

    return sorted((item for item in known if not item.near_chance), key=distance)


def _unlike(info: GHNInfo, data: ImageData) -> float:
    """How far mean and standard deviation of the images are apart, at most over the channels."""
    pairs = zip([*info.mean, *info.std], [*data.mean, *data.std], strict=False)
    return max((abs(own - other) for own, other in pairs), default=1.0)


# ------------------------------------------------------------------ the cache


def cached_for(
    task: Task, known_bases: Sequence[KnownGHN], seconds: float = 0.0
) -> KnownGHN | None:
    """The adapted hypernetwork for a task, if the cache has one; notes that it is used.

    One that was adapted from a hypernetwork that the package no longer has is passed over.

    Args:
        task: What it is wanted for.
        known_bases: The hypernetworks of the package.
        seconds: One that was adapted in less time is passed over too.
    """
    hashes = {item.sha256 for item in known_bases}
    paths = sorted(_folder().glob("*.safetensors"), key=_used, reverse=True)
    for item in _readable(paths, "cache"):
        about = item.info.training.get("adaptation", {})
        if about.get("task") != task.fingerprint or (about["seconds"] or 0) < seconds:
            continue
        if about["base"]["where"] == "shipped" and about["base"]["sha256"] not in hashes:
            continue
        with suppress(OSError):  # another user's cache can be read and not written
            os.utime(item.path)
        return item
    return None


def place_for(task: Task, base: KnownGHN) -> Path:
    """The file in the cache for what a hypernetwork is adapted to.

    Args:
        task: What it is adapted to.
        base: What it is adapted from.
    """
    digest = hashlib.sha256(f"{task.fingerprint} {base.sha256}".encode()).hexdigest()
    names = f"{task.space.name[:24]}-{task.data.name[:24]}"
    return _folder() / f"{names}-{digest[:8]}.safetensors"


def prune(limit: int = CACHE_LIMIT, keep: Path | None = None) -> list[Path]:
    """Remove adapted hypernetworks, those not used for longest first, until the rest is small.

    Args:
        limit: Bytes that may stay.
        keep: A file that stays whatever its size.

    Returns:
        What was removed.
    """
    paths = [path for path in _folder().glob("*.safetensors*") if path.suffix != ".lock"]
    removed = []
    total = sum(_size(path) for path in paths)
    for path in sorted(paths, key=_used):
        if total <= limit:
            break
        if path != keep:
            total -= _size(path)
            _remove(path)
            removed.append(path)
    return removed


def remove_ghn(name: str, folder: Path) -> Path:
    """Remove a hypernetwork from the cache, or from a folder of the user's.

    Args:
        name: As of `KnownGHN`.
        folder: The user's.

    Returns:
        The file that is gone.

    Raises:
        UserError: If there is none of that name, or it ships with the package.
    """
    if name in list_ghns():
        raise UserError(f"{name} ships with the package and stays")
    found = [item for item in [*cached(), *in_folder(folder)] if item.name == name]
    damaged = _folder() / f"{name}.safetensors"
    if not found and not damaged.is_file():
        raise UserError(f"no hypernetwork {name!r}: see `ghnas ghns`")
    path = found[0].path if found else damaged
    _remove(path)
    return path


def _folder() -> Path:
    return cache_folder() / "hypernetworks"


def _remove(path: Path) -> None:
    for ending in ("", ".state"):  # the lock's file stays: another process may wait for it
        path.with_name(path.name + ending).unlink(missing_ok=True)


def _used(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
