"""Data sets: the built-in one, splits and their order, training and evaluation batches."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ghnas.data import ImageData, Split, evaluation_batches, load_data, random_batches
from ghnas.data.dataset import channel_statistics, cut, mixed_order
from ghnas.data.embedded import SPLITS, DigitscapeSettings, _sources, make_digitscapes

FINGERPRINT = "8d73a918c8252c92e962a3f764468dd0eb8efa438df60abf5ac6c9d15fa16685"
CIFAR10 = Path(__file__).parents[3] / "shared" / "data" / "cifar10"


@pytest.fixture(scope="module")
def embedded() -> ImageData:
    return load_data()


def make_split(per_class: list[int], seed: int = 0) -> Split:
    """Random images sorted by class, so many of each."""
    labels = torch.repeat_interleave(torch.arange(len(per_class)), torch.tensor(per_class))
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (len(labels), 3, 6, 6), generator=generator).to(torch.uint8)
    return Split(images, labels)


# ------------------------------------------------------------------ the embedded set


def test_embedded_is_what_it_says(embedded: ImageData) -> None:
    assert embedded.name == "digitscapes"
    assert embedded.classes == tuple("0123456789")
    assert embedded.num_classes == 10
    assert embedded.image_shape == (3, 16, 16)
    assert not embedded.mirror
    assert (len(embedded.train), len(embedded.validation)) == (20_000, 4_000)
    test = embedded.load_test()
    assert len(test) == 4_000
    assert test.images.dtype == torch.uint8
    for split in (embedded.train, embedded.validation, test):
        assert torch.bincount(split.labels).tolist() == [len(split) // 10] * 10


def test_embedded_never_changes(embedded: ImageData) -> None:
    # the trained networks that ship know the set by this; it must be the same on every machine
    assert embedded.fingerprint == FINGERPRINT
    assert load_data("digitscapes").fingerprint == embedded.fingerprint


def test_source_digits_of_the_splits_do_not_overlap() -> None:
    glyphs = [{glyph.tobytes() for glyph in _sources(split)[0]} for split in SPLITS]
    assert all(len(g) > 100 for g in glyphs)
    assert sum(len(_sources(split)[0]) for split in SPLITS) == 1797
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert not glyphs[first] & glyphs[second]


def test_embedded_images_of_a_split_all_differ(embedded: ImageData) -> None:
    images = embedded.train.images.reshape(len(embedded.train), -1).numpy()
    assert len({row.tobytes() for row in images}) == len(images)


def test_digitscapes_take_other_sizes() -> None:
    images, labels = make_digitscapes("test", DigitscapeSettings(size=24, test=70))
    assert images.shape == (70, 3, 24, 24)
    assert len(labels) == 70
    with pytest.raises(ValueError, match="unknown split"):
        make_digitscapes("tset")


def test_embedded_resized_and_limited() -> None:
    data = load_data(image_size=8, train_limit=105)
    assert data.image_shape == (3, 8, 8)
    assert data.load_test().images.shape[2:] == (8, 8)
    counts = torch.bincount(data.train.labels, minlength=10)
    assert counts.sum() == 105
    assert counts.min() == 10
    assert counts.max() == 11


# ------------------------------------------------------------------ splits and their order


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(1, 80))
@settings(max_examples=40, deadline=None)
def test_every_evaluation_batch_has_the_class_shares(per_class: list[int], size: int) -> None:
    split = make_split(per_class)
    batches = evaluation_batches(split, size, device="cpu", mean=[0.5] * 3, std=[0.2] * 3)
    sizes = [len(labels) for _, labels in batches]
    assert sum(sizes) == len(split)
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    seen = torch.cat([labels for _, labels in batches])
    assert torch.bincount(seen, minlength=len(per_class)).tolist() == per_class
    for _, labels in batches:
        expected = torch.tensor(per_class) * len(labels) / len(split)
        counts = torch.bincount(labels, minlength=len(per_class))
        # places are cut where a stretch ends, which moves a class by its share of the others
        assert ((counts - expected).abs() <= 2 + len(per_class) / 4).all()


def test_evaluation_batches_are_normalised_and_repeat() -> None:
    split = make_split([20, 30])
    mean, std = channel_statistics(split.images)
    first = evaluation_batches(split, 50, device="cpu", mean=mean, std=std)
    again = evaluation_batches(split, 50, device="cpu", mean=mean, std=std)
    images = first[0][0]
    assert images.dtype == torch.float32
    assert images.shape == (50, 3, 6, 6)
    assert torch.allclose(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(images.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5)
    assert torch.equal(images, again[0][0])
    assert torch.equal(first[0][1], again[0][1])


def test_take_is_stratified_and_nested() -> None:
    split = make_split([100, 50, 10])
    small, large = split.take(16), split.take(32)
    assert torch.bincount(small.labels).tolist() == [10, 5, 1]
    assert torch.equal(small.images, large.images[:16])
    assert len(split.take(1000)) == 160
    with pytest.raises(ValueError, match="1 or more"):
        split.take(0)


def test_split_refuses_other_tensors() -> None:
    with pytest.raises(ValueError, match="uint8"):
        Split(torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="labels"):
        Split(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.floats(0.01, 0.99))
@settings(max_examples=40, deadline=None)
def test_cut_is_stratified(per_class: list[int], fraction: float) -> None:
    labels = np.repeat(np.arange(len(per_class)), per_class)
    rest, held = cut(labels, fraction, seed=3)
    assert sorted([*rest, *held]) == list(range(len(labels)))
    for label, count in enumerate(per_class):
        kept = int((labels[held] == label).sum())
        assert 0 <= kept < count
        assert kept >= 1 or count == 1
        assert abs(kept - fraction * count) <= 1
    assert np.array_equal(cut(labels, fraction, seed=3)[1], held)


def test_a_sample_of_many_classes_is_not_of_the_first_ones() -> None:
    labels = np.repeat(np.arange(1000), 3)
    order = mixed_order(labels)
    assert sorted(order) == list(range(3000))
    assert sorted(labels[order[:1000]]) == list(range(1000))
    some = labels[order[:400]]
    assert len(set(some)) == 400
    assert 150 < np.count_nonzero(some >= 500) < 250


def test_mixed_order_is_a_permutation() -> None:
    labels = np.array([0] * 7 + [5] * 3)
    order = mixed_order(labels)
    assert sorted(order) == list(range(10))
    assert set(labels[order[:3]]) == {0, 5}


def test_constant_images_have_a_usable_spread() -> None:
    mean, std = channel_statistics(torch.full((4, 3, 2, 2), 51, dtype=torch.uint8))
    assert mean == pytest.approx((0.2,) * 3)
    assert min(std) > 0


def test_fingerprint_sees_every_part(embedded: ImageData) -> None:
    split = make_split([5, 5])

    def fingerprint(train: Split, classes: tuple[str, ...] = ("a", "b")) -> str:
        return ImageData("x", classes, train, split, lambda: split, (0,), (1,), True).fingerprint

    changed = Split(split.images.clone(), split.labels)
    changed.images[0, 0, 0, 0] ^= 1
    relabelled = Split(split.images, split.labels.flip(0))
    prints = [fingerprint(s) for s in (split, changed, relabelled)]
    assert len({*prints, fingerprint(split, ("a", "c"))}) == 4
    assert fingerprint(Split(split.images.clone(), split.labels)) == prints[0]


# ------------------------------------------------------------------ training batches


def batches(split: Split, count: int, start: int = 0, **options: Any) -> list[torch.Tensor]:
    arguments: dict[str, Any] = {"seed": 1, "device": "cpu", "mean": [0] * 3, "std": [1] * 3}
    stream = random_batches(split, 16, start_step=start, **(arguments | options))
    return [images for images, _ in islice(stream, count)]


@pytest.mark.parametrize("options", [{}, {"mirror": True, "shift": 2}])
def test_training_resumes_at_any_step(options: dict[str, Any]) -> None:
    split = make_split([30, 40])  # 4 batches an epoch
    whole, rest = batches(split, 11, **options), batches(split, 6, start=5, **options)
    assert all(torch.equal(a, b) for a, b in zip(whole[5:], rest, strict=True))
    assert not torch.equal(whole[0], whole[4])
    assert not torch.equal(whole[0], batches(split, 1, **(options | {"seed": 2}))[0])


def test_an_epoch_holds_every_image_once() -> None:
    split = make_split([16, 16])
    seen = (torch.cat(batches(split, 2)) * 255).round().to(torch.uint8)
    assert {i.numpy().tobytes() for i in seen} == {i.numpy().tobytes() for i in split.images}


def test_labels_stay_with_their_images() -> None:
    labels = torch.arange(40) % 10
    split = Split(labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 5, 5).contiguous(), labels)
    stream = random_batches(
        split, 8, seed=0, device="cpu", mean=[0] * 3, std=[1] * 3, mirror=True, shift=2
    )
    for images, targets in islice(stream, 12):
        assert images.shape == (8, 3, 5, 5)
        assert images.dtype == torch.float32
        assert torch.equal((images[:, 0, 0, 0] * 255).round().long(), targets)


def test_augmentation_moves_and_mirrors() -> None:
    ramp = torch.arange(8, dtype=torch.uint8).expand(32, 3, 8, 8).contiguous()
    split = Split(ramp, torch.zeros(32, dtype=torch.int64))
    moved = (batches(split, 1, shift=3)[0] * 255).round().long()[:, 0, 0]
    assert {int(row[4]) - 4 for row in moved} == set(range(-3, 4))
    for row in moved:
        assert torch.equal(row, (torch.arange(8) + int(row[4]) - 4).clamp(0, 7))
    mirrored = (batches(split, 1, mirror=True)[0] * 255).round().long()[:, 0, 0]
    assert {tuple(row.tolist()) for row in mirrored} == {tuple(range(8)), tuple(range(7, -1, -1))}


def test_small_splits_and_bad_arguments() -> None:
    split = make_split([3, 4])
    assert batches(split, 3)[2].shape == (7, 3, 6, 6)
    for wrong in ({"shift": -1}, {"start": -1}):
        with pytest.raises(ValueError, match="or more"):
            batches(split, 1, **wrong)
    with pytest.raises(ValueError, match="empty"):
        batches(make_split([0]), 1)
    with pytest.raises(ValueError, match="batch_size"):
        evaluation_batches(split, 0, device="cpu", mean=[0] * 3, std=[1] * 3)


def test_few_shot_takes_as_many_of_each_class() -> None:
    data = load_data()
    few, more = data.few_shot(3), data.few_shot(7)
    assert few.train.labels.bincount().tolist() == [3] * data.num_classes
    assert more.train.labels.bincount().tolist() == [7] * data.num_classes
    rows = {row.numpy().tobytes() for row in more.train.images}
    assert {row.numpy().tobytes() for row in few.train.images} <= rows
    assert len(few.validation) == len(data.validation)
    assert len(data.few_shot(10**6).train) == len(data.train)
    with pytest.raises(ValueError, match="1 or more"):
        data.few_shot(0)
