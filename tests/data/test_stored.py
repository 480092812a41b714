"""Images that stay on the disk: the same results as in memory, and what can go wrong there."""

from __future__ import annotations

import importlib
import io
import os
import tarfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ghnas
from ghnas.data import ImageData, evaluation_batches, load_data, random_batches
from ghnas.data.augmentation import Crops
from ghnas.ghn.checkpoint import load_ghn
from ghnas.ghn.config import GHNConfig
from ghnas.spaces import load_space
from ghnas.training.hypernetwork.training import Job, TrainSettings, train
from ghnas.utils.errors import DataError, UserNote

CPU = torch.device("cpu")
CLASSES = ("ant", "bee", "cat")
SPACE = load_space("darts").with_skeleton(cells=1, channels=4)


def jpeg(number: int) -> bytes:
    """Coarse noise, which a JPEG file keeps, and which tells images apart."""
    noise = np.random.default_rng(number).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).resize((24, 20)).save(stream, "JPEG")
    return stream.getvalue()


def write_folder(folder: Path, each: int, first: int = 0) -> None:
    for label, name in enumerate(CLASSES):
        place = folder / name / "nested" if label else folder / name
        place.mkdir(parents=True)
        for number in range(each):
            (place / f"{number}.jpg").write_bytes(jpeg(first + len(CLASSES) * number + label))


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as shard:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            shard.addfile(about, io.BytesIO(content))


def samples(numbers: range) -> dict[str, bytes]:
    """Members of a shard: images and labels."""
    members: dict[str, bytes] = {}
    for number in numbers:
        members[f"part/{number:04}.jpg"] = jpeg(number)
        members[f"part/{number:04}.cls"] = b"%d\n" % (number % 3)
        members[f"part/{number:04}.json"] = b"{}"
    return members


def write_parquet(path: Path, numbers: range) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table(
        {"img": [jpeg(number) for number in numbers], "label": [number % 3 for number in numbers]}
    )
    importlib.import_module("pyarrow.parquet").write_table(table, path, row_group_size=7)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """torchvision's layout for ImageNet, and test images."""
    for number, part in enumerate(("train", "val", "test")):
        write_folder(tmp_path / "set" / part, 12 if part == "train" else 7, 1000 * number)
    return tmp_path / "set"


