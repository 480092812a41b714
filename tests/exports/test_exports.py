"""Exported networks compute what the network does, without ghnas."""

import json
import subprocess
import sys
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

import ghnas
from ghnas.architectures import ops, token_ops
from ghnas.architectures.network import Network
from ghnas.exports.formats import logits
from ghnas.exports.layers import layer
from ghnas.training.saved import describe, read, save

SMALL = {"darts": {"cells": 1, "channels": 4}, "deepnets1m": {"channels": 8}}
ALONE = """
import sys
sys.modules["ghnas"] = None
import torch
"""
RUN_PYTHON = """
sys.path.insert(0, sys.argv[1])
import network as exported
result = exported.load(sys.argv[1] + "/network.safetensors")(torch.load(sys.argv[2]))
torch.save((result.detach(), exported.CLASSES), sys.argv[3])
"""
RUN_TORCH = """
import json
names = {"classes.json": ""}
program = torch.export.load(sys.argv[1] + "/network.pt2", extra_files=names)
result = program.module()(torch.load(sys.argv[2]))
torch.save((result.detach(), json.loads(names["classes.json"])), sys.argv[3])
"""


@pytest.fixture(scope="session")
def data():
    return ghnas.load_data("embedded", train_limit=64)


def saved_network(folder: Path, name: str, data, seed: int, size: dict | None = None) -> Path:
    """A network of a space with random weights and running statistics, as fine-tuning saves it."""
    space = ghnas.load_space(name).with_skeleton(**(size or {}))
    found = space.sample(seed=seed).for_images(data.image_shape, data.num_classes)
    network = Network(found.graph)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in [*network.buffers(), *(p for p in network.parameters() if p.dim() < 2)]:
            value.uniform_(0.5, 1.5, generator=generator)
        for value in (p for p in network.parameters() if p.dim() > 1):
            value.mul_(0.5)  # or networks without norms overflow
    save(folder / "model.safetensors", network, describe(found, data))
    return folder


def agree(first: torch.Tensor, second: torch.Tensor) -> bool:
    return float((first - second).detach().abs().max() / second.detach().abs().max()) < 1e-5


def run_alone(code: str, folder: Path, images: torch.Tensor):
    torch.save(images, folder / "images.pt")
    files = [str(folder), str(folder / "images.pt"), str(folder / "result.pt")]
    command = [sys.executable, "-c", ALONE + code, *files]
    subprocess.run(command, check=True, capture_output=True)
    return torch.load(folder / "result.pt")


@pytest.mark.parametrize("space", ghnas.list_spaces())
@pytest.mark.parametrize("seed", range(3))
def test_python_source_computes_what_the_network_does(space, seed, data, tmp_path):
    saved = read(saved_network(tmp_path / "saved", space, data, seed))
    # the export itself refuses what differs by more than its tolerance; here it is 1e-5
    path = ghnas.export(tmp_path / "saved", tmp_path / "network.py")
    from ghnas.exports.formats import _load_module

    images = torch.rand(2, *data.image_shape)
    found = _load_module(path, path.with_suffix(".safetensors"))(images)
    assert agree(found, logits(saved, images))


@pytest.mark.parametrize(("suffix", "code"), [(".py", RUN_PYTHON), (".pt2", RUN_TORCH)])
def test_runs_where_there_is_no_ghnas(suffix, code, data, tmp_path):
    folder = saved_network(tmp_path / "saved", "darts", data, 0, SMALL["darts"])
    ghnas.export(folder, tmp_path / f"network{suffix}")
    images = torch.rand(5, *data.image_shape)
    found, classes = run_alone(code, tmp_path, images)
    assert agree(found, logits(read(folder), images))
    assert classes == list(data.classes)


@pytest.mark.parametrize("space", ["darts", "deepnets1m"])
def test_onnx_computes_what_the_network_does(space, data, tmp_path):
    folder = saved_network(tmp_path / "saved", space, data, 1, SMALL[space])
    path = ghnas.export(folder, tmp_path / "network.onnx")
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert {item.domain: item.version for item in model.opset_import}[""] >= 17
    names = {item.key: item.value for item in model.metadata_props}
    assert json.loads(names["classes"]) == list(data.classes)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = torch.rand(5, *data.image_shape)
    (found,) = session.run(["logits"], {"images": images.numpy()})
    assert agree(torch.from_numpy(found), logits(read(folder), images))


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime", "onnxscript"])
def test_onnx_names_the_extra_that_it_takes(missing, data, tmp_path, monkeypatch):
    folder = saved_network(tmp_path / "saved", "darts", data, 0, SMALL["darts"])
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ghnas.UserError, match=rf"package {missing}.*'ghnas\[onnx\]'"):
        ghnas.export(folder, tmp_path / "network.onnx")


def test_every_operation_has_plain_source():
    """Operations of spaces; a traced network has more, and is not exported."""
    classes = {ops.Op}
    for item in [*vars(ops).values(), *vars(token_ops).values()]:
        if isinstance(item, type) and issubclass(item, ops.Op) and item.kind:
            classes.add(item)
    without = {item.kind for item in classes if layer.dispatch(item) is layer.dispatch(object)}
    assert without == {"", "input"}


def test_names_of_classes_are_kept_whatever_they_are(data, tmp_path):
    strange = ('a"b', "c'\\", 'new\nline"""', "ü 猫", *data.classes[4:])
    folder = saved_network(tmp_path / "saved", "darts", data, 0, SMALL["darts"])
    saved = read(folder)
    space = ghnas.load_space("darts").with_skeleton(**SMALL["darts"])
    found = space.sample(seed=0).for_images(data.image_shape, data.num_classes)
    described = describe(found, data) | {"classes": list(strange)}
    save(folder / "model.safetensors", saved.network, described)
    ghnas.export(folder, tmp_path / "network.py")
    _, classes = run_alone(RUN_PYTHON, tmp_path, torch.rand(1, *data.image_shape))
    assert tuple(classes) == strange


@pytest.mark.parametrize(
    ("output", "format", "sentence"),
    [
        ("network.bin", None, "unknown format '.bin'"),
        ("network.py", "onnx", "must end in .onnx"),
        ("network.py", "caffe", "unknown format 'caffe'"),
        ("my network.py", None, "cannot be imported"),
    ],
)
def test_refuses_what_it_cannot_write(output, format, sentence, data, tmp_path):
    folder = saved_network(tmp_path / "saved", "darts", data, 0, SMALL["darts"])
    with pytest.raises(ghnas.UserError, match=sentence):
        ghnas.export(folder, tmp_path / output, format)
    assert [item.name for item in tmp_path.iterdir()] == ["saved"]


def test_refuses_a_folder_without_a_network(tmp_path):
    with pytest.raises(ghnas.UserError, match="no fine-tuned network"):
        ghnas.export(tmp_path, tmp_path / "network.py")
