"""Decoding image files and bytes to splits, in threads."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from ghnas.data.dataset import Integers, Progress, Split
from ghnas.utils.errors import DataError, first_line

FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP")
"""Pillow's names; some of its other formats start other programs."""
DEFAULT_SIZE = 32
_LARGEST_NATIVE = 64  # images that share one size up to this keep it when none is asked for
_BATCH = 128  # images that a thread decodes between two calls of progress


class Coded(Protocol):
    """Images not yet decoded.

    Attributes:
        labels: int64 (N,).
    """

    @property
    def labels(self) -> Integers:
        """int64 (N,)."""

    def __len__(self) -> int:
        """Their number."""

    def content(self, index: int) -> Path | bytes:
        """An image's file, or its bytes.

        Raises:
            DataError: If the image is no longer where it was.
        """

    def name(self, index: int) -> str:
        """What messages call an image."""

    def select(self, indices: Integers) -> Self:
        """The images at the indices, int64 (n,), in their order."""

    def identity(self) -> Iterator[bytes]:
        """What tells these images from others without reading them, for a hash."""


@dataclass(frozen=True)
class CodedBytes:
    """Coded images in memory, with what messages call them; labels int64 (N,)."""

    images: Sequence[bytes]
    names: Sequence[str]
    labels: Integers

    def __len__(self) -> int:
        return len(self.labels)

    def content(self, index: int) -> bytes:
        """See `Coded`."""
        return self.images[index]

    def name(self, index: int) -> str:
        """See `Coded`."""
        return self.names[index]

    def select(self, indices: Integers) -> CodedBytes:
        """See `Coded`."""
        images, names = [self.images[i] for i in indices], [self.names[i] for i in indices]
        return CodedBytes(images, names, self.labels[indices])

    def identity(self) -> Iterator[bytes]:
        """See `Coded`: the bytes themselves."""
        yield from self.images
        yield self.labels.astype("<i8").tobytes()


def native_size(coded: Coded) -> int:
    """The size that all images share, if they are square and small; else the default."""
    with ThreadPoolExecutor(_threads()) as pool:
        sizes = set(pool.map(partial(_size, coded), range(len(coded))))
    width, height = sizes.pop()
    alike = not sizes and width == height and width <= _LARGEST_NATIVE
    return width if alike else DEFAULT_SIZE


def _size(coded: Coded, index: int) -> tuple[int, int]:
    with _opened(coded.content(index), coded.name(index)) as opened:
        return opened.size


def decode(coded: Coded, size: int, progress: Progress | None, done: int, total: int) -> Split:
    """Decode images in threads to a split of shape (N, 3, size, size)."""
    pixels = np.empty((len(coded), size, size, 3), dtype=np.uint8)

    def decode_batch(start: int) -> int:
        stop = min(start + _BATCH, len(coded))
        for index in range(start, stop):
            pixels[index] = decode_one(coded, index, size)
        return stop - start

    with ThreadPoolExecutor(_threads()) as pool:
        for count in pool.map(decode_batch, range(0, len(coded), _BATCH)):
            done += count
            if progress:
                progress(done, total)
    images = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    return Split(torch.from_numpy(images), torch.from_numpy(coded.labels))


def decode_one(coded: Coded, index: int, size: int) -> npt.NDArray[np.uint8]:
    """Decode one image, upright and in RGB: uint8 (size, size, 3).

    Raises:
        DataError: If it cannot be read, naming it.
    """
    with _opened(coded.content(index), coded.name(index)) as opened:
        opened.draft("RGB", (size, size))  # lets the JPEG decoder skip what is averaged away
        colour = _upright(opened)
        if colour.size != (size, size):
            colour = colour.resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(colour)


def decode_whole(coded: Coded, index: int) -> Image.Image:
    """Decode one image in its own size, upright and in RGB.

    Raises:
        DataError: If it cannot be read, naming it.
    """
    with _opened(coded.content(index), coded.name(index)) as opened:
        return _upright(opened)


def _upright(opened: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(opened)
    if upright.mode.startswith("I"):  # 16 bits a pixel, which Pillow would cut off at 255
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    return upright.convert("RGB")


@contextmanager
def _opened(image: Path | bytes, name: str) -> Iterator[Image.Image]:
    """An image, not yet decoded; whatever goes wrong is an error that names it."""
    try:
        stream = io.BytesIO(image) if isinstance(image, bytes) else image
        with Image.open(stream, formats=FORMATS) as opened:
            yield opened
    except Exception as error:  # Pillow's decoders raise nearly every kind
        raise DataError(
            f"The image {name} cannot be read ({first_line(error)}): replace or remove it."
        ) from error


def _threads() -> int:
    return min(4, os.cpu_count() or 1)  # more of them only wait for the interpreter
