"""Where images come from: folders, parquet files, CIFAR-10; and what is wrong with them."""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ghnas.data import data_name, load_data
from ghnas.utils.errors import DataError, UserError, UserNote

CIFAR10 = Path(__file__).parents[3] / "shared" / "data" / "cifar10"


def write_images(folder: Path, counts: dict[str, int], size: tuple[int, int] = (8, 8)) -> None:
    """A folder for each class; an image's red channel tells its number."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", size, (number, 50, 0)).save(folder / name / f"{number:03}.png")


# ------------------------------------------------------------------ folders of images


def test_flat_folder_is_cut(tmp_path: Path) -> None:
    write_images(tmp_path, {"cat": 40, "dog": 20})
    (tmp_path / ".cache").mkdir()
    data = load_data(str(tmp_path), validation_fraction=0.2)
    assert data.classes == ("cat", "dog")
    assert data.image_shape == (3, 8, 8)
    assert data.name == tmp_path.name
    assert data.mirror
    assert torch.bincount(data.validation.labels).tolist() == [6, 3]
    assert torch.bincount(data.load_test().labels).tolist() == [8, 4]
    parts = (data.train, data.validation, data.load_test())
    cats = [set(s.images[s.labels == 0][:, 0, 0, 0].tolist()) for s in parts]
    assert sorted(number for part in cats for number in part) == list(range(40))
    assert load_data(str(tmp_path), validation_fraction=0.2).fingerprint == data.fingerprint
    other = load_data(str(tmp_path), validation_fraction=0.2, seed=1)
    assert other.fingerprint != data.fingerprint


@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
def test_folder_with_parts(tmp_path: Path, validation: str) -> None:
    write_images(tmp_path / "train", {"a": 5, "b": 6})
    write_images(tmp_path / validation, {"a": 2, "b": 1})
    write_images(tmp_path / "test", {"b": 4})
    data = load_data(str(tmp_path))
    assert (len(data.train), len(data.validation), len(data.load_test())) == (11, 3, 4)
    assert data.load_test().labels.tolist() == [1] * 4


def test_test_images_are_read_only_when_asked_for(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"a": 5, "b": 6})
    write_images(tmp_path / "test", {"a": 1, "b": 1})
    broken = tmp_path / "test" / "a" / "000.png"
    broken.write_bytes(b"no image")
    data = load_data(str(tmp_path))
    with pytest.raises(DataError, match=r"000\.png"):
        data.load_test()


def test_folder_of_mixed_images(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 4, "b": 4}, size=(50, 20))
    deep = np.full((9, 9), 200 << 8, dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "a" / "deep.png")
    Image.new("L", (40, 80), 77).save(tmp_path / "b" / "grey.jpg")
    assert load_data(str(tmp_path)).image_shape == (3, 32, 32)
    calls: list[tuple[int, int]] = []
    data = load_data(str(tmp_path), image_size=12, progress=lambda *call: calls.append(call))
    assert data.image_shape == (3, 12, 12)
    assert calls[-1] == (len(data.train) + len(data.validation),) * 2
    brightest = max(int(s.images.max()) for s in (data.train, data.validation, data.load_test()))
    assert brightest == 200


def test_images_that_need_more_memory_than_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path, {"a": 6, "b": 6})
    monkeypatch.setattr("ghnas.data.sources.total_memory", lambda: 2**20)
    assert "need 5.3 MB of memory, and this machine has 1.0 MB:" in refusal(
        tmp_path, image_size=296
    )
    assert load_data(str(tmp_path), image_size=32).image_shape == (3, 32, 32)


@pytest.mark.parametrize("kind", ["EPS", "GIF", "PDF", "TGA", "ICO"])
def test_only_documented_formats_are_decoded(tmp_path: Path, kind: str) -> None:
    """Whatever the suffix says: some of Pillow's formats start other programs."""
    write_images(tmp_path, {"a": 6, "b": 6})
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "000.png", kind)
    for options in ({}, {"image_size": 8}):
        assert "000.png cannot be read" in refusal(tmp_path, **options)


def test_files_that_are_left_out_are_counted(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 6, "b": 6})
    whole = load_data(str(tmp_path)).fingerprint
    for name in ("a/x.gif", "a/y.GIF", "b/notes.txt", "b/.hidden"):
        (tmp_path / name).write_text("no image")
    with pytest.warns(UserNote, match=r"3 files .* are left out, such as .*x\.gif") as caught:
        assert load_data(str(tmp_path)).fingerprint == whole
    assert len(caught) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 6, "b": 6})
    whole = load_data(str(tmp_path)).fingerprint
    os.mkfifo(tmp_path / "a" / "pipe.png")
    os.mkfifo(tmp_path / "train.parquet")
    (tmp_path / "b" / "device.png").symlink_to("/dev/zero")
    (tmp_path / "b" / "folder.png").mkdir()
    (tmp_path / "b" / "gone.png").symlink_to(tmp_path / "nowhere")
    with pytest.warns(UserNote, match="3 files"):
        assert load_data(str(tmp_path)).fingerprint == whole


