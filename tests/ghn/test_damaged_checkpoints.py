"""Files that are no hypernetwork, or a damaged one: one short sentence, and nothing is executed."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ghnas.ghn.checkpoint import load_ghn
from ghnas.ghn.model import GHN
from ghnas.ghn.published import write_published
from ghnas.utils.errors import UserError, one_sentence


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_ghn(path)
    sentence = one_sentence(str(caught.value))
    assert path.name in sentence
    assert len(sentence) <= 300
    assert sentence.count("\n") < 4
    return sentence


@pytest.fixture
def published(tmp_path: Path, tiny_ghn: Path) -> Path:
    path = tmp_path / "published.pt"
    write_published(path, load_ghn(tiny_ghn))
    return path


def test_the_content_decides_and_not_the_suffix(published: Path, tiny_ghn: Path) -> None:
    ours = published.with_name("ours.pt")
    ours.write_bytes(tiny_ghn.read_bytes())
    theirs = published.rename(published.with_name("theirs.safetensors"))
    a, b = load_ghn(ours).state_dict(), load_ghn(theirs).state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"PK\x03\x04", b"PK" * 500, b"\x80", b"\x80\x02", b"\x80\x04\x95" + bytes(50),
     b"\x80\x02cos\nsystem\n(S'true'\ntR.", b"\x80\x02}q\x00.", b"text", bytes(100),
     b"\xff" * 8 + b"{" + bytes(20), b"\x02" + bytes(7) + b"{}", b"\x80" + bytes(7) + b"{" * 128],
)  # fmt: skip
@pytest.mark.parametrize("name", ["x.safetensors", "x.pt"])
def test_bytes_that_are_no_checkpoint(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name)


@pytest.mark.parametrize(
    "change",
    [
        {"config": None}, {"config": 7}, {"config": [1, 2]}, {"config": {3: 4}},
        {"config": {"hid": "x" * 5000}}, {"config": {"x" * 5000: 1}}, {"config": {"hid": 7}},
        {"config": {"hid": -8}}, {"config": {"hid": 10**9}}, {"config": {"max_shape": (64, 64)}},
        {"config": {"max_shape": (64, 64, 7, 10**9)}}, {"config": {"max_shape": "7777"}},
        {"config": {"num_classes": 10**12}}, {"config": {"num_classes": 10.5}},
        {"config": {"ve": "yes"}}, {"config": {"decoder": ["conv"]}},
        {"state_dict": None}, {"state_dict": [torch.ones(2)]}, {"state_dict": {5: torch.ones(2)}},
        {"state_dict": {"decoder": "text"}}, {"state_dict": {}}, {"epoch": "many"},
        {"epoch": float("nan")}, {"epoch": [1]}, {"epoch": float("inf")},
    ],
)  # fmt: skip
def test_published_checkpoints_with_wrong_parts(published: Path, change: dict[str, Any]) -> None:
    content = torch.load(published, weights_only=True)
    for key, value in change.items():
        mends = isinstance(value, dict) and key == "config"
        content[key] = content[key] | value if mends else value
    torch.save(content, published)
    refused(published)


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"hid": 1 << 40}}, {"config": []}, {"image_shape": [3, 10**9, 10**9]},
        {"image_shape": [3]}, {"image_shape": [3, 0, 0]}, {"mean": [0.5]}, {"std": [0, 0, 0]},
        {"classes": "abc"}, {"space": 5}, {"skeleton": [1]}, {"space": "../../x"},
        {"mean": ["a", "b", "c"]}, {"strange" * 900: 1},
    ],
)  # fmt: skip
def test_our_checkpoints_with_a_wrong_header(
    tmp_path: Path, tiny_ghn: Path, change: dict[str, Any]
) -> None:
    with safe_open(tiny_ghn, framework="pt") as file:
        metadata = dict(file.metadata())
    path = tmp_path / "wrong.safetensors"
    metadata["ghnas"] = json.dumps(json.loads(metadata["ghnas"]) | change)
    save_file(load_file(tiny_ghn), path, metadata=metadata)
    refused(path)
    metadata["ghnas"] = "[" * 100_000
    save_file(load_file(tiny_ghn), path, metadata=metadata)
    refused(path)


@pytest.mark.parametrize("kind", ["ours", "published"])
def test_random_damage(published: Path, tiny_ghn: Path, kind: str) -> None:
    """What still can be read is a hypernetwork; everything else is refused."""
    rng, content = random.Random(0), (tiny_ghn if kind == "ours" else published).read_bytes()
    path = published.with_name("damaged")
    for _ in range(60):
        damaged = bytearray(content)
        for _ in range(rng.choice([1, 4, 100])):
            start = rng.choice([rng.randrange(len(content)), rng.randrange(3000)])
            damaged[start] = rng.randrange(256)
        path.write_bytes(damaged[: rng.choice([len(damaged), rng.randrange(len(damaged))])])
        with contextlib.suppress(UserError):
            assert isinstance(load_ghn(path), GHN)
