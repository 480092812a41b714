"""Where data sets come from: the built-in one, CIFAR-10, folders of images, parquet files, tar
shards; and which of them stay on the disk."""

from __future__ import annotations

import os
import warnings
from functools import cache as remember
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.filesize import decimal

from ghnas.data.conversion import resize
from ghnas.data.dataset import (
    ImageData,
    LabelledImages,
    Progress,
    Split,
    channel_statistics,
    cut,
    mixed_order,
)
from ghnas.data.decoding import Coded, decode, native_size
from ghnas.data.parts import Options, Parts, decoded_bytes, parts_of
from ghnas.data.stored import StoredSplit
from ghnas.utils.devices import total_memory
from ghnas.utils.errors import DataError, UserNote, first_line
from ghnas.utils.files import cache_folder

EMBEDDED = "digitscapes"
"""Name of the built-in data set."""

IN_MEMORY = 10**9
"""Bytes of decoded images that are kept in memory; the same on all machines, as the results are."""
ACCEPTED = "'embedded', 'cifar10', a folder of images by class, of parquet files or of tar shards"


def load_data(
    spec: str = "embedded",
    *,
    image_size: int | None = None,
    cache: Path | None = None,
    validation_fraction: float = 0.1,
    seed: int = 0,
    train_limit: int | None = None,
    progress: Progress | None = None,
    in_memory: int = IN_MEMORY,
) -> ImageData:
    """Load a data set.

    Images that need more memory than `in_memory` stay on the disk: they are listed once, the list
    is kept in the cache, and batches are decoded when they are needed, by processes that read
    ahead. Normalisation is then by the mean and std of 1,024 training images.

    Args:
        spec: `embedded` (also `digitscapes`), `cifar10`, or the path of a folder: of images by
            class (class/image.png, or train/class/image.png beside val and test), of parquet
            files (train*.parquet, val*, test*; columns img or image, and label), or of tar shards
            (train-0001.tar, val-*, test-*; members 0001.jpg and 0001.cls, as of WebDataset).
        image_size: Height and width to resize to. None keeps the images' own size where all are
            square, of one size and at most 64 x 64; else 32.
        cache: Where downloads and lists of images are kept; None means $GHNAS_CACHE, else
            ~/.cache/ghnas.
        validation_fraction: Without a validation split, or a test split, so large a part of
            train is cut off instead, by chance and class by class. The embedded set has its own.
        seed: Of this cut.
        train_limit: Use only so many train images, mixed by class.
        progress: Called with the images read so far and their number.
        in_memory: Bytes of decoded images up to which train and validation are kept in memory.

    Returns:
        The data set, without reading its test images.

    Raises:
        DataError: For whatever is wrong with the arguments or the data, with what to do.

    Example:
        >>> import ghnas
        >>> ghnas.load_data("embedded").image_shape
        (3, 16, 16)
    """
    _check(image_size, validation_fraction, train_limit)
    options = Options(
        image_size, validation_fraction, seed, train_limit, progress, cache or cache_folder(),
        in_memory,
    )  # fmt: skip
    data_name(spec)  # it must be one
    if spec in ("embedded", EMBEDDED):
        return _load_digitscapes(options)
    if spec == "cifar10":
        return _load_cifar10(options)
    folder = data_folder(spec)
    return _decoded(folder, parts_of(folder, options), options)


def data_folder(spec: str) -> Path:
    """The folder that `load_data` would read if it is not asked for a ready-made set."""
    try:
        return Path(spec).expanduser()
    except RuntimeError:  # `~` and a user that there is not
        return Path(spec)


def data_name(spec: str) -> str:
    """The name of the data set that `load_data` would load; nothing is read.

    Raises:
        DataError: If there is no such data set.
    """
    if spec in ("embedded", EMBEDDED):
        return EMBEDDED
    if spec == "cifar10":
        return spec
    folder = data_folder(spec)
    if not folder.is_dir():
        raise DataError(_no_such_data(spec, folder))
    return folder.resolve().name


def _check(image_size: int | None, validation_fraction: float, train_limit: int | None) -> None:
    if image_size is not None and image_size < 1:
        raise DataError(f"The image size is {image_size}: give a whole number of 1 or more.")
    if not 0 < validation_fraction < 1:
        raise DataError(
            f"The validation fraction is {validation_fraction}: give a number between 0 and 1."
        )
    if train_limit is not None and train_limit < 1:
        raise DataError(f"The limit of train images is {train_limit}: give 1 or more.")


def _no_such_data(spec: str, folder: Path) -> str:
    if folder.exists():
        return f"Data {spec!r} is a file, not a folder: give {ACCEPTED}."
    if spec.startswith(("~", ".")) or "/" in spec or os.sep in spec:
        return f"The data folder {spec} does not exist: check the path, or give {ACCEPTED}."
    return f"Unknown data set {spec!r}, and no folder of that name here: give {ACCEPTED}."


# ------------------------------------------------------------------ ready-made sets


def _load_digitscapes(options: Options) -> ImageData:
    from ghnas.data.embedded import make_digitscapes

    def make(part: str) -> Split:
        images, labels = make_digitscapes(part)
        return _resized(torch.from_numpy(images), torch.from_numpy(labels), options.image_size)

    train = _limited(make("train"), options)
    classes = tuple(str(digit) for digit in range(10))
    test = remember(lambda: make("test"))
    statistics = channel_statistics(train.images)
    return ImageData(EMBEDDED, classes, train, make("validation"), test, *statistics, mirror=False)