# ------------------------------------------------------------------ parquet files


def write_parquet(
    path: Path, labels: list[object], column: str = "img", names: list[str] | None = None
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    rows = []
    for number in range(len(labels)):
        stream = io.BytesIO()
        Image.new("RGB", (8, 8), (number, 0, 0)).save(stream, "PNG")
        rows.append({"bytes": stream.getvalue(), "path": None})
    table = pyarrow.table({column: rows, "label": labels})
    if names:
        info = {"info": {"features": {"label": {"names": names}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    parquet.write_table(table, path)


def test_parquet_folder(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-0.parquet", [0, 1] * 10)
    write_parquet(tmp_path / "train-1.parquet", [2] * 5)
    write_parquet(tmp_path / "validation-0.parquet", [0, 1, 2], column="img")
    data = load_data(str(tmp_path), validation_fraction=0.2)
    assert data.classes == ("0", "1", "2")
    assert len(data.validation) == 3
    assert torch.bincount(data.load_test().labels).tolist() == [2, 2, 1]


def test_a_name_is_known_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    assert data_name(str(tmp_path / "pets")) == "pets"
    assert data_name("cifar10") == "cifar10"
    assert data_name("embedded") == load_data("embedded").name
    with pytest.raises(DataError, match="does not exist"):
        data_name(str(tmp_path / "nowhere"))


def test_parquet_knows_its_class_names(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_parquet(tmp_path / "data" / "train.parquet", [0, 1] * 9, "image", ["cat", "dog"])
    assert load_data(str(tmp_path)).classes == ("cat", "dog")


@pytest.mark.skipif(not CIFAR10.is_dir(), reason=f"{CIFAR10} is not here")
def test_cifar10_parquet() -> None:
    pytest.importorskip("pyarrow")
    data = load_data(str(CIFAR10), image_size=16, train_limit=3000)
    assert data.image_shape == (3, 16, 16)
    assert data.num_classes == 10
    assert torch.bincount(data.train.labels).tolist() == [300] * 10
    assert torch.bincount(data.validation.labels).tolist() == [500] * 10
    assert data.mean == pytest.approx((0.49, 0.48, 0.45), abs=0.02)


# ------------------------------------------------------------------ mistakes


def refusal(spec: object, **options: Any) -> str:
    """The sentence with which load_data refuses, checked to be one."""
    with pytest.raises(UserError) as caught:
        load_data(str(spec), **options).load_test()
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


def test_unknown_data() -> None:
    message = refusal("cifar11")
    assert "'cifar11'" in message
    assert "'embedded', 'cifar10'" in message
    assert "a folder of images by class" in message


def test_missing_folder_and_file(tmp_path: Path) -> None:
    assert f"{tmp_path}/none does not exist" in refusal(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    assert "is a file, not a folder" in refusal(tmp_path / "file")


def test_folders_without_images(tmp_path: Path) -> None:
    assert f"{tmp_path} holds no images" in refusal(tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / "loose.png")
    assert "holds images but no class folders" in refusal(tmp_path)
    write_images(tmp_path, {"a": 4, "b": 0})
    assert f"{tmp_path}/b holds no images" in refusal(tmp_path)


def test_one_class(tmp_path: Path) -> None:
    write_images(tmp_path, {"only": 9})
    assert f"{tmp_path} has one class only (only)" in refusal(tmp_path)
    write_parquet(tmp_path / "train.parquet", [0] * 9)
    assert "has one class only" in refusal(tmp_path)


def test_too_few_images(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 1, "b": 1})
    assert "leaves no validation images" in refusal(tmp_path)


def test_class_that_train_does_not_know(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"a": 3, "b": 3})
    write_images(tmp_path / "val", {"a": 1, "c": 1})
    assert f"{tmp_path}/val/c has no counterpart" in refusal(tmp_path)


@pytest.mark.parametrize("damage", [lambda whole: b"", lambda whole: whole[:45]])
def test_broken_image(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    write_images(tmp_path, {"a": 9, "b": 9})
    victim = tmp_path / "b" / "004.png"
    victim.write_bytes(damage(victim.read_bytes()))
    for options in ({}, {"image_size": 8}):
        assert f"image {victim} cannot be read" in refusal(tmp_path, **options)


def test_broken_parquet(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1] * 9)
    whole = (tmp_path / "train.parquet").read_bytes()
    (tmp_path / "train.parquet").write_bytes(whole[: len(whole) // 2])
    assert f"parquet file {tmp_path}/train.parquet cannot be read" in refusal(tmp_path)


def test_broken_image_in_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    table = pyarrow.table({"img": [b"junk"] * 8, "label": [0, 1] * 4})
    parquet.write_table(table, tmp_path / "train.parquet")
    assert "row 0 of" in refusal(tmp_path) or "of " + str(tmp_path) in refusal(tmp_path)


def test_parquet_without_label_or_image(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"img": [b"x"], "y": [1]}), tmp_path / "train.parquet")
    assert "has no column label, only img, y" in refusal(tmp_path)
    parquet.write_table(pyarrow.table({"x": [b"x"], "label": [1]}), tmp_path / "train.parquet")
    assert "has no column img or image" in refusal(tmp_path)


def test_parquet_labels(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1] * 9)
    write_parquet(tmp_path / "test.parquet", [0, 2])
    assert "The label 2 of row 1" in refusal(tmp_path)
    write_parquet(tmp_path / "train.parquet", ["a", "b"] * 9)
    assert "train.parquet cannot be read" in refusal(tmp_path)
    write_parquet(tmp_path / "train.parquet", [0, None] * 9)
    assert "train.parquet cannot be read" in refusal(tmp_path)


@pytest.mark.parametrize(
    "images",
    [["text"] * 12, list(range(12)), [None] * 12, [0.5] * 12, [[1, 2]] * 12, [True] * 12,
     [{"path": "x.png"}] * 12, [{"bytes": "text"}] * 12, [{"bytes": None}] * 12],
)  # fmt: skip
def test_parquet_images_that_are_none(tmp_path: Path, images: list[object]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    parquet.write_table(
        pyarrow.table({"img": images, "label": [0, 1] * 6}), tmp_path / "train.parquet"
    )
    assert f"{tmp_path}/train.parquet cannot be read" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("labels", "missing"),
    [([0, 10**10], 1), ([0, 10**6], 1), ([0, 2**63 - 1], 1), ([1, 2], 0), ([0, 1, 3], 2)],
)
def test_parquet_labels_have_no_gaps(tmp_path: Path, labels: list[object], missing: int) -> None:
    write_parquet(tmp_path / "train.parquet", labels * 5)
    sentence = refusal(tmp_path)
    assert f"no image of class {missing}" in sentence
    assert str(max(labels)) in sentence  # type: ignore[type-var]


def test_parquet_labels_below_zero(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1, -1] * 5)
    assert "label -1 of row 2" in refusal(tmp_path)


def test_parquet_class_of_that_name_without_images(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 2] * 9, names=["cat", "dog", "fish"])
    with pytest.warns(UserNote, match="no train image of class dog"):
        assert load_data(str(tmp_path)).num_classes == 3


def test_parquet_without_train_file(tmp_path: Path) -> None:
    write_parquet(tmp_path / "test.parquet", [0, 1])
    assert "is a train file" in refusal(tmp_path)


def test_pyarrow_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'ghnas[parquet]'" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_size": 0}, "image size is 0"),
        ({"image_size": -3}, "image size is -3"),
        ({"validation_fraction": 0.0}, "validation fraction is 0.0"),
        ({"validation_fraction": 1.0}, "validation fraction is 1.0"),
        ({"train_limit": 0}, "limit of train images is 0"),
    ],
)
def test_bad_numbers(options: dict[str, Any], said: str) -> None:
    assert said in refusal("embedded", **options)


def test_cifar10_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    def unreachable(*arguments: object, **options: object) -> None:
        raise urllib.error.URLError("name resolution failed")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", unreachable)
    message = refusal("cifar10", cache=tmp_path)
    assert f"cannot be downloaded to {tmp_path}/cifar10" in message
    assert "go online" in message


def test_cifar10_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    class Cached:
        classes = ("a", "b")

        def __init__(self, root: str, train: bool, download: bool) -> None:
            assert root == str(tmp_path / "cifar10")
            count = 40 if train else 10
            pixels = np.arange(count, dtype=np.uint8).repeat(32 * 32 * 3)
            self.data = pixels.reshape(count, 32, 32, 3)
            self.targets = [n % 2 for n in range(count)]

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Cached)
    data = load_data("cifar10", cache=tmp_path, image_size=16, train_limit=20)
    assert data.classes == ("a", "b")
    assert data.mirror
    assert data.image_shape == (3, 16, 16)
    assert (len(data.train), len(data.validation), len(data.load_test())) == (20, 4, 10)
    numbers = data.train.images[:, 0, 0, 0]
    assert torch.equal(numbers % 2, data.train.labels.to(torch.uint8))
