"""`ghnas predict` and `ghnas convert`, the published file format, conditioning."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from ghnas.ghn.checkpoint import load_ghn, save_ghn
from ghnas.ghn.conditioning import condition
from ghnas.ghn.config import PRESETS, GHNConfig, GHNInfo
from ghnas.ghn.model import GHN
from ghnas.ghn.published import write_published

Ghnas = Callable[..., tuple[int, str, str]]
PARITY = Path(__file__).resolve().parents[3] / "shared" / "parity"
NETWORK = """
from torch import nn

class Small(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
        )

class Twisted(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3, 10)

    def forward(self, images):
        x = images.mean((2, 3))
        return self.last(x) if float(x.sum()) > 0 else self.last(-x)

def broken():
    raise RuntimeError("no weights today")

def number():
    return 3
"""


def small_ghn(preset: str = "ghn2") -> GHN:
    torch.manual_seed(0)
    return GHN(GHNConfig(hid=8, max_shape=(16, 16, 5, 5), **PRESETS[preset])).eval()  # type: ignore[arg-type]


@pytest.fixture
def ghn_file(tmp_path: Path) -> Path:
    """A hypernetwork that was never trained."""
    ghn = small_ghn()
    save_ghn(tmp_path / "ghn.safetensors", ghn)
    return tmp_path / "ghn.safetensors"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module of the user's."""
    (tmp_path / "my_networks.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("preset", PRESETS)
def test_both_formats_keep_a_hypernetwork(preset: str, tmp_path: Path, ghnas: Ghnas) -> None:
    ghn, network = small_ghn(preset), torchvision.models.mobilenet_v2(num_classes=10)
    ghn.info = GHNInfo(training={"epochs": 7})
    write_published(tmp_path / "a.pt", ghn)
    assert ghnas("convert", tmp_path / "a.pt", tmp_path / "b.safetensors")[0] == 0
    assert ghnas("convert", tmp_path / "b.safetensors", tmp_path / "c.pt")[0] == 0
    expected = ghn.predict(network)
    for name in ("a.pt", "b.safetensors", "c.pt"):
        again = load_ghn(tmp_path / name)
        assert again.config == ghn.config
        assert again.info.training == {"epochs": 7}
        for key, value in again.predict(network).items():
            assert torch.equal(value, expected[key])


def test_half_the_size_keeps_a_hypernetwork_nearly(tmp_path: Path, ghnas: Ghnas) -> None:
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    save_ghn(whole, small_ghn("ghn2"))
    assert ghnas("convert", whole, half, "--half")[0] == 0
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    again = load_ghn(half).state_dict()
    for key, value in load_ghn(whole).state_dict().items():
        assert again[key].dtype == value.dtype
        torch.testing.assert_close(again[key], value, rtol=2**-11, atol=1e-7)


def test_a_published_checkpoint_names_only_what_it_uses(tmp_path: Path) -> None:
    ghn = small_ghn("ghn1")
    config = {"num_classes": 10, "max_shape": (16, 16, 5, 5), "hid": 8, "hypernet": "gatedgnn"}
    content = {"config": config, "state_dict": ghn.state_dict(), "epoch": 1}
    torch.save(content, tmp_path / "ghn1.pt")
    assert load_ghn(tmp_path / "ghn1.pt").config == ghn.config


@pytest.mark.skipif(not PARITY.is_dir(), reason="needs the reference numbers in shared/parity")
def test_a_search_takes_a_published_checkpoint(tmp_path: Path, ghnas: Ghnas) -> None:
    code, out, err = ghnas(
        "search", "--ghn", PARITY / "ghn2.pt", "--budget", "8", "--score-images", "64",
        "--results", tmp_path, "--json",
    )  # fmt: skip
    assert code == 0, err
    assert len(json.loads(out)["best"]) == 8


class Evil:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.path,))


