"""What a data set is: splits of uint8 images with labels, and how splits are ordered and cut."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from ghnas.data.augmentation import Crops
from ghnas.data.conversion import MapDataset, read_dataset
from ghnas.utils.errors import DataError

Integers = npt.NDArray[np.int64]
Statistics = tuple[tuple[float, ...], tuple[float, ...]]
Progress = Callable[[int, int], None]
_ORDER_SEED = 20_260_001
MANY_CLASSES = 100


class LabelledImages(ABC):
    """uint8 images of one size and their labels, read by index, wherever they lie.

    Attributes:
        labels: int64 (N,).
    """

    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""

    @abstractmethod
    def select(self, indices: torch.Tensor) -> Self:
        """The images at the indices, int64 (n,), in their order; none is read."""

    @abstractmethod
    def read(self, batches: Iterable[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """For each batch of indices, int64 (B,), its images, uint8 (B, C, H, W), and its labels,
        int64 (B,). Batches may be asked for ahead of their turn.

        Raises:
            DataError: If an image cannot be read, naming it.
        """

    @abstractmethod
    def read_cropped(
        self, batches: Iterable[tuple[int, torch.Tensor]], crops: Crops
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """As `read`, with random crops of the images; of each batch its step and the indices."""

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """The same on a device, if the images are in memory."""

    @abstractmethod
    def identity(self) -> Iterator[bytes | memoryview]:
        """What tells these images and labels from others, for a hash."""

    @abstractmethod
    def statistics(self, progress: Progress | None = None) -> Statistics:
        """Mean and standard deviation of each channel, as of [0, 1].

        Args:
            progress: Called with the images read so far and their number.
        """

    def take(self, count: int) -> Self:
        """The first count images of a fixed order that is mixed by class; all, if there are fewer.

        Whatever the count, the classes have nearly the shares that they have in the whole split.
        """
        if count < 1:
            raise ValueError(f"cannot take {count} images: the count must be 1 or more")
        order = torch.from_numpy(mixed_order(self.labels.cpu().numpy())[:count])
        return self.select(order.to(self.labels.device))


@dataclass(frozen=True)
class Split(LabelledImages):
    """Images in memory and their labels.

    Args:
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            raise ValueError("a split's images must be uint8 of shape (N, C, H, W)")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError("a split's labels must be int64 of shape (N,), one for each image")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def select(self, indices: torch.Tensor) -> Split:
        return Split(self.images[indices], self.labels[indices])

    def read(self, batches: Iterable[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return ((self.images[indices], self.labels[indices]) for indices in batches)

    def read_cropped(
        self, batches: Iterable[tuple[int, torch.Tensor]], crops: Crops
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        size = self.image_shape[-1]
        for step, indices in batches:
            yield torch.stack(crops.of(self.images[indices], size, step)), self.labels[indices]

    def to(self, device: torch.device | str) -> Split:
        return Split(self.images.to(device), self.labels.to(device))

    def identity(self) -> Iterator[bytes | memoryview]:
        yield str(tuple(self.images.shape)).encode()
        yield np.ascontiguousarray(self.images.cpu().numpy()).data
        yield np.ascontiguousarray(self.labels.cpu().numpy().astype("<i8")).data

    def statistics(self, progress: Progress | None = None) -> Statistics:
        return channel_statistics(self.images)


@dataclass(frozen=True)
class ImageData:
    """An image-classification task.

    Searching and training read `train` and `validation`. Only the last figure of a fine-tuned
    network is of test images.

    Args:
        name: Of the data set.
        classes: Names of the classes, in the order of the labels.
        train: Images to train on: in memory, or read from the disk as they are needed.
        validation: Images to score on, likewise.
        load_test: Reads the test images.
        mean: Of the train images scaled to [0, 1], a number for each channel; or that of others,
            see `normalised_with`.
        std: The same for the standard deviation.
        mirror: Whether training may mirror images left-right (not for digits or letters).

    Example:
        >>> import ghnas
        >>> data = ghnas.load_data("embedded", train_limit=500)
        >>> (data.num_classes, len(data.train), data.image_shape)
        (10, 500, (3, 16, 16))
    """

    name: str
    classes: tuple[str, ...]
    train: LabelledImages
    validation: LabelledImages
    load_test: Callable[[], LabelledImages]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mirror: bool

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.train.image_shape

    @classmethod
    def from_datasets(
        cls,
        train: MapDataset,
        validation: MapDataset,
        test: MapDataset | None = None,
        *,
        classes: Sequence[str],
        name: str = "images",
        mirror: bool = True,
        image_size: int | None = None,
    ) -> ImageData:
        """A task of any map-style torch Datasets, read into memory.

        Args:
            train: Gives (image, label) for 0 to len - 1. An image is a PIL image, or a tensor
                (C, H, W), uint8 or floating-point in [0, 1] (not normalised); a label counts
                from 0. Each image is read once: leave out random augmentation.
            validation: The same, for the scores of a search.
            test: The same, read when `load_test` is called; None: there are no test images.
            classes: Names of the classes, in the order of the labels.
            name: Of the data set: hypernetworks that are trained on it remember it.
            mirror: Whether training may mirror images left-right (not for digits or letters).
            image_size: Height and width to resize to; None keeps the images' own size.

        Returns:
            The data set, with the train images' mean and standard deviation.

        Raises:
            DataError: If a Dataset is empty, has images of different sizes, values outside
                [0, 1], labels out of range, or what is no image.

        Example:
            >>> import torch, ghnas
            >>> images, labels = torch.rand(20, 3, 16, 16), torch.arange(20) % 2
            >>> both = torch.utils.data.TensorDataset(images, labels)
            >>> data = ghnas.ImageData.from_datasets(both, both, classes=["cat", "dog"])
            >>> data.image_shape
            (3, 16, 16)
        """
        names = tuple(str(item) for item in classes)
        if isinstance(classes, str) or len(set(names)) != len(names) or len(names) < 2:
            raise DataError(f"The class names are {classes!r}: give two or more different ones.")

        def read(dataset: MapDataset, part: str) -> Split:
            return Split(*read_dataset(dataset, part, names, image_size))

        splits = read(train, "train"), read(validation, "validation")
        shapes = [tuple(split.images.shape[1:]) for split in splits]
        if shapes[0] != shapes[1]:
            raise DataError(
                f"The train images have shape {shapes[0]} and the validation images {shapes[1]}: "
                "give image_size, or images of one size."
            )
        mean, std = channel_statistics(splits[0].images)
        load_test = no_test if test is None else cache(lambda: read(test, "test"))
        return cls(name, names, *splits, load_test, mean, std, mirror)

    @property
    def has_test(self) -> bool:
        """Whether there are test images to load."""
        return self.load_test is not no_test

    def few_shot(self, images: int) -> ImageData:
        """The same task with so many training images of each class, or all where there are fewer.

        Which ones is fixed: more images hold those of fewer.
        """
        if images < 1:
            raise ValueError(f"cannot take {images} images of a class: it must be 1 or more")
        labels = self.train.labels.cpu().numpy()
        order = mixed_order(labels)
        chosen = [order[members[:images]] for members in _members(labels[order])]
        indices = torch.from_numpy(np.concatenate(chosen)).to(self.train.labels.device)
        return replace(self, train=self.train.select(indices))

    def without_test(self) -> ImageData:
        """The same without access to test images; it can be sent to another process."""
        return replace(self, load_test=no_test)

    def normalised_with(self, mean: Sequence[float], std: Sequence[float]) -> ImageData:
        """The same images, to be normalised with another mean and std for each channel.

        Networks with predicted weights see images as the hypernetwork's networks did; an empty
        mean or std, as of a published checkpoint, leaves the data's own.
        """
        return replace(self, mean=tuple(mean) or self.mean, std=tuple(std) or self.std)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of the class names and the train and validation splits: of
        their pixels, or, where they are read from the disk, of their names and sizes in bytes."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for split in (self.train, self.validation):
            for part in split.identity():
                digest.update(part)
        return digest.hexdigest()


def no_test() -> LabelledImages:
    """The `load_test` of a data set without test images.

    Raises:
        DataError: Always.
    """
    raise DataError("This data set has no test images: give some as test=.")


def mixed_order(labels: Integers) -> Integers:
    """A fixed order of all indices, (N,), in which every stretch has nearly the overall shares.

    The k-th of n images of a class gets the place (k + 1/2) / n between 0 and 1; sorting by place
    spreads each class evenly. Within a class the images are shuffled first. Where there are many
    classes their order is shuffled too, or a sample smaller than their number would be of the
    first ones.
    """
    places = np.empty(len(labels), dtype=np.float64)
    random = stable_random(_ORDER_SEED)
    for members in _members(labels):
        places[random.permutation(members)] = (np.arange(len(members)) + 0.5) / len(members)
    turns = labels
    if len(classes := np.unique(labels)) > MANY_CLASSES:
        turns = random.permutation(len(classes))[np.searchsorted(classes, labels)]
    return np.lexsort((turns, places)).astype(np.int64)


def cut(labels: Integers, fraction: float, seed: int) -> tuple[Integers, Integers]:
    """Cut the indices of labels in two by chance, class by class: the rest, and the fraction.

    A class of two or more images gives at least one to each side; a single image stays in the
    rest. Both results are sorted.
    """
    random = stable_random(seed)
    taken = np.zeros(len(labels), dtype=bool)
    for members in _members(labels):
        if len(members) >= 2:
            count = min(max(round(len(members) * fraction), 1), len(members) - 1)
            taken[random.permutation(members)[:count]] = True
    return np.flatnonzero(~taken), np.flatnonzero(taken)


def _members(labels: Integers) -> list[Integers]:
    """Of each class that there is, its indices in rising order; thousands of classes are quick."""
    _, starts = np.unique(np.sort(labels), return_index=True)
    return np.split(np.argsort(labels, kind="stable"), starts[1:])


def stable_random(seed: int) -> np.random.RandomState:
    """A random generator whose numbers numpy has promised never to change."""
    return np.random.RandomState(seed % 2**32)


def channel_statistics(images: torch.Tensor) -> Statistics:
    """Mean and standard deviation of each channel of uint8 images (N, C, H, W), as of [0, 1].

    Sums are integers, so that the result is exact and the same everywhere.
    """
    return statistics_of_batches(torch.split(images, 128))


def statistics_of_batches(batches: Iterable[torch.Tensor]) -> Statistics:
    """As `channel_statistics`, of batches of images, in whatever order."""
    total, squares, count = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), 0
    for part in batches:
        values = part.to(torch.int64)
        total = total + values.sum((0, 2, 3))
        squares = squares + values.square().sum((0, 2, 3))
        count += part.numel() // part.shape[1]
    mean = [int(t) / count for t in total]
    variance = [int(s) / count - m * m for s, m in zip(squares, mean, strict=True)]
    # a constant channel gets the smallest step of a pixel, so that nothing is divided by zero
    std = [max(v, 1.0) ** 0.5 for v in variance]
    return tuple(m / 255 for m in mean), tuple(s / 255 for s in std)
