"""Image data of any torch Datasets."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset, TensorDataset

from ghnas.data import ImageData
from ghnas.utils.errors import DataError

NAMES = ("cat", "dog")
PIXELS = torch.arange(4 * 3 * 8 * 8, dtype=torch.uint8).view(4, 3, 8, 8)
LABELS = torch.tensor([0, 1, 0, 1])
GOOD = TensorDataset(PIXELS, LABELS)


def made(train: Any, validation: Any = GOOD, **options: Any) -> ImageData:
    return ImageData.from_datasets(train, validation, classes=NAMES, **options)


def test_images_of_every_kind_are_the_same() -> None:
    pictures = [Image.fromarray(np.ascontiguousarray(x.permute(1, 2, 0))) for x in PIXELS]
    for images in (list(PIXELS), pictures, list(PIXELS / 255)):
        data = made(list(zip(images, LABELS.tolist(), strict=True)))
        assert torch.equal(data.train.images, PIXELS)
        assert torch.equal(data.train.labels, LABELS)
        assert data.fingerprint == made(GOOD).fingerprint
    assert data.classes == NAMES
    assert data.mean == pytest.approx((PIXELS / 255).mean((0, 2, 3)).tolist())


def test_test_images_are_read_when_asked_for() -> None:
    data = made(GOOD, test=[(PIXELS[0], 7)])
    assert data.has_test
    with pytest.raises(DataError, match="label 7 of item 0 of the test data set is out of range"):
        data.load_test()
    assert len(made(GOOD, test=GOOD).load_test()) == 4
    none = made(GOOD)
    for data in (none, pickle.loads(pickle.dumps(none)), made(GOOD, test=GOOD).without_test()):
        assert not data.has_test
        with pytest.raises(DataError, match="no test images"):
            data.load_test()


def test_sizes_may_differ_where_images_are_resized() -> None:
    mixed = [(PIXELS[0], 0), (PIXELS[1, :, :4], 1)]
    with pytest.raises(DataError, match="image_size"):
        made(mixed)
    with pytest.raises(DataError, match="image_size"):
        made([(PIXELS[1, :, :4], 1)])
    assert made(mixed, image_size=6).image_shape == (3, 6, 6)


class Endless(IterableDataset):
    """Has no length."""

    def __iter__(self) -> Any:
        return iter(GOOD)


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ([], "train data set is empty"),
        (Endless(), "map-style"),
        ([PIXELS[0]], "not a pair"),
        ([(PIXELS[0], 2)], "out of range"),
        ([(PIXELS[0], -1)], "out of range"),
        ([(PIXELS[0], 0.5)], "whole number"),
        ([(PIXELS[0, 0], 0)], r"is \(8, 8\)"),
        ([("cat.png", 0)], "is str"),
        ([(PIXELS[0] / 255 - 0.5, 0)], "leave out Normalize"),
        ([(PIXELS[0].float(), 0)], "leave out Normalize"),
        ([(PIXELS[0] * float("nan"), 0)], "leave out Normalize"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(train: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        made(train)


def test_class_names() -> None:
    for names in ((), ("a",), ("a", "a"), "ab"):
        with pytest.raises(DataError, match="two or more different"):
            ImageData.from_datasets(GOOD, GOOD, classes=names)