def test_what_is_no_checkpoint(tmp_path: Path, ghnas: Ghnas) -> None:
    path, ghn = tmp_path / "x.pt", small_ghn()
    write_published(path, ghn)
    whole = path.read_bytes()
    good = torch.load(path, weights_only=True)
    wrong = good | {"config": good["config"] | {"colour": 3}}
    smaller = good | {"config": good["config"] | {"hid": 4}}
    for content, words in (
        (whole[: len(whole) // 2], "no PyTorch file"),
        (b"PK", "no PyTorch file"),
        ({"weight": torch.zeros(2)}, "needs config and state_dict"),
        (wrong, "colour': unknown key"),
        (smaller, "has shape"),
        (good | {"epoch": Evil(tmp_path / "executed")}, "no PyTorch file"),
    ):
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        code, _, err = ghnas("predict", "resnet18", "--ghn", path)
        assert code == 2
        assert words in err
        assert str(path) in err
        assert len(err.splitlines()) == 1
    assert not (tmp_path / "executed").exists()
    code, _, err = ghnas("convert", tmp_path / "none.pt", tmp_path / "b.pt")
    assert code == 2
    assert "no GHN file" in err
    code, _, err = ghnas("convert", path, tmp_path / "b.onnx")
    assert code == 2
    assert "must end in .safetensors or .pt" in err


# ---------------------------------------------------------------- predict


def test_predict_writes_a_state_dict(ghn_file: Path, tmp_path: Path, ghnas: Ghnas) -> None:
    path = tmp_path / "out" / "r18.safetensors"
    code, out, err = ghnas("predict", "resnet18", "--ghn", ghn_file, "-o", path, "--json")
    assert code == 0, err
    network = torchvision.models.resnet18()
    missing, unexpected = network.load_state_dict(load_file(path), strict=False)
    assert not unexpected
    assert all("running" in name or "num_batches" in name for name in missing)
    said = json.loads(out)
    assert said["values"] == sum(value.numel() for value in network.parameters())
    assert said["parameters"] == len(list(network.parameters()))
    assert said["left_out"] == []


def test_predict_for_a_network_of_ones_own(ghn_file: Path, here: Path, ghnas: Ghnas) -> None:
    assert ghnas("predict", "my_networks:Small", "--ghn", ghn_file)[0] == 0
    assert load_file(here / "Small.safetensors")["5.weight"].shape == (10, 8)
    ghnas("predict", "my_networks:Small", "--ghn", ghn_file, "--classes", 3)
    assert load_file(here / "Small.safetensors")["5.weight"].shape == (3, 8)
    plain = load_file(here / "Small.safetensors")
    ghnas("predict", "my_networks:Small", "--ghn", ghn_file, "--classes", 3, "--noise", "1e-3")
    noisy = load_file(here / "Small.safetensors")
    assert not torch.equal(noisy["0.weight"], plain["0.weight"])
    assert torch.equal(noisy["5.weight"], plain["5.weight"])
    ghnas("predict", "my_networks:Small", "--ghn", ghn_file, "--keep-head")
    assert "5.weight" not in load_file(here / "Small.safetensors")


def test_predict_names_what_it_cannot_use(ghn_file: Path, here: Path, ghnas: Ghnas) -> None:
    for network, words in (
        ("resnet51", "did you mean resnet5"),
        ("my_nets:Small", "cannot import 'my_nets'"),
        ("my_networks:Large", "has no function or class 'Large'"),
        ("my_networks:broken", "RuntimeError: no weights today"),
        ("my_networks:number", "of type int, not a torch.nn.Module"),
        ("my_networks:Twisted", "Twisted cannot be traced"),
    ):
        code, _, err = ghnas("predict", network, "--ghn", ghn_file)
        assert code == 2
        assert words in err
        assert len(err.splitlines()) == 1
    assert not list(here.glob("*.safetensors")) or list(here.glob("*.safetensors")) == [ghn_file]
    code, _, err = ghnas("predict", "resnet18", "--ghn", ghn_file, "-o", here / "r.bin")
    assert code == 2
    assert "must end in .safetensors" in err
    save_file({"weight": torch.zeros(1)}, here / "other.safetensors")
    code, _, err = ghnas("predict", "resnet18", "--ghn", here / "other.safetensors")
    assert code == 2
    assert "not a GHN" in err


# ---------------------------------------------------------------- conditioning


def test_conditioning_changes_little_but_makes_deep_layers_orthogonal() -> None:
    predicted = small_ghn().predict(torchvision.models.resnet18(num_classes=10))
    changed = condition(predicted, noise=1e-4, seed=1)
    assert list(changed) == list(predicted)
    assert torch.equal(changed["fc.weight"], predicted["fc.weight"])
    assert torch.equal(changed["fc.bias"], predicted["fc.bias"])
    difference = (changed["conv1.weight"] - predicted["conv1.weight"]).abs().max()
    assert 0 < float(difference) < 1e-2
    deep = changed["layer4.1.conv2.weight"].flatten(1)
    torch.testing.assert_close(deep @ deep.t(), torch.eye(512), rtol=0, atol=1e-4)
    again = condition(predicted, noise=1e-4, seed=1)
    assert all(torch.equal(again[name], value) for name, value in changed.items())
    other = condition(predicted, noise=1e-4, seed=2)
    assert not torch.equal(other["conv1.weight"], changed["conv1.weight"])
