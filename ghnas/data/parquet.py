"""Images and labels in parquet files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ghnas.data.dataset import Integers
from ghnas.data.decoding import Coded
from ghnas.utils.errors import DataError, first_line


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


def read_parquet(files: Sequence[Path]) -> tuple[Coded, tuple[str, ...]]:
    """The coded images of parquet files, and the class names if the files know them."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            f"Reading {files[0]} needs pyarrow: run pip install 'ghnas[parquet]'."
        ) from error
    images: list[bytes] = []
    names: list[str] = []
    labels: list[Integers] = []
    classes: tuple[str, ...] = ()
    for path in files:
        try:
            columns = pyarrow.parquet.read_schema(path).names
            image_column = _image_column(path, columns)
            table = pyarrow.parquet.read_table(path, columns=[image_column, "label"])
            images += _image_bytes(table.column(image_column))
            labels.append(_whole_numbers(table.column("label")))
        except (pyarrow.ArrowException, OSError, TypeError, ValueError, KeyError) as error:
            raise DataError(
                f"The parquet file {path} cannot be read ({first_line(error)}): "
                f"replace it by a sound one with image bytes and whole numbers as labels."
            ) from error
        names += [f"row {row} of {path}" for row in range(len(table))]
        classes = classes or _class_names(table.schema.metadata)
    return Coded(images, names, np.concatenate(labels)), classes


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
