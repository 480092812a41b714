"""Images and labels in parquet files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ghnas.data.dataset import Integers, Progress
from ghnas.data.decoding import CodedBytes
from ghnas.data.index import Index, watch
from ghnas.utils.errors import DataError, first_line
from ghnas.utils.files import replace_atomically

_AT_A_TIME = 256


def parquet_files(folder: Path) -> list[Path]:
    """The parquet files of a folder, or of the folder `data` in it."""
    found = [*folder.glob("*.parquet"), *folder.glob("data/*.parquet")]
    return sorted(path for path in found if path.is_file())


def number_classes(folder: Path, labels: Integers) -> tuple[str, ...]:
    """The names of classes that have numbers alone."""
    present = np.unique(labels[labels >= 0])
    gaps = np.flatnonzero(present != np.arange(len(present)))
    if len(gaps):
        raise DataError(
            f"The data in {folder} has no image of class {gaps[0]}, but labels up to "
            f"{present[-1]}: number the classes from 0, without gaps."
        )
    return tuple(map(str, range(len(present))))


def read_parquet(files: Sequence[Path]) -> tuple[CodedBytes, tuple[str, ...]]:
    """The coded images of parquet files, and the class names if the files know them.

    Raises:
        DataError: If a file cannot be read, or pyarrow is not installed.
    """
    images: list[bytes] = []
    names: list[str] = []
    labels = [np.zeros(0, dtype=np.int64)]
    for path in files:
        before = len(images)
        for some, their_labels in _rows(path):
            images += some
            labels.append(their_labels)
        names += [f"row {row} of {path}" for row in range(len(images) - before)]
    return CodedBytes(images, names, np.concatenate(labels)), known_classes(files)


def unpack_parquet(
    folder: Path,
    files: Sequence[Path],
    place: Path,
    progress: Progress | None,
) -> Index:
    """The coded images of parquet files copied into one file, where each is found at once: in
    parquet files, which are compressed, hundreds are decompressed to get at one.

    Args:
        folder: Below which the files lie.
        files: In their order.
        place: Where to copy them.
        progress: Called with the images copied so far and how many there may be.

    Raises:
        DataError: If a file cannot be read, pyarrow is not installed, or there is no room.
    """
    watched = watch(folder, [str(path.relative_to(folder)) for path in files])
    names: list[str] = []
    sizes: list[int] = []
    labels = [np.zeros(0, dtype=np.int64)]

    def copy(beside: Path) -> None:
        with beside.open("wb") as out:
            for number, path in enumerate(files, start=1):
                row = 0
                for some, their_labels in _rows(path):
                    out.writelines(some)
                    names.extend(f"row {row + i} of {path.name}" for i in range(len(some)))
                    sizes.extend(map(len, some))
                    labels.append(their_labels)
                    row += len(some)
                if progress and number < len(files):
                    progress(len(sizes), len(sizes) * len(files) // number)

    try:
        replace_atomically(place, copy)
    except OSError as error:
        raise DataError(
            f"The images of {folder} cannot be copied to {place} ({first_line(error)}): let "
            "GHNAS_CACHE name a folder with room for them."
        ) from error
    ends = np.cumsum([0, *sizes])
    return Index.of(
        folder,
        names,
        sizes,
        np.concatenate(labels),
        watched,
        shards=(str(place.absolute()),),
        shard_of=np.zeros(len(sizes), dtype=np.int64),
        offsets=ends[:-1],
        classes=known_classes(files),
    )


def known_classes(files: Sequence[Path]) -> tuple[str, ...]:
    """The class names that parquet files know; () if they know none."""
    found = (_class_names(_schema(path).metadata) for path in files)
    return next((names for names in found if names), ())


def _schema(path: Path) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.read_schema(path)


def _rows(path: Path) -> Iterator[tuple[list[bytes], Integers]]:
    """Images and labels of a file, some at a time."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            f"Reading {path} needs pyarrow: run pip install 'ghnas[parquet]'."
        ) from error
    try:
        column = _image_column(path, pyarrow.parquet.read_schema(path).names)
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_AT_A_TIME, columns=[column, "label"]):
                table = pyarrow.Table.from_batches([batch])
                yield _image_bytes(table.column(column)), _whole_numbers(table.column("label"))
    except (pyarrow.ArrowException, OSError, TypeError, ValueError, KeyError) as error:
        raise DataError(
            f"The parquet file {path} cannot be read ({first_line(error)}): "
            f"replace it by a sound one with image bytes and whole numbers as labels."
        ) from error


def _image_column(path: Path, columns: Sequence[str]) -> str:
    found = next((name for name in ("img", "image") if name in columns), None)
    if found is None or "label" not in columns:
        missing = "label" if found else "img or image"
        raise DataError(
            f"The parquet file {path} has no column {missing}, only {', '.join(columns)}: "
            f"rename its columns to img and label."
        )
    return found


def _image_bytes(column: Any) -> list[bytes]:
    """The bytes of a column of binaries, or of structs with a field bytes."""
    if str(column.type).startswith("struct"):
        column = column.combine_chunks().field("bytes")
    if not str(column.type).startswith(("binary", "large_binary", "fixed_size_binary")):
        raise ValueError(f"its images are {str(column.type)[:40]}, not bytes")
    if column.null_count:
        raise ValueError("it has rows without an image")
    return list(column.to_pylist())


def _whole_numbers(column: Any) -> Integers:
    values = column.to_numpy()
    if column.null_count or values.dtype.kind not in "iu":
        raise ValueError("its labels are not whole numbers")
    return np.asarray(values, dtype=np.int64)


def _class_names(metadata: dict[bytes, bytes] | None) -> tuple[str, ...]:
    """The label names that data hubs write into a parquet file's metadata; () without."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features["label"]["names"])
    except (KeyError, TypeError, ValueError):
        return ()
