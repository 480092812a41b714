"""Indexes of images on a disk: where each lies, how long it is, its label; kept in the cache."""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ghnas.data.dataset import Integers
from ghnas.utils.errors import DataError, UserNote
from ghnas.utils.files import write_atomically

_FORMAT = 1
Watched = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Index:
    """Where images lie: each in a file of its own, or many in a shard.

    Args:
        root: The folder below which all lie.
        names: bytes (N,): the paths of the images below the root; of images in shards, what
            messages call them.
        sizes: int64 (N,): bytes of each image.
        labels: int64 (N,).
        watched: The shards, or all folders, with their times of change in nanoseconds and sizes:
            while they are the same, so is the index.
        shards: Paths below the root; none: every image is a file of its own.
        shard_of: int64 (N,): which one an image is in.
        offsets: int64 (N,): the first byte of each image in its shard.
        classes: Their names; none: the files know numbers alone.
        kept: The file in the cache that it was read from or written to.
    """

    root: Path
    names: npt.NDArray[np.bytes_]
    sizes: Integers
    labels: Integers
    watched: Watched
    shards: tuple[str, ...] = ()
    shard_of: Integers = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    offsets: Integers = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    classes: tuple[str, ...] = ()
    kept: Path | None = None

    @classmethod
    def of(
        cls,
        root: Path,
        names: Sequence[str],
        sizes: Sequence[int],
        labels: Sequence[int] | Integers,
        watched: Watched,
        **more: Any,
    ) -> Index:
        """An index of lists. Names become bytes, (N,): a million are small, and processes share
        them without copying."""
        return cls(
            root,
            np.array([os.fsencode(name) for name in names], dtype=np.bytes_),
            np.array(sizes, dtype=np.int64),
            np.array(labels, dtype=np.int64),
            watched,
            **more,
        )

    @property
    def files(self) -> set[str]:
        """What is watched."""
        return set(self.watched)

    @property
    def fresh(self) -> bool:
        """Whether the files and folders are as they were."""
        try:
            return self.watched == watch(self.root, self.watched)
        except OSError:
            return False


def watch(root: Path, paths: Iterable[str]) -> Watched:
    """Times of change and sizes of files and folders below the root.

    Raises:
        OSError: If one is not there.
    """
    stats = {path: os.stat(os.path.join(root, path)) for path in paths}
    return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


@dataclass(frozen=True)
class Indexed:
    """Coded images of an index, of which none is in memory.

    Args:
        index: Of these and perhaps others.
        rows: int64 (N,): which of them.
    """

    index: Index
    rows: Integers

    @classmethod
    def all_of(cls, index: Index) -> Indexed:
        """All images of an index."""
        return cls(index, np.arange(len(index.labels)))

    @property
    def labels(self) -> Integers:
        """int64 (N,)."""
        return self.index.labels[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        """Its path, or its place in a shard."""
        row, known = self.rows[index], self.index
        name = os.fsdecode(known.names[row])
        return f"{name} in {known.root}" if known.shards else os.path.join(known.root, name)

    def content(self, index: int) -> Path | bytes:
        """An image's file, or its bytes in a shard.

        Raises:
            DataError: If it is no longer there, or has changed since it was indexed.
        """
        row = self.rows[index]
        path, size = self._file(row), int(self.index.sizes[row])
        try:
            if not self.index.shards:
                same = os.stat(path).st_size == size
                found: Path | bytes = Path(path)
            else:
                with open(path, "rb") as file:
                    file.seek(int(self.index.offsets[row]))
                    found = file.read(size)
                same = len(found) == size
        except OSError as error:
            why = "has vanished" if isinstance(error, FileNotFoundError) else "cannot be read"
            raise self._changed(index, why) from error
        if not same:
            raise self._changed(index, "has changed")
        return found

    def select(self, indices: Integers) -> Indexed:
        """The images at the indices, int64 (n,), in their order."""
        return Indexed(self.index, self.rows[indices])

    def identity(self) -> Iterator[bytes]:
        """Names, sizes and labels; not the times of change, which differ between two copies."""
        yield b"\0".join(self.index.names[self.rows].tolist())
        yield self.index.sizes[self.rows].astype("<i8").tobytes()
        yield self.labels.astype("<i8").tobytes()

    def _file(self, row: int) -> str:
        known = self.index
        file = known.shards[known.shard_of[row]] if known.shards else os.fsdecode(known.names[row])
        return os.path.join(known.root, file)

    def _changed(self, index: int, what: str) -> DataError:
        """What to say of an image that is not as it was; the next run makes a new index."""
        if self.index.kept is not None:
            self.index.kept.unlink(missing_ok=True)
        return DataError(
            f"The image {self.name(index)} {what} since the images were listed: put it back, or "
            "start again, so that they are listed anew."
        )


# ------------------------------------------------------------------ the cache


def place_of(cache: Path, folder: Path, part: str) -> Path:
    """The file in the cache for the index of a part of a data folder."""
    digest = hashlib.sha256(os.fsencode(folder.resolve()) + b"\0" + part.encode()).hexdigest()
    return cache / "indexes" / f"{folder.resolve().name[:24]}-{part}-{digest[:12]}.npz"


def kept_or_made(
    path: Path, root: Path, make: Callable[[], Index], worth_keeping: int, **same: Any
) -> Index:
    """The index in a file of the cache, or a new one if there is none or the folder has changed.

    Args:
        path: The file.
        root: The folder as it is called now.
        make: Makes the index.
        worth_keeping: An index of more images than that is written to the file.
        same: What must be as it was, `classes` or `files`.
    """
    found = read_index(path, root)
    if found is not None:
        if found.fresh and all(getattr(found, name) == value for name, value in same.items()):
            return found
        note = f"{root} has changed since its images were listed: they are listed anew"
        warnings.warn(note, UserNote, stacklevel=2)
    made = make()
    if len(made.labels) > worth_keeping:
        with suppress(OSError):  # a cache that cannot be written costs listing once more
            write_index(path, made)
            made = replace(made, kept=path)
    return made


_ARRAYS = ("names", "sizes", "labels", "shard_of", "offsets")


def write_index(path: Path, index: Index) -> None:
    """Keep an index.

    Raises:
        OSError: If it cannot be written.
    """
    about = {
        "format": _FORMAT,
        "watched": index.watched,
        "shards": index.shards,
        "classes": index.classes,
    }
    stream = io.BytesIO()
    arrays: dict[str, Any] = {name: getattr(index, name) for name in _ARRAYS}
    text = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    np.savez(stream, about=text, **arrays)
    write_atomically(path, stream.getvalue())


def read_index(path: Path, root: Path) -> Index | None:
    """The index in a file; None if there is none that can be read."""
    try:
        with np.load(path, allow_pickle=False) as content:
            about = json.loads(content["about"].tobytes())
            if about["format"] != _FORMAT:
                return None
            watched = {
                name: (int(time), int(size)) for name, (time, size) in about["watched"].items()
            }
            return Index(
                root,
                watched=watched,
                shards=tuple(about["shards"]),
                classes=tuple(about["classes"]),
                kept=path,
                **{name: content[name] for name in _ARRAYS},
            )
    except Exception:  # a damaged archive makes zipfile and NumPy raise nearly every kind
        return None
