"""Images and labels of torch Datasets as tensors, checked one by one; resizing."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from ghnas.utils.errors import DataError


class MapDataset(Protocol):
    """A torch Dataset with a length, whose items are pairs (image, label)."""

    def __len__(self) -> int:
        """Number of items."""

    def __getitem__(self, index: int, /) -> Any:
        """The image and the label at an index."""


def read_dataset(
    dataset: MapDataset, part: str, classes: Sequence[str], image_size: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """All images and labels of a Dataset.

    Args:
        dataset: Gives (image, label) for 0 to len(dataset) - 1; an image is a PIL image or a
            tensor (C, H, W), uint8 or floating-point in [0, 1].
        part: What it is, for messages: train, validation or test.
        classes: Names of the classes; labels count from 0.
        image_size: Height and width to resize to; None keeps the images' own.

    Returns:
        uint8 (N, C, H, W) and int64 (N,).

    Raises:
        DataError: If there are no items, an image or a label is none, or sizes differ.
    """
    try:
        count = len(dataset)
    except TypeError as error:
        raise DataError(
            f"The {part} data set has no length: give a map-style torch Dataset."
        ) from error
    if count == 0:
        raise DataError(f"The {part} data set is empty: give one with images.")
    images, labels = [], []
    for index in range(count):
        where = f"item {index} of the {part} data set"
        item = dataset[index]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(f"What is {where} is not a pair: give (image, label).")
        image = _pixels(item[0], where)
        images.append(image if image_size is None else resize(image[None], image_size)[0])
        labels.append(_label(item[1], where, classes))
        if images[-1].shape != images[0].shape:
            first, other = (tuple(i.shape) for i in (images[0], images[-1]))
            raise DataError(
                f"The image of {where} has shape {other}, those before have {first}: give "
                "image_size=32, or images of one size and number of channels."
            )
    return torch.stack(images), torch.tensor(labels)


def _pixels(image: Any, where: str) -> torch.Tensor:
    """One image as uint8 (C, H, W)."""
    if isinstance(image, Image.Image):
        return torch.from_numpy(np.array(image.convert("RGB")).transpose(2, 0, 1).copy())
    if not isinstance(image, torch.Tensor) or image.dim() != 3 or image.numel() == 0:
        what = tuple(image.shape) if isinstance(image, torch.Tensor) else type(image).__name__
        raise DataError(
            f"The image of {where} is {what}: give PIL images, or tensors (channels, height, "
            "width) as torchvision.transforms.ToTensor makes them."
        )
    if image.dtype == torch.uint8:
        return image.cpu()
    if not image.is_floating_point() or not bool(((image >= 0) & (image <= 1)).all()):
        raise DataError(
            f"The image of {where} has values that are not in [0, 1]: leave out Normalize, "
            "since ghnas normalises by itself, or give uint8 tensors."
        )
    return (image.detach().cpu() * 255).round().to(torch.uint8)


def _label(label: Any, where: str, classes: Sequence[str]) -> int:
    try:
        number = operator.index(label)  # also of NumPy and of tensors with one integer
    except (TypeError, ValueError) as error:
        raise DataError(f"The label of {where} is {label!r}: give a whole number.") from error
    if not 0 <= number < len(classes):
        raise DataError(
            f"The label {number} of {where} is out of range: there are {len(classes)} classes, "
            f"so give 0 to {len(classes) - 1}, or more class names."
        )
    return number


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 images (N, C, H, W) averaged down, or blown up, to (N, C, size, size)."""
    if tuple(images.shape[2:]) == (size, size):
        return images
    parts = torch.split(images, 4096)
    return torch.cat(
        [interpolate(part, (size, size), mode="bilinear", antialias=True) for part in parts]
    )
