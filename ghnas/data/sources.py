"""Where data sets come from: the built-in one, CIFAR-10, a folder of images, parquet files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache as remember
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ghnas.data.conversion import resize
from ghnas.data.dataset import ImageData, Split, channel_statistics, cut, mixed_order
from ghnas.data.decoding import Coded, Progress, decode, native_size
from ghnas.data.parquet import number_classes, parquet_files, read_parquet
from ghnas.utils.devices import total_memory
from ghnas.utils.errors import DataError, UserNote, first_line
from ghnas.utils.files import cache_folder

EMBEDDED = "digitscapes"
"""Name of the built-in data set."""

ACCEPTED = "'embedded', 'cifar10', a folder of images by class or a folder of parquet files"
IMAGE_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"]
)
_PARTS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}


@dataclass(frozen=True)
class _Options:
    image_size: int | None
    validation_fraction: float
    seed: int
    train_limit: int | None
    progress: Progress | None


def load_data(
    spec: str = "embedded",
    *,
    image_size: int | None = None,
    cache: Path | None = None,
    validation_fraction: float = 0.1,
    seed: int = 0,
    train_limit: int | None = None,
    progress: Progress | None = None,
) -> ImageData:
    """Load a data set.

    Args:
        spec: `embedded` (also `digitscapes`), `cifar10`, or the path of a folder: of images by
            class (class/image.png, or train/class/image.png beside val and test), or of parquet
            files (train*.parquet, val*, test*; columns img or image, and label).
        image_size: Height and width to resize to. None keeps the images' own size where all are
            square, of one size and at most 64 x 64; else 32.
        cache: Where downloads are kept; None means $GHNAS_CACHE, else ~/.cache/ghnas.
        validation_fraction: Without a validation split, or a test split, so large a part of
            train is cut off instead, by chance and class by class. The embedded set has its own.
        seed: Of this cut.
        train_limit: Use only so many train images, mixed by class.
        progress: Called with the images read so far and their number.

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
    options = _Options(image_size, validation_fraction, seed, train_limit, progress)
    data_name(spec)  # it must be one
    if spec in ("embedded", EMBEDDED):
        return _load_digitscapes(options)
    if spec == "cifar10":
        return _load_cifar10(cache or cache_folder(), options)
    folder = data_folder(spec)
    if tables := parquet_files(folder):
        return _load_parquet(folder, tables, options)
    return _load_image_folder(folder, options)


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


def _load_digitscapes(options: _Options) -> ImageData:
    from ghnas.data.embedded import make_digitscapes

    def make(part: str) -> Split:
        images, labels = make_digitscapes(part)
        return _resized(torch.from_numpy(images), torch.from_numpy(labels), options.image_size)

    train = _limited(make("train"), options)
    classes = tuple(str(digit) for digit in range(10))
    test = remember(lambda: make("test"))
    statistics = channel_statistics(train.images)
    return ImageData(EMBEDDED, classes, train, make("validation"), test, *statistics, mirror=False)


def _load_cifar10(cache: Path, options: _Options) -> ImageData:
    whole, classes = _torchvision_cifar10(cache, train=True)
    rest, held = cut(whole.labels.numpy(), options.validation_fraction, options.seed)
    train = _limited(whole.select(torch.from_numpy(rest)), options)
    validation = whole.select(torch.from_numpy(held))

    @remember
    def test() -> Split:
        split, _ = _torchvision_cifar10(cache, train=False)
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


def _limited(train: Split, options: _Options) -> Split:
    return train.take(options.train_limit) if options.train_limit else train


def _resized(images: torch.Tensor, labels: torch.Tensor, image_size: int | None) -> Split:
    """A split of the uint8 images, averaged down (or blown up) to image_size if one is given."""
    return Split(images if image_size is None else resize(images, image_size), labels)


# ------------------------------------------------------------------ folders of images


def _load_image_folder(folder: Path, options: _Options) -> ImageData:
    parts = {part: _subfolder(folder, names) for part, names in _PARTS.items()}
    train_folder = parts["train"] or folder
    classes = tuple(sorted(path.name for path in _visible_folders(train_folder)))
    if not classes:
        loose = any(p.suffix.lower() in IMAGE_SUFFIXES for p in train_folder.iterdir())
        what = "holds images but no class folders" if loose else "holds no images"
        raise DataError(
            f"The data folder {train_folder} {what}: put the images of each class into a "
            f"subfolder named after the class."
        )
    listed = _list_images(train_folder, classes)
    for label, count in enumerate(np.bincount(listed.labels, minlength=len(classes))):
        if count == 0:
            raise DataError(
                f"The class folder {train_folder / classes[label]} holds no images: "
                f"add some, or remove the folder."
            )
    held, kept = (parts["validation"], parts["test"]) if parts["train"] else (None, None)
    validation = _list_images(held, classes) if held else None
    test = partial(_list_images, kept, classes) if kept else None
    return _decoded(folder, classes, listed, validation, test, options)


