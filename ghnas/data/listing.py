"""Lists of the images of a folder: a folder for each class, or tar shards as of WebDataset.

A sample of a shard is two members that differ in what follows the first dot of their names:
`0001.jpg` (or another image) and `0001.cls`, which holds the label as a decimal number.
"""

from __future__ import annotations

import os
import re
import stat
import tarfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ghnas.data.dataset import Progress
from ghnas.data.index import Index, watch
from ghnas.utils.errors import DataError, UserNote, first_line

IMAGE_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"]
)
_MOST_DIGITS = 18
Sample = tuple[str, int, int, int]
"""Name, offset and bytes of an image, and its label."""


# ------------------------------------------------------------------ class folders


def visible_folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))


def is_image(name: str) -> bool:
    """Whether a file's name ends as an image's does."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def index_folder(folder: Path, classes: Sequence[str], progress: Progress | None) -> Index:
    """All images below the class folders of a folder, in sorted order.

    Args:
        folder: With a folder for each class.
        classes: Their names, in the order of the labels.
        progress: Called with the images found so far and how many there may be.

    Raises:
        DataError: If a class folder that holds images is none of the classes.
    """
    label_of = {name: label for label, name in enumerate(classes)}
    watched = watch(folder, ["."])
    names: list[str] = []
    sizes: list[int] = []
    labels: list[int] = []
    left_out: list[str] = []
    found = visible_folders(folder)
    for done, class_folder in enumerate(found, start=1):
        inside = [os.path.relpath(place, folder) for place, _, _ in os.walk(class_folder)]
        watched |= watch(folder, inside)
        before = len(names)
        for name, size in sorted(_files(folder, class_folder), key=lambda file: _parts(file[0])):
            if size is None:
                left_out.append(name)
            else:
                names.append(name)
                sizes.append(size)
        if len(names) > before and class_folder.name not in label_of:
            raise DataError(
                f"The class folder {class_folder} has no counterpart among the train images: "
                f"add the class there, or remove this folder."
            )
        labels += [label_of.get(class_folder.name, -1)] * (len(names) - before)
        _tell(progress, len(names), done, len(found))
    if left_out:
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        warnings.warn(
            f"{len(left_out):,} files below {folder} are left out, such as "
            f"{folder / left_out[0]}: images are files in {known}",
            UserNote, stacklevel=2,
        )  # fmt: skip
    return Index.of(folder, names, sizes, labels, watched, classes=tuple(classes))


def _tell(progress: Progress | None, images: int, done: int, total: int) -> None:
    """Tell the images of so many folders or shards, and how many there may be in all."""
    if progress and done < total:
        progress(images, images * total // done)


def _parts(name: str) -> list[str]:
    return name.split(os.sep)


def _files(folder: Path, class_folder: Path) -> Iterator[tuple[str, int | None]]:
    """Path below the folder and bytes of each visible file; no bytes: it is no image."""
    for place, _, files in os.walk(class_folder):
        for file in files:
            if file.startswith("."):
                continue
            path = os.path.join(place, file)
            yield os.path.relpath(path, folder), _size(path) if is_image(file) else None


def _size(path: str) -> int | None:
    """Bytes of a regular file; None for what is none, such as a pipe."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


# ------------------------------------------------------------------ tar shards


def tar_shards(folder: Path) -> list[Path]:
    """The shards of a folder, or of its folders, sorted."""
    found = [*folder.glob("*.tar"), *folder.glob("*/*.tar")]
    return sorted(path for path in found if path.is_file())


def words(path: Path) -> set[str]:
    """What a path is made of: `imagenet/train-0001.tar` -> imagenet, train, tar."""
    return set(re.findall("[a-z]+", str(path).lower()))


def index_shards(folder: Path, files: Sequence[Path], progress: Progress | None) -> Index:
    """All images of tar files.

    Args:
        folder: Below which they lie.
        files: The shards.
        progress: Called with the images found so far and how many there may be.

    Raises:
        DataError: If one is no tar file or is cut short, or an image has no label.
    """
    shards = [str(path.relative_to(folder)) for path in files]
    watched = watch(folder, shards)
    samples: list[Sample] = []
    counts = []
    for number, path in enumerate(files, start=1):
        found = _samples(path, str(path.relative_to(folder)))
        samples += found
        counts.append(len(found))
        _tell(progress, len(samples), number, len(files))
    if not samples:
        raise DataError(
            f"The shards {shards[0]} to {shards[-1]} in {folder} hold no images: give tar files "
            "with members such as 0001.jpg and 0001.cls."
        )
    names, offsets, sizes, labels = zip(*samples, strict=True)
    return Index.of(
        folder,
        names,
        sizes,
        labels,
        watched,
        shards=tuple(shards),
        shard_of=np.repeat(np.arange(len(files)), counts),
        offsets=np.array(offsets, dtype=np.int64),
    )


def _samples(path: Path, shard_name: str) -> list[Sample]:
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                key, ending = _key(member.name)
                if member.isreg() and is_image(member.name):
                    images.setdefault(key, member)
                elif member.isreg() and ending == "cls":
                    labels[key] = _label(shard, member)
            _require_end(shard, path)
    except (tarfile.TarError, OSError, ValueError, UnicodeError) as error:
        raise DataError(
            f"The shard {path} cannot be read ({first_line(error)}): give uncompressed tar files "
            "with members such as 0001.jpg and 0001.cls."
        ) from error
    if missing := [key for key in images if key not in labels]:
        raise DataError(
            f"The image {images[missing[0]].name} of {path} has no label: add a member "
            f"{missing[0]}.cls with the number of its class."
        )
    return [
        (f"{m.name} of {shard_name}", m.offset_data, m.size, labels[key])
        for key, m in images.items()
    ]


def _key(name: str) -> tuple[str, str]:
    """The name up to the first dot of its last part, and what follows."""
    folder, slash, last = name.rpartition("/")
    stem, _, ending = last.partition(".")
    return folder + slash + stem, ending.lower()


def _label(shard: tarfile.TarFile, member: tarfile.TarInfo) -> int:
    file = shard.extractfile(member)
    text = file.read(_MOST_DIGITS + 2).strip() if file else b""
    if not re.fullmatch(rb"[0-9]{1,%d}" % _MOST_DIGITS, text):
        raise ValueError(f"its member {member.name} is not the number of a class")
    return int(text)


def _require_end(shard: tarfile.TarFile, path: Path) -> None:
    """tarfile takes whatever is no header for the end."""
    with path.open("rb") as file:
        file.seek(shard.offset)
        rest = file.read(tarfile.BLOCKSIZE)
    if any(rest) or shard.offset > path.stat().st_size:
        raise ValueError("it ends in the middle, or is damaged there")