def _load_cifar10(options: Options) -> ImageData:
    whole, classes = _torchvision_cifar10(options.cache, train=True)
    rest, held = cut(whole.labels.numpy(), options.validation_fraction, options.seed)
    train = _limited(whole.select(torch.from_numpy(rest)), options)
    validation = whole.select(torch.from_numpy(held))

    @remember
    def test() -> Split:
        split, _ = _torchvision_cifar10(options.cache, train=False)
        return _resized(split.images, split.labels, options.image_size)

    train = _resized(train.images, train.labels, options.image_size)
    validation = _resized(validation.images, validation.labels, options.image_size)
    statistics = channel_statistics(train.images)
    return ImageData("cifar10", classes, train, validation, test, *statistics, mirror=True)


def _torchvision_cifar10(cache: Path, train: bool) -> tuple[Split, tuple[str, ...]]:
    """CIFAR-10 from the cache, downloaded there if it is missing."""
    from torchvision.datasets import CIFAR10

    folder = cache / "cifar10"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = CIFAR10(str(folder), train=train, download=True)
    except (OSError, RuntimeError, EOFError) as error:  # URLError is an OSError
        raise DataError(
            f"CIFAR-10 cannot be downloaded to {folder} ({first_line(error)}): go online once, "
            f"put its folder cifar-10-batches-py there, or give a folder of your own as data."
        ) from error
    images = torch.from_numpy(np.ascontiguousarray(found.data.transpose(0, 3, 1, 2)))
    return Split(images, torch.tensor(found.targets)), tuple(found.classes)


def _limited(train: Split, options: Options) -> Split:
    return train.take(options.train_limit) if options.train_limit else train


def _resized(images: torch.Tensor, labels: torch.Tensor, image_size: int | None) -> Split:
    """A split of the uint8 images, averaged down (or blown up) to image_size if one is given."""
    return Split(images if image_size is None else resize(images, image_size), labels)


# ------------------------------------------------------------------ decoding


def _decoded(folder: Path, parts: Parts, options: Options) -> ImageData:
    """Cut off the splits that are missing, then decode train and validation; test when asked."""
    classes, train, validation, list_test = (
        parts.classes, parts.train, parts.validation, parts.list_test
    )  # fmt: skip
    if len(classes) < 2:
        raise DataError(
            f"The data in {folder} has one class only ({', '.join(classes) or 'none'}): "
            f"give images of two classes or more."
        )
    if list_test is None:
        rest, held = cut(train.labels, options.validation_fraction, options.seed + 1)
        test_cut, train = train.select(held), train.select(rest)
        list_test = partial(_same, test_cut)
    if validation is None:
        rest, held = cut(train.labels, options.validation_fraction, options.seed)
        validation, train = train.select(held), train.select(rest)
    if options.train_limit:
        train = train.select(mixed_order(train.labels)[: options.train_limit])
    for part, coded in (("train", train), ("validation", validation)):
        _check_part(folder, part, coded, len(classes))
    size = options.image_size or native_size(
        train.select(mixed_order(train.labels)[: options.looked_at(len(train))])
    )
    total = len(train) + len(validation)
    stored = total * decoded_bytes(size) > options.in_memory
    if stored:
        warnings.warn(
            f"the {total:,} images of {folder} are {total * decoded_bytes(size) / 1e9:.1f} GB at "
            f"{size}x{size} pixels: they stay on the disk and are decoded when they are needed",
            UserNote,
            stacklevel=2,
        )
    else:
        _require_memory(folder, total, size)

    def split(coded: Coded, done: int, total: int) -> LabelledImages:
        return (
            StoredSplit(coded, size) if stored
            else decode(coded, size, options.progress, done, total)
        )  # fmt: skip

    @remember
    def load_test() -> LabelledImages:
        coded = list_test()
        _check_part(folder, "test", coded, len(classes))
        return split(coded, 0, len(coded))

    splits = split(train, 0, total), split(validation, len(train), total)
    name, statistics = folder.resolve().name, splits[0].statistics(options.progress)
    return ImageData(name, classes, *splits, load_test, *statistics, mirror=True)


def _require_memory(folder: Path, images: int, size: int) -> None:
    """Refuse what cannot be: decoding needs every image twice for a moment."""
    there = total_memory()
    needed = 2 * images * decoded_bytes(size)
    if there is not None and needed > there:
        raise DataError(
            f"The {images:,} images of {folder} at {size}x{size} pixels need {decimal(needed)} "
            f"of memory, and this machine has {decimal(there)}: give a smaller image size, or "
            "fewer images."
        )


def _same(coded: Coded) -> Coded:
    return coded


def _check_part(folder: Path, part: str, coded: Coded, num_classes: int) -> None:
    if len(coded) == 0:
        raise DataError(
            f"The data in {folder} leaves no {part} images: give three or more of each class."
        )
    wrong = np.flatnonzero((coded.labels < 0) | (coded.labels >= num_classes))
    if len(wrong):
        raise DataError(
            f"The label {coded.labels[wrong[0]]} of {coded.name(wrong[0])} is out of range: "
            f"the {part} labels must be whole numbers from 0 to {num_classes - 1}."
        )
