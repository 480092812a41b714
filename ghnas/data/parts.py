"""What a data folder holds: which of its images, not yet decoded, are for training, validation and
test."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ghnas.data.dataset import Progress
from ghnas.data.decoding import DEFAULT_SIZE, Coded
from ghnas.data.index import Indexed, kept_or_made, place_of
from ghnas.data.listing import (
    index_folder,
    index_shards,
    is_image,
    tar_shards,
    visible_folders,
    words,
)
from ghnas.data.parquet import number_classes, parquet_files, read_parquet, unpack_parquet
from ghnas.utils.errors import DataError, UserNote

_PARTS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}
_LOOKED_AT = 1000


@dataclass(frozen=True)
class Options:
    """What `ghnas.load_data` was asked for."""

    image_size: int | None
    validation_fraction: float
    seed: int
    train_limit: int | None
    progress: Progress | None
    cache: Path
    in_memory: int

    @property
    def most_in_memory(self) -> int:
        """Images that may be in memory, if they are no larger than they must be."""
        return self.in_memory // decoded_bytes(self.image_size or DEFAULT_SIZE)

    def looked_at(self, images: int) -> int:
        """Of how many images the size is looked at: of all, if they may be in memory."""
        return images if images <= self.most_in_memory else _LOOKED_AT


def decoded_bytes(size: int) -> int:
    """Of an image of that height and width."""
    return 3 * size * size


@dataclass(frozen=True)
class Parts:
    """The images of a data set, not yet decoded.

    Args:
        classes: Their names.
        train: Those to train on, with all that is to be cut off from them.
        validation: None: they are to be cut off.
        list_test: Lists the test images; None: they are to be cut off.
    """

    classes: tuple[str, ...]
    train: Coded
    validation: Coded | None
    list_test: Callable[[], Coded] | None


def parts_of(folder: Path, options: Options) -> Parts:
    """The images of a folder: in parquet files, else in class folders, else in tar shards.

    Archives beside class folders, from which ImageNet's are unpacked, are no shards.

    Raises:
        DataError: If there are none, or they cannot be listed.
    """
    if tables := parquet_files(folder):
        return _parquet(folder, tables, options)
    train = _subfolder(folder, _PARTS["train"]) or folder
    if not visible_folders(train) and (shards := tar_shards(folder)):
        return _shards(folder, shards, options)
    return _image_folder(folder, options)


# ------------------------------------------------------------------ folders of images


def _image_folder(folder: Path, options: Options) -> Parts:
    parts = {part: _subfolder(folder, names) for part, names in _PARTS.items()}
    train_folder = parts["train"] or folder
    classes = tuple(sorted(path.name for path in visible_folders(train_folder)))
    if not classes:
        loose = any(is_image(p.name) for p in train_folder.iterdir())
        what = "holds images but no class folders" if loose else "holds no images"
        raise DataError(
            f"The data folder {train_folder} {what}: put the images of each class into a "
            f"subfolder named after the class."
        )

    def listed(part: Path) -> Indexed:
        kept, most = place_of(options.cache, part, "folder"), options.most_in_memory
        make = partial(index_folder, part, classes, options.progress)
        return Indexed.all_of(kept_or_made(kept, part, make, most, classes=classes))

    train = listed(train_folder)
    for label, count in enumerate(np.bincount(train.labels, minlength=len(classes))):
        if count == 0:
            raise DataError(
                f"The class folder {train_folder / classes[label]} holds no images: "
                f"add some, or remove the folder."
            )
    held, kept = (parts["validation"], parts["test"]) if parts["train"] else (None, None)
    validation = listed(held) if held else None
    return Parts(classes, train, validation, partial(listed, kept) if kept else None)


def _subfolder(folder: Path, names: Sequence[str]) -> Path | None:
    return next((p for p in visible_folders(folder) if p.name.lower() in names), None)


# ------------------------------------------------------------------ tar shards


def _shards(folder: Path, files: Sequence[Path], options: Options) -> Parts:
    of = {
        part: [f for f in files if words(f.relative_to(folder)) & set(names)]
        for part, names in _PARTS.items()
    }
    train_files = of["train"] or [f for f in files if f not in of["validation"] + of["test"]]
    if not train_files:
        raise DataError(
            f"None of the tar files in {folder} is a train file: "
            f"name them train-0001.tar, val-0001.tar and test-0001.tar."
        )

    def listed(part: str, shards: list[Path]) -> Indexed:
        kept = place_of(options.cache, folder, part)
        make = partial(index_shards, folder, shards, options.progress)
        index = kept_or_made(kept, folder, make, 0, files=_below(folder, shards))
        return Indexed.all_of(index)

    train = listed("train", train_files)
    classes = number_classes(folder, train.labels)
    validation = listed("validation", of["validation"]) if of["validation"] else None
    test = partial(listed, "test", of["test"]) if of["test"] else None
    return Parts(classes, train, validation, test)


def _below(folder: Path, files: Sequence[Path]) -> set[str]:
    return {str(path.relative_to(folder)) for path in files}


# ------------------------------------------------------------------ parquet files


def _parquet(folder: Path, files: Sequence[Path], options: Options) -> Parts:
    parts = {
        part: [f for f in files if f.name.lower().startswith(names)]
        for part, names in _PARTS.items()
    }
    if not parts["train"]:
        raise DataError(
            f"None of the parquet files in {folder} is a train file: "
            f"name them train*.parquet, validation*.parquet and test*.parquet."
        )
    unpack = sum(path.stat().st_size for path in files) > options.in_memory

    def listed(part: str) -> tuple[Coded, tuple[str, ...]]:
        if not unpack:
            return read_parquet(parts[part])
        kept = place_of(options.cache, folder, part)
        copied = partial(
            unpack_parquet, folder, parts[part], kept.with_suffix(".images"), options.progress
        )
        index = kept_or_made(kept, folder, copied, 0, files=_below(folder, parts[part]))
        return Indexed.all_of(index), index.classes

    train, names = listed("train")
    classes = names or number_classes(folder, train.labels)
    if absent := sorted(set(range(len(names))) - set(train.labels.tolist())):
        note = f"the data in {folder} has no train image of class {names[absent[0]]}"
        warnings.warn(note, UserNote, stacklevel=2)
    validation = listed("validation")[0] if parts["validation"] else None
    test = (lambda: listed("test")[0]) if parts["test"] else None
    return Parts(classes, train, validation, test)
