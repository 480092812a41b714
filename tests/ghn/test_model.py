"""The hypernetwork: equal to the published one, level-wise equal to node-wise, its files."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from searching import DARTS_V2
from torch import nn

from ghnas.architectures.genotypes import parse_genotype
from ghnas.architectures.network import forward
from ghnas.data import load_data
from ghnas.ghn.checkpoint import (
    GHNMismatchWarning,
    check_ghn,
    find_ghn,
    list_ghns,
    load_ghn,
    save_ghn,
    trained_skeleton,
)
from ghnas.ghn.config import PRESETS, GHNConfig, GHNInfo
from ghnas.ghn.features import batch_features, graph_features
from ghnas.ghn.model import GHN, read_graphs
from ghnas.scoring.scorer import score
from ghnas.spaces import load_space
from ghnas.utils.errors import UserError

PARITY = Path(__file__).resolve().parents[3] / "shared" / "parity"
SHAPE = (3, 16, 16)
SMALL = GHNConfig(hid=8, max_shape=(16, 16, 5, 5))


def sample(count: int, name: str = "darts", seed: int = 0) -> list:
    space, rng = load_space(name), random.Random(seed)
    return [space.sample(rng).for_images(SHAPE, 10).graph for _ in range(count)]


@pytest.mark.skipif(not PARITY.is_dir(), reason="needs the reference numbers in shared/parity")
def test_equals_the_published_implementation() -> None:
    reference = torch.load(PARITY / "ghn2.pt", weights_only=True)
    case = json.loads((PARITY / "ghn2.json").read_text())["darts-8-5"]
    ghn = GHN(GHNConfig(**reference["config"]))
    ghn.load_state_dict(reference["state_dict"])
    space = load_space("darts")
    graph = space.genotype_graph(parse_genotype(DARTS_V2), (3, 32, 32), 10)  # type: ignore[attr-defined]
    features = graph_features([graph])[0]
    assert len(features.data.primitive) == len(case["nodes"])
    assert int((features.data.path_length > 1).sum()) == case["virtual_edges_count"]
    predicted = ghn.predict_graphs([graph])[0]
    assert set(predicted) == set(case["parameters"])
    for name, expected in case["parameters"].items():
        values = predicted[name]
        assert list(values.shape) == expected["shape"]
        assert float(values.abs().sum()) == pytest.approx(expected["abs_sum"], rel=1e-4)
        first = values.flatten()[:8].tolist()
        assert first == pytest.approx(expected["first"], rel=1e-4, abs=1e-6)
    images = torch.linspace(-1, 1, 4 * 3 * 32 * 32).view(4, 3, 32, 32)
    logits = forward(graph, predicted, images)
    torch.testing.assert_close(logits, torch.tensor(case["logits"]), rtol=1e-3, atol=1e-3)


def test_levels_equal_node_by_node() -> None:
    """A plain loop over nodes in topological order, as the paper writes it."""
    torch.manual_seed(0)
    ghn = GHN(SMALL)
    graph = sample(1)[0]
    features = graph_features([graph])[0]
    count = len(features.data.primitive)
    paths: dict[tuple[int, int], float] = {}
    for (a, b), length in zip(
        features.data.path_index.t().tolist(), features.data.path_length.tolist(), strict=True
    ):
        paths[a, b] = float(length)
    batch = read_graphs([graph], SMALL)
    with torch.no_grad():
        x = ghn.embed(batch.primitive) + ghn.shape_enc(batch.shape)
        for order, flip in ((range(count), False), (range(count - 1, -1, -1), True)):
            for node in order:
                message = torch.zeros(SMALL.hid)
                for (a, b), length in paths.items():
                    source, target = (b, a) if flip else (a, b)
                    if target == node:
                        message = message + ghn.gnn.mlp_ve(x[source]) / length
                        if length == 1:
                            message = message + ghn.gnn.mlp(x[source])
                x[node] = ghn.gnn.gru(message[None], x[node][None])[0]
        torch.testing.assert_close(ghn.embeddings(batch), ghn.ln(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kinds", [1, 2])
def test_a_traversal_holds_every_path_once(kinds: int) -> None:
    """Graphs of different sizes and depths in one batch; edges as node numbers of the batch."""
    graphs = [*sample(2), *sample(1, "mobile"), *sample(1, "nasbench201")]
    features = graph_features(graphs)
    batch = batch_features(features, virtual_edges=kinds == 2)
    expected, start = [], 0
    for item in features:
        paths = (item.data.path_index + start).t().tolist()
        for (source, target), length in zip(paths, item.data.path_length.tolist(), strict=True):
            expected += [(source, target, 0, 1.0)] if length == 1 else []
            expected += [(source, target, 1, pytest.approx(1 / length))] if kinds == 2 else []
        start += item.data.num_nodes
    for traversal, flipped in ((batch.forward, False), (batch.backward, True)):
        found, begin = [], 0
        assert traversal.order[traversal.rank].tolist() == list(range(start))
        for edges, end in zip(traversal.edges(), traversal.ends, strict=True):
            ends = [*edges.starts.tolist()[1:], len(edges.sources)]
            counts = torch.tensor(ends) - edges.starts
            assert edges.targets.tolist() == torch.repeat_interleave(counts).tolist()
            assert bool((edges.sources < begin * kinds).all())  # their messages are there
            sources = traversal.order[edges.sources // kinds].tolist()
            targets = traversal.order[edges.targets + begin].tolist()
            ends_of = (targets, sources) if flipped else (sources, targets)
            kind, weights = (edges.sources % kinds).tolist(), edges.weights.tolist()
            found += zip(*ends_of, kind, weights, strict=True)
            begin = end
        assert sorted(found) == sorted(expected, key=lambda edge: edge[:3])


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["darts", "mobile", "nasbench101", "nasbench_macro"])
def test_every_parameter_is_predicted(preset: str, name: str) -> None:
    ghn = GHN(GHNConfig(hid=8, max_shape=(16, 16, 5, 5), **PRESETS[preset]))
    graphs = sample(3, name)
    for graph, predicted in zip(graphs, ghn.predict_graphs(graphs), strict=True):
        assert {key: tuple(value.shape) for key, value in predicted.items()} == graph.parameters
        assert all(value.isfinite().all() for value in predicted.values())


def test_predictions_do_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    ghn, graphs = GHN(SMALL), sample(3)
    for together, graph in zip(ghn.predict_graphs(graphs), graphs, strict=True):
        alone = ghn.predict_graphs([graph])[0]
        for key, value in together.items():
            torch.testing.assert_close(value, alone[key], rtol=1e-4, atol=1e-5)


OUT_OF_MEMORY = """
import resource, torch
from ghnas.ghn.traversal import Edges
some = torch.arange(3)
edges, sent = Edges(some, some, torch.ones(3), some), torch.ones(3, 8)
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size, size))
try:
    edges.receive(sent)
