"""Splits whose images stay on the disk and are decoded when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing import parent_process
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from ghnas.data.augmentation import Crops
from ghnas.data.dataset import (
    Integers,
    LabelledImages,
    Progress,
    Statistics,
    statistics_of_batches,
)
from ghnas.data.decoding import Coded, decode_one, decode_whole
from ghnas.utils.devices import cores
from ghnas.utils.errors import DataError

STATISTICS_IMAGES = 1024
"""Of which mean and standard deviation are taken, mixed by class and the same every time."""
_AT_A_TIME = 64
_MOST_WORKERS = 8
Found = tuple[npt.NDArray[np.uint8], Integers]


@dataclass(frozen=True)
class StoredSplit(LabelledImages):
    """Images on the disk and their labels; only an index and the batches that are read ahead are
    in memory.

    Args:
        coded: Where the images lie.
        size: Height and width that they are resized to.
    """

    coded: Coded
    size: int
    labels: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", torch.from_numpy(self.coded.labels))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 3, self.size, self.size

    def select(self, indices: torch.Tensor) -> StoredSplit:
        return StoredSplit(self.coded.select(indices.cpu().numpy()), self.size)

    def read(self, batches: Iterable[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return _loaded(_Resized(self.coded, self.size), (i.cpu().numpy() for i in batches))

    def read_cropped(
        self, batches: Iterable[tuple[int, torch.Tensor]], crops: Crops
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """As the base's; the crops are of the files' own pixels."""
        steps = ((step, indices.cpu().numpy()) for step, indices in batches)
        return _loaded(_Cropped(self.coded, self.size, crops), steps)

    def to(self, device: torch.device | str) -> StoredSplit:
        return self

    def identity(self) -> Iterator[bytes]:
        yield str((len(self), *self.image_shape)).encode()
        yield from self.coded.identity()

    def statistics(self, progress: Progress | None = None) -> Statistics:
        some = self.take(STATISTICS_IMAGES)
        batches = torch.arange(len(some)).split(_AT_A_TIME)

        def images() -> Iterator[torch.Tensor]:
            for number, (read, _) in enumerate(some.read(batches), start=1):
                yield read
                if progress:
                    progress(min(number * _AT_A_TIME, len(some)), len(some))

        return statistics_of_batches(images())


class _Decoding(Dataset[Found | DataError]):
    """Batches of decoded images; an error is a result, as torch would make a page of it."""

    def __init__(self, coded: Coded, size: int) -> None:
        self.coded, self.size = coded, size

    def __getitem__(self, batch: Any) -> Found | DataError:
        try:
            return self.decoded(batch)
        except DataError as error:
            return error

    def decoded(self, batch: Any) -> Found:
        """Images, uint8 (B, C, H, W), and labels, int64 (B,)."""
        raise NotImplementedError


class _Resized(_Decoding):
    def decoded(self, batch: Integers) -> Found:
        some = self.coded.select(batch)
        pixels = np.stack([decode_one(some, i, self.size) for i in range(len(some))])
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), some.labels


class _Cropped(_Decoding):
    def __init__(self, coded: Coded, size: int, crops: Crops) -> None:
        import torchvision.transforms.v2  # noqa: F401  # here, or every process imports it

        super().__init__(coded, size)
        self.crops = crops

    def decoded(self, batch: tuple[int, Integers]) -> Found:
        step, indices = batch
        some = self.coded.select(indices)
        images = (decode_whole(some, i) for i in range(len(some)))
        return torch.stack(self.crops.of(images, self.size, step)).numpy(), some.labels


def _loaded(
    decoding: _Decoding, batches: Iterable[Any]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Images and labels of batches, decoded ahead by processes of torch's DataLoader."""
    loader: DataLoader[Found | DataError] = DataLoader(
        decoding,
        batch_size=None,
        sampler=batches,
        num_workers=_workers(),
        collate_fn=_unchanged,
        generator=torch.Generator(),  # or it would draw from the one that all share
    )
    for found in loader:
        if isinstance(found, DataError):
            raise found
        pixels, labels = found
        yield torch.from_numpy(pixels), torch.from_numpy(labels)


def _unchanged(item: Any) -> Any:
    """In place of torch's collation: arrays go through a pipe, for which shared memory that
    containers keep small is not needed."""
    return item


def _workers() -> int:
    """Processes that decode, beside this one; none in a worker process, whose siblings have the
    other cores."""
    share = cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's, on this machine
    return 0 if parent_process() else max(min(_MOST_WORKERS, share - 1), 0)