def _note(text: str) -> None:
    warnings.warn(text, UserNote, stacklevel=2)


def _subfolder(folder: Path, names: Sequence[str]) -> Path | None:
    return next((p for p in _visible_folders(folder) if p.name.lower() in names), None)


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))


def _list_images(folder: Path, classes: tuple[str, ...]) -> Coded:
    """All images below the class folders of a folder, in sorted order."""
    paths: list[Path] = []
    labels: list[int] = []
    left_out: list[Path] = []
    for class_folder in _visible_folders(folder):
        visible = sorted(p for p in class_folder.rglob("*") if not p.name.startswith("."))
        found = [p for p in visible if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
        left_out += [p for p in visible if p not in found and not p.is_dir()]
        if found and class_folder.name not in classes:
            raise DataError(
                f"The class folder {class_folder} has no counterpart among the train images: "
                f"add the class there, or remove this folder."
            )
        paths += found
        labels += [classes.index(class_folder.name)] * len(found)
    if left_out:
        what, known = f"{len(left_out):,} files below {folder}", ", ".join(sorted(IMAGE_SUFFIXES))
        _note(f"{what} are left out, such as {left_out[0]}: images are files in {known}")
    return Coded(paths, [str(p) for p in paths], np.array(labels, dtype=np.int64))


# ------------------------------------------------------------------ parquet files


def _load_parquet(folder: Path, files: Sequence[Path], options: _Options) -> ImageData:
    parts = {
        part: [f for f in files if f.name.lower().startswith(names)]
        for part, names in _PARTS.items()
    }
    if not parts["train"]:
        raise DataError(
            f"None of the parquet files in {folder} is a train file: "
            f"name them train*.parquet, validation*.parquet and test*.parquet."
        )
    listed, names = read_parquet(parts["train"])
    classes = names or number_classes(folder, listed.labels)
    if absent := sorted(set(range(len(names))) - set(listed.labels.tolist())):
        _note(f"the data in {folder} has no train image of class {names[absent[0]]}")
    validation = read_parquet(parts["validation"])[0] if parts["validation"] else None
    test = (lambda: read_parquet(parts["test"])[0]) if parts["test"] else None
    return _decoded(folder, classes, listed, validation, test, options)


# ------------------------------------------------------------------ decoding


def _decoded(
    folder: Path,
    classes: tuple[str, ...],
    train: Coded,
    validation: Coded | None,
    list_test: Callable[[], Coded] | None,
    options: _Options,
) -> ImageData:
    """Cut off the splits that are missing, then decode train and validation; test when asked."""
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
    size = options.image_size or native_size(train)
    total, done = len(train) + len(validation), len(train)
    _require_memory(folder, total, size)
    train_split = decode(train, size, options.progress, 0, total)
    validation_split = decode(validation, size, options.progress, done, total)

    @remember
    def load_test() -> Split:
        coded = list_test()
        _check_part(folder, "test", coded, len(classes))
        return decode(coded, size, options.progress, 0, len(coded))

    name, statistics = folder.resolve().name, channel_statistics(train_split.images)
    return ImageData(
        name, classes, train_split, validation_split, load_test, *statistics, mirror=True
    )


def _require_memory(folder: Path, images: int, size: int) -> None:
    """Refuse what cannot be: decoding needs every image twice for a moment."""
    there = total_memory()
    needed, had = 2 * images * 3 * size * size / 2**20, there / 2**20 if there else float("inf")
    if needed > had:
        raise DataError(
            f"The {images:,} images of {folder} at {size}x{size} pixels need {needed:,.1f} MiB of "
            f"memory, and this machine has {had:,.1f}: give a smaller image size, or fewer images."
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
            f"The label {coded.labels[wrong[0]]} of {coded.names[wrong[0]]} is out of range: "
            f"the {part} labels must be whole numbers from 0 to {num_classes - 1}."
        )