except MemoryError:
    print("too little memory")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory as Linux does")
def test_too_little_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (0, "too little memory\n"), found.stderr


def test_gradients_reach_every_parameter() -> None:
    ghn, graphs = GHN(SMALL), sample(2)
    stacks = ghn(read_graphs(graphs, SMALL))
    loss = sum(F.mse_loss(stack, torch.ones_like(stack)) for stack in stacks)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in ghn.parameters())


def info(**changes: object) -> GHNInfo:
    values: dict = {
        "space": "darts", "skeleton": {}, "data": "digitscapes",
        "fingerprint": "x", "classes": tuple("0123456789"), "image_shape": SHAPE,
        "mean": (0.5,) * 3, "std": (0.2,) * 3,
    }  # fmt: skip
    return GHNInfo(**(values | changes))


def test_checkpoints_round_trip(tmp_path: Path) -> None:
    ghn, path = GHN(SMALL), tmp_path / "ghn.safetensors"
    ghn.info = info()
    save_ghn(path, ghn)
    loaded = load_ghn(path)
    about = loaded.info
    assert loaded.config == SMALL
    assert about.space == "darts"
    assert len(about.sha256) == 64
    for key, value in ghn.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def test_what_decay_left_of_a_weight_is_read_as_zero(tmp_path: Path) -> None:
    ghn, path = GHN(SMALL), tmp_path / "ghn.safetensors"
    weight = ghn.decoder_1d.fc[2].weight
    with torch.no_grad():
        weight[0, :3] = torch.tensor([1e-40, -1e-35, 1e-20])
    save_ghn(path, ghn)
    read = load_ghn(path).decoder_1d.fc[2].weight
    assert read[0, :3].tolist() == [0, 0, weight[0, 2].item()]
    assert torch.equal(read[1:], weight[1:])


def test_bad_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "ghn.safetensors"
    with pytest.raises(UserError, match="no GHN file"):
        load_ghn(path)
    save_ghn(path, GHN(SMALL, info()))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="damaged"):
        load_ghn(path)
    path.write_bytes(b"hello")
    with pytest.raises(UserError, match="damaged"):
        load_ghn(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="not a GHN"):
        load_ghn(path)


def test_the_shipped_checkpoint_fits_the_embedded_data() -> None:
    data, space = load_data(), load_space("darts")
    ghn = load_ghn(find_ghn("darts", data.name, "train"))
    about = ghn.info
    check_ghn(ghn, space, data, "train")
    assert about.fingerprint == data.fingerprint
    assert ghn.config.num_classes == 10