@pytest.fixture(autouse=True)
def notes() -> Iterator[None]:
    """What is said of images on the disk is looked at where it matters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserNote)
        yield


@pytest.fixture
def stored(tmp_path: Path) -> Any:
    """Loads a data set so that it stays on the disk."""

    def load(folder: Path, **options: Any) -> ImageData:
        settings = {"image_size": 12, "cache": tmp_path / "cache", "in_memory": 0} | options
        return load_data(str(folder), **settings)

    return load


def equal(one: Any, other: Any) -> bool:
    """Whether batches are the same to the last bit."""
    return all(
        torch.equal(a, b)
        for pair in zip(one, other, strict=True)
        for a, b in zip(*pair, strict=True)
    )


def checks(data: ImageData, split: Any) -> list[Any]:
    return evaluation_batches(split, 8, device=CPU, mean=data.mean, std=data.std)


def require_same(found: ImageData, wanted: ImageData) -> None:
    """Normalisation, images and labels of all parts."""
    assert (found.mean, found.std, found.classes) == (wanted.mean, wanted.std, wanted.classes)
    assert found.image_shape == wanted.image_shape
    for one, other in (
        (found.train, wanted.train),
        (found.validation, wanted.validation),
        (found.load_test(), wanted.load_test()),
    ):
        assert len(one) == len(other)
        assert not hasattr(one, "images")
        assert equal(checks(found, one), checks(wanted, other))


# ------------------------------------------------------------------ as in memory


def test_a_folder_is_as_in_memory(folder: Path, stored: Any) -> None:
    with pytest.warns(UserNote, match=r"57 images of .* stay on the disk"):
        found = stored(folder)
    wanted = load_data(str(folder), image_size=12)
    require_same(found, wanted)
    assert stored(folder, image_size=None).image_shape == (3, 32, 32)
    require_same(
        stored(folder, train_limit=10), load_data(str(folder), image_size=12, train_limit=10)
    )
    some = torch.tensor([30, 2, 2])
    assert equal(found.train.select(some).read([torch.arange(3)]), wanted.train.read([some]))
    assert found.few_shot(2).train.labels.tolist() == wanted.few_shot(2).train.labels.tolist()


@pytest.mark.parametrize("start", [0, 5])
def test_batches_depend_on_seed_and_step(folder: Path, stored: Any, start: int) -> None:
    """Those of a training that is resumed are those of one that was not interrupted."""

    def batches(data: ImageData, start: int) -> list[Any]:
        made = random_batches(
            data.train, 8, seed=3, device=CPU, mean=data.mean, std=data.std, mirror=True, shift=1,
            start_step=start,
        )  # fmt: skip
        return list(islice(made, 11 - start))

    wanted = batches(load_data(str(folder), image_size=12), 0)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert equal(batches(stored(folder), start), wanted[start:])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("operations", [0, 2])
def test_crops_depend_on_seed_and_step(folder: Path, stored: Any, operations: int) -> None:
    def batches(data: ImageData, seed: int, start: int = 0) -> list[Any]:
        made = random_batches(
            data.train, 8, seed=seed, device=CPU, mean=(0.0,) * 3, std=(1.0,) * 3,
            start_step=start, crops=Crops(seed, data.mirror, operations),
        )  # fmt: skip
        return list(islice(made, 6 - start))

    for data in (stored(folder), load_data(str(folder), image_size=12)):
        found = batches(data, seed=3)
        assert equal(batches(data, seed=3, start=4), found[4:])
        assert not equal(batches(data, seed=4), found)
        assert {tuple(images.shape) for images, _ in found} == {(8, 3, 12, 12)}
        assert all(images.min() >= 0 and images.max() <= 1 for images, _ in found)


def test_crops_are_of_the_files_own_pixels(tmp_path: Path, stored: Any) -> None:
    """Stripes of two pixels are grey in a small image, and seen in a small part of a large one."""
    stripes = np.kron(np.arange(64) // 2 % 2, np.ones((64, 1))).astype(np.uint8) * 255
    for label in range(2):
        (tmp_path / "set" / str(label)).mkdir(parents=True)
        for number in range(8):
            Image.fromarray(stripes).save(tmp_path / "set" / str(label) / f"{number}.png")
    whole, crops = stored(tmp_path / "set", image_size=16).train, Crops(0, mirror=True)
    some = [(step, torch.arange(8)) for step in range(4)]
    resized = torch.cat([images for images, _ in whole.read(part for _, part in some)])
    cropped = torch.cat([images for images, _ in whole.read_cropped(some, crops)])
    contrast = [images.float().std((1, 2, 3)) for images in (resized, cropped)]
    assert contrast[0].max() < 10 < contrast[1].max() / 4


CONFIG = GHNConfig(num_classes=3, hid=8, max_shape=(16, 16, 5, 5))


def training(steps: int, architectures: int) -> TrainSettings:
    """A short one, evaluated at its end."""
    return TrainSettings(
        steps=steps, meta_batch=architectures, batch_size=8, evaluate_every=steps,
        evaluate_architectures=architectures, evaluate_images=16, workers=1,
    )  # fmt: skip


def test_training_and_search_are_as_in_memory(folder: Path, stored: Any, tmp_path: Path) -> None:
    settings, results = training(steps=3, architectures=2), []
    for name, data in (("disk", stored(folder)), ("memory", load_data(str(folder), image_size=12))):
        path = tmp_path / f"{name}.safetensors"
        train(Job(SPACE, data, CONFIG, settings, path, CPU), lambda progress: None)
        ghn = load_ghn(path)
        objective = ghnas.ZeroShot(ghn, data, images=12, device="cpu", workers=1)
        study = ghnas.search(SPACE, objective, budget=4)
        trained = ghnas.finetune(study.best(1)[0], data, ghn=ghn, epochs=1, batch_size=8)
        results.append(
            (
                {key: value.tolist() for key, value in ghn.state_dict().items()},
                ghn.info.training["history"],
                [trial.values for trial in study.trials],
                [str(architecture) for architecture in study.best(6)],
                (trained.validation, trained.test),
                {key: value.tolist() for key, value in trained.network.state_dict().items()},
            )
        )
    assert results[0] == results[1]


def test_a_hypernetwork_is_trained_on_crops(folder: Path, stored: Any, tmp_path: Path) -> None:
    settings, losses = training(steps=1, architectures=1), []
    for augment in ("shift", "crop", "crop"):
        path = tmp_path / f"{len(losses)}.safetensors"
        own = replace(settings, augment=augment)
        train(Job(SPACE, stored(folder), CONFIG, own, path, CPU), lambda progress: None)
        losses.append(load_ghn(path).info.training["history"][0]["loss"])
    assert losses[0] != losses[1] == losses[2]


def test_a_thousand_classes(tmp_path: Path, stored: Any) -> None:
    content = jpeg(0)
    for label in range(1000):
        for part, each in (("train", 2), ("val", 1)):
            place = tmp_path / "set" / part / f"n{label:08}"
            place.mkdir(parents=True)
            for number in range(each):
                (place / f"{number}.JPEG").write_bytes(content)
    data = stored(tmp_path / "set", in_memory=10**6)
    assert data.num_classes == 1000
    assert sorted(data.validation.take(1000).labels.tolist()) == list(range(1000))
    assert sorted(data.few_shot(1).train.labels.tolist()) == list(range(1000))


# ------------------------------------------------------------------ the index


def test_a_folder_is_listed_once(
    folder: Path, stored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stored(folder)
    before.load_test()
    monkeypatch.setattr("ghnas.data.listing.os.walk", lambda path: pytest.fail("listed again"))
    again = stored(folder)
    again.load_test()
    assert again.fingerprint == before.fingerprint
    require_same(again, before)


@pytest.mark.parametrize("change", ["added", "removed", "class"])
def test_a_folder_that_has_changed_is_listed_anew(folder: Path, stored: Any, change: str) -> None:
    before = stored(folder)
    place = folder / "train" / "bee" / "nested"
    if change == "added":
        (place / "new.jpg").write_bytes(jpeg(77))
    elif change == "removed":
        (place / "3.jpg").unlink()
    else:
        (folder / "train" / "dog").mkdir()
        (folder / "train" / "dog" / "0.jpg").write_bytes(jpeg(77))
    with pytest.warns(UserNote, match="has changed since its images were listed"):
        found = stored(folder)
    require_same(found, load_data(str(folder), image_size=12))
    assert found.fingerprint != before.fingerprint


def test_a_copy_of_a_folder_is_the_same_data(folder: Path, stored: Any, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    for path in sorted(folder.rglob("*.jpg")):
        place = other / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    assert stored(other).fingerprint == stored(folder).fingerprint
    assert stored(other, image_size=13).fingerprint != stored(folder).fingerprint


def patched(archive: bytes) -> bytes:
    """A zip archive whose first member is said to be what zipfile cannot read."""
    flags = archive.index(b"PK\1\2") + 8
    return archive[:flags] + bytes([archive[flags] | 1 << 5]) + archive[flags + 1 :]


@pytest.mark.parametrize(
    "damage",
    [lambda _: b"", lambda _: b"PK\x03\x04 no index", lambda archive: archive[:-40], patched],
    ids=["empty", "no index", "cut", "patched"],
)
def test_a_damaged_index_is_made_anew(
    folder: Path, stored: Any, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    before = stored(folder).fingerprint
    (kept,) = (tmp_path / "cache" / "indexes").glob("train*.npz")
    kept.write_bytes(damage(kept.read_bytes()))
    assert stored(folder).fingerprint == before


# ------------------------------------------------------------------ shards and parquet files


def content(data: ImageData) -> list[tuple[bytes, int]]:
    """The images and labels of all parts, in an order of their own."""
    parts = (data.train, data.validation, data.load_test())
    read = [next(iter(part.read([torch.arange(len(part))]))) for part in parts]
    return sorted(
        (image.numpy().tobytes(), int(label))
        for images, labels in read
        for image, label in zip(images, labels, strict=True)
    )


def test_tar_shards(tmp_path: Path, stored: Any) -> None:
    shards, plain = tmp_path / "shards", tmp_path / "plain"
    write_tar(shards / "own-train-000.tar", samples(range(20)))
    write_tar(shards / "own-train-001.tar", samples(range(20, 36)))
    write_tar(shards / "own-val-000.tar", samples(range(999, 1020)))
    write_folder(plain / "train", 12)
    write_folder(plain / "val", 7, first=999)
    found = stored(shards)
    assert found.classes == ("0", "1", "2")
    assert content(found) == content(load_data(str(plain), image_size=12))
    require_same(found, load_data(str(shards), image_size=12, cache=tmp_path / "other"))
    write_tar(shards / "own-train-002.tar", samples(range(36, 39)))
    with pytest.warns(UserNote, match="has changed"):
        assert len(content(stored(shards))) == len(content(found)) + 3


def test_tar_shards_in_folders(tmp_path: Path, stored: Any) -> None:
    write_tar(tmp_path / "train" / "0.tar", samples(range(30)))
    write_tar(tmp_path / "test" / "0.tar", samples(range(30, 36)))
    data = stored(tmp_path)
    assert (len(data.train) + len(data.validation), len(data.load_test())) == (30, 6)


def test_archives_beside_class_folders_are_no_shards(folder: Path, stored: Any) -> None:
    before = stored(folder).fingerprint
    for path in (folder / "images.tar", folder / "train" / "ant.tar"):
        write_tar(path, {"0.jpg": jpeg(0)})
    assert stored(folder).fingerprint == before


def test_parquet_files_are_copied_where_they_do_not_fit(tmp_path: Path, stored: Any) -> None:
    place = tmp_path / "set"
    place.mkdir()
    write_parquet(place / "train-0.parquet", range(300))
    write_parquet(place / "train-1.parquet", range(300, 330))
    wanted = load_data(str(place), image_size=12)
    require_same(stored(place), wanted)
    assert [path.suffix for path in (tmp_path / "cache" / "indexes").iterdir()].count(
        ".images"
    ) == 1
    write_parquet(place / "train-2.parquet", range(330, 340))
    with pytest.warns(UserNote, match="has changed"):
        assert len(content(stored(place))) == 340


# ------------------------------------------------------------------ mistakes


def refusal(action: Any) -> str:
    """The sentence with which an action fails, checked to be one."""
    with pytest.raises(DataError) as caught:
        action()
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


def read_all(data: ImageData) -> None:
    list(data.train.read(torch.arange(len(data.train)).split(8)))


@pytest.mark.parametrize("within", ["a worker process", "this process"])
def test_a_broken_image_is_named(
    folder: Path, stored: Any, monkeypatch: pytest.MonkeyPatch, within: str
) -> None:
    monkeypatch.setattr("ghnas.data.stored.cores", lambda: 2 if within == "a worker process" else 1)
    data = stored(folder)
    victim = folder / "train" / "bee" / "nested" / "7.jpg"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:200] + bytes(len(whole) - 200))
    assert f"image {victim} cannot be read" in refusal(lambda: read_all(data))


def test_images_that_are_not_taken_are_not_read(folder: Path, stored: Any) -> None:
    data = stored(folder)
    taken = data.validation.take(6)
    kept = {taken.coded.name(index) for index in range(6)}
    for path in (folder / "val").rglob("*.jpg"):
        if str(path) not in kept:
            path.unlink()
    assert sum(len(labels) for _, labels in checks(data, taken)) == 6
    assert "has vanished" in refusal(lambda: checks(data, data.validation))


def test_what_changed_meanwhile_is_named_and_listed_anew(folder: Path, stored: Any) -> None:
    data = stored(folder)
    victim = folder / "train" / "ant" / "5.jpg"
    victim.write_bytes(jpeg(999) + b"longer")
    assert f"{victim} has changed since" in refusal(lambda: read_all(data))
    require_same(stored(folder), load_data(str(folder), image_size=12))
    data = stored(folder)
    victim.unlink()
    assert f"{victim} has vanished since" in refusal(lambda: read_all(data))


def test_an_empty_class(folder: Path, stored: Any) -> None:
    (folder / "train" / "dog").mkdir()
    assert f"{folder}/train/dog holds no images" in refusal(lambda: stored(folder))


@pytest.mark.parametrize("cut", [0, 300, 512, 1000, 1536, -10240])
def test_a_shard_that_is_none_or_cut_short(tmp_path: Path, stored: Any, cut: int) -> None:
    path = tmp_path / "train.tar"
    write_tar(path, samples(range(9)))
    whole = path.read_bytes()
    end = len(whole) + cut if cut < 0 else cut
    path.write_bytes(whole[:end] if cut else b"no tar" * 300)
    assert str(path) in refusal(lambda: stored(tmp_path))


def test_a_shard_that_is_damaged_in_the_middle(tmp_path: Path, stored: Any) -> None:
    path = tmp_path / "train.tar"
    write_tar(path, samples(range(9)))
    whole = bytearray(path.read_bytes())
    with tarfile.open(path) as shard:
        header = shard.getmembers()[9].offset
    whole[header : header + 512] = os.urandom(512)
    path.write_bytes(whole)
    assert f"shard {path} cannot be read" in refusal(lambda: stored(tmp_path))


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"a.jpg": jpeg(0)}, "image a.jpg of"),
        ({"a.jpg": jpeg(0), "a.cls": b"cat"}, "a.cls is not the number of a class"),
        ({"a.jpg": jpeg(0), "a.cls": b"-1"}, "a.cls is not the number of a class"),
        ({"a.jpg": jpeg(0), "a.cls": b"1"}, "no image of class 0"),
        ({}, "hold no images"),
    ],
)
def test_labels_of_shards(
    tmp_path: Path, stored: Any, members: dict[str, bytes], said: str
) -> None:
    write_tar(tmp_path / "train.tar", members)
    assert said in refusal(lambda: stored(tmp_path))


def test_a_broken_image_in_a_shard(tmp_path: Path, stored: Any) -> None:
    write_tar(tmp_path / "train.tar", samples(range(30)) | {"part/0007.jpg": b"junk"})
    sentence = refusal(lambda: content(stored(tmp_path)))
    assert "part/0007.jpg of train.tar" in sentence