def test_the_shipped_checkpoint_predicts_networks_that_see() -> None:
    """Random architectures, 77 to 83 % right on images that the training did not see."""
    ghn, data, space = load_ghn("darts-embedded"), load_data(), load_space("darts")
    architectures = [space.sample(seed) for seed in range(6)]
    scores = score(ghn, architectures, data, images=512, workers=1, device="cpu")
    assert min(item.accuracy for item in scores) > 0.7
    assert sum(item.accuracy for item in scores) / 6 > 0.75


def test_a_ghn_for_something_else_is_refused() -> None:
    data, darts = load_data(), load_space("darts")
    fits = info(classes=data.classes, image_shape=data.image_shape)
    check_ghn(GHN(SMALL, fits), darts, data, "train one with `ghnas train`")
    general = replace(fits, space="general", skeleton={})
    for name in ("darts", "mobile"):
        check_ghn(GHN(SMALL, general), load_space(name), data)
    wrong = {
        "space": info(space="mobile", classes=data.classes),
        "classes": info(classes=("a", "b", "c")),
        "images": info(image_shape=(3, 32, 32), classes=data.classes),
        "data": info(data="cifar10", classes=data.classes),
    }
    for key, about in wrong.items():
        config = GHNConfig(num_classes=3, hid=8) if key == "classes" else SMALL
        with pytest.raises(UserError, match="ghnas train"):
            check_ghn(GHN(config, about), darts, data, "train one with `ghnas train`")


def test_other_networks_or_images_than_trained_for_are_said() -> None:
    data, darts = load_data(), load_space("darts")
    fits = info(
        classes=data.classes, image_shape=data.image_shape, fingerprint=data.fingerprint,
        skeleton=dict(darts.skeleton),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_ghn(GHN(SMALL, fits), darts, data)
    with pytest.warns(GHNMismatchWarning, match="trained for cells 5, these networks have cells 8"):
        check_ghn(GHN(SMALL, fits), darts.with_skeleton(cells=8), data)
    with pytest.warns(GHNMismatchWarning, match="other images named 'digitscapes'"):
        check_ghn(GHN(SMALL, replace(fits, fingerprint="x")), darts, data)
    strange = replace(fits, skeleton={"cells": 3, "stages": [1], "colour": "red"})
    assert trained_skeleton(strange, darts).skeleton == darts.with_skeleton(cells=3).skeleton
    with pytest.warns(GHNMismatchWarning, match="trained for cells 3"):
        check_ghn(GHN(SMALL, strange), darts, data)


@pytest.mark.parametrize(
    ("name", "skeleton", "least"), [("darts", {"channels": 12}, 0.7), ("mobile", {}, 0.65)]
)
def test_the_general_hypernetwork_predicts_for_other_spaces(
    name: str, skeleton: dict[str, int], least: float
) -> None:
    """100 of each reach 82.6 and 78.7 % on average (results/general.md); chance is 10 %."""
    ghn, data = load_ghn("general-embedded"), load_data()
    space = load_space(name).with_skeleton(**skeleton)
    check_ghn(ghn, space, data)
    architectures = [space.sample(seed) for seed in range(6)]
    scores = score(ghn, architectures, data, images=256, workers=1, device="cpu")
    assert sum(item.accuracy for item in scores) / 6 > least


def test_hypernetworks_that_ship_have_names() -> None:
    names = sorted(list_ghns())
    assert {"darts-embedded", "general-embedded", "nasbench101-cifar10"} <= set(names)
    for name in names:
        about = load_ghn(name).info
        assert f"{about.space}-{about.data.replace('digitscapes', 'embedded')}" == name
    with pytest.raises(UserError, match="darts-embedded, general-cifar10"):
        load_ghn("darts-imagenet")


def test_an_architecture_becomes_a_network() -> None:
    ghn, arch = load_ghn("darts-embedded"), load_space("darts").sample(seed=0)
    arch = arch.for_images((3, 16, 16), 10)
    network = ghn.initialize(arch)
    images = torch.randn(4, 3, 16, 16)
    expected = forward(arch.graph, ghn.predict_graphs([arch.graph])[0], images)
    with torch.no_grad():
        torch.testing.assert_close(network.train()(images), expected)


NO_VECTORS = nn.Sequential(
    nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10, bias=False)
)
NO_MATRICES = nn.Sequential(nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
NEITHER = nn.Sequential(nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize("decoder", ["conv", "mlp"])
@pytest.mark.parametrize("network", [NO_VECTORS, NO_MATRICES, NEITHER])
def test_networks_without_vectors_or_matrices(network: nn.Module, decoder: str) -> None:
    ghn = GHN(replace(SMALL, decoder=decoder)).eval()  # type: ignore[arg-type]
    predicted = ghn.predict(network, (3, 8, 8))
    assert {key: value.shape for key, value in predicted.items()} == {
        key: value.shape for key, value in network.named_parameters()
    }
    assert all(value.isfinite().all() for value in predicted.values())
