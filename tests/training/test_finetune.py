"""`ghnas.finetune`: one architecture, from predicted or random weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import ghnas
from ghnas.architectures.network import kaiming
from ghnas.data import ImageData, Split, load_data
from ghnas.ghn.config import GHNConfig, GHNInfo
from ghnas.ghn.model import GHN
from ghnas.spaces import load_space
from ghnas.training.epochs import train_network, train_populations
from ghnas.training.finetuning import TrainedNetwork
from ghnas.training.network_tasks import Material, NetworkTask
from ghnas.training.recipe import FinetuneSettings
from ghnas.utils.errors import UserError

SPACE = load_space("darts").with_skeleton(cells=1, channels=4)
MEAN, STD = (0.2, 0.3, 0.4), (0.5, 0.6, 0.7)
"""Of other images than those of the tests."""


@pytest.fixture(scope="module")
def data() -> ImageData:
    full = load_data()
    test = full.load_test().take(96)
    return replace(
        full,
        train=full.train.take(96),
        validation=full.validation.take(64),
        load_test=lambda: test,
    )


@pytest.fixture
def ghn() -> GHN:
    config = GHNConfig(hid=8, max_shape=(16, 16, 5, 5))
    torch.manual_seed(0)
    return GHN(config, GHNInfo(mean=MEAN, std=STD)).eval()


def finetuned(data: ImageData, **options: Any) -> TrainedNetwork:
    settings = {"epochs": 2, "batch_size": 32, "device": "cpu"} | options
    return ghnas.finetune(SPACE.sample(seed=1), data, **settings)


def accuracy(network: torch.nn.Module, split: Split, mean: Any, std: Any) -> float:
    """Worked out with nothing of the training's."""
    middle, spread = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    with torch.no_grad():
        logits = network((split.images / 255 - middle) / spread)
    return float((logits.argmax(1) == split.labels).float().mean())


def state(network: torch.nn.Module) -> dict[str, Tensor]:
    return network.state_dict()


class Stop(Exception):
    pass


def test_a_folder_goes_on_and_loads(tmp_path: Path, data: ImageData, ghn: GHN) -> None:
    told: list[dict[str, float]] = []

    def interrupt(epoch: dict[str, float]) -> None:
        told.append(epoch)
        raise Stop

    with pytest.raises(Stop):
        finetuned(data, ghn=ghn, path=tmp_path, report=interrupt)
    trained = finetuned(data, ghn=ghn, path=tmp_path, report=told.append)
    assert [epoch["epoch"] for epoch in told] == [1, 2]
    whole = finetuned(data, ghn=ghn)
    assert whole.path is None
    assert trained.path == tmp_path
    again = finetuned(data, ghn=ghn, path=tmp_path, report=told.append)
    assert len(told) == 2  # it is finished
    loaded = ghnas.load(tmp_path)
    for other in (whole.network, again.network, loaded):
        assert not other.training
        for key, value in state(trained.network).items():
            assert torch.equal(state(other)[key], value), key
    for other in (whole, again):
        assert (other.validation, other.test) == (trained.validation, trained.test)
        assert other.zero_shot == trained.zero_shot
    assert [epoch["validation"] for epoch in trained.history][-1] == trained.validation


def test_images_are_normalised_as_the_hypernetwork_knows_them(
    tmp_path: Path, data: ImageData, ghn: GHN
) -> None:
    trained = finetuned(data, ghn=ghn, path=tmp_path, epochs=1)
    assert (trained.mean, trained.std) == (MEAN, STD)
    kept = json.loads((tmp_path / "architecture.json").read_text())
    assert (tuple(kept["mean"]), tuple(kept["std"])) == (MEAN, STD)
    network = ghnas.load(tmp_path)
    assert accuracy(network, data.validation, MEAN, STD) == pytest.approx(trained.validation)
    assert accuracy(network, data.load_test(), MEAN, STD) == pytest.approx(trained.test)


def test_without_a_hypernetwork_or_test_images(data: ImageData) -> None:
    trained = finetuned(data.without_test(), epochs=1)
    assert trained.zero_shot is None
    assert trained.test is None
    assert (trained.mean, trained.std) == (data.mean, data.std)
    found = accuracy(trained.network, data.validation, data.mean, data.std)
    assert found == pytest.approx(trained.validation)
    other = finetuned(data, epochs=1, seed=1)
    assert other.history[0]["loss"] != trained.history[0]["loss"]


def test_what_cannot_be_is_refused(tmp_path: Path, data: ImageData) -> None:
    with pytest.raises(UserError, match="epochs must be 1 or more"):
        finetuned(data, epochs=0)
    with pytest.raises(UserError, match="learning_rate"):
        finetuned(data, learning_rate=0)
    few = GHNConfig(hid=8, num_classes=7)
    with pytest.raises(UserError, match="7 classes"):
        finetuned(data, ghn=GHN(few))
    finetuned(data, path=tmp_path, epochs=1)
    for other in ({"epochs": 2}, {"epochs": 1, "seed": 1}):
        with pytest.raises(UserError, match="another network, or one that was trained with other"):
            finetuned(data, path=tmp_path, **other)
    (tmp_path / "architecture.json").write_bytes(b"\xff")
    with pytest.raises(UserError, match="holds another network"):
        finetuned(data, path=tmp_path, epochs=1)


def test_a_damaged_result_is_made_again(tmp_path: Path, data: ImageData) -> None:
    before = finetuned(data, path=tmp_path, epochs=1)
    history = tmp_path / "history.json"
    content = json.loads(history.read_text())
    for damaged in ({"validation": "high"}, {"history": [{"epoch": None}]}, {"seconds": []}):
        history.write_text(json.dumps(content | {"result": content["result"] | damaged}))
        assert finetuned(data, path=tmp_path, epochs=1).validation == before.validation
    assert json.loads(history.read_text())["result"]["validation"] == before.validation


def test_networks_as_a_population_are_those_that_train_one_by_one(
    tmp_path: Path, data: ImageData
) -> None:
    """As on a GPU, here on a CPU; also when one was interrupted after an epoch."""
    graphs = [SPACE.sample(seed).for_images(data.image_shape, 10).graph for seed in range(3)]
    settings = FinetuneSettings(epochs=2, batch_size=32, learning_rate=0.002)
    material = Material(data.without_test(), data.load_test(), [], settings, torch.device("cpu"))

    def tasks(folder: Path) -> list[NetworkTask]:
        generator = torch.Generator().manual_seed(0)
        return [
            NetworkTask(f"n{i}", "ghn", graph, kaiming(graph, generator), folder / str(i), None, {})
            for i, graph in enumerate(graphs)
        ]

    alone = [train_network(task, material, lambda history: None)[1] for task in tasks(tmp_path)]
    together = tasks(tmp_path / "together")
    begun = train_populations(together[:1], material)
    assert len(next(begun)[1]) == 1
    begun.close()
    found, epochs = {}, []
    for index, history, result in train_populations(together, material):
        epochs.append((index, len(history)))
        if result is not None:
            found[index] = result
    assert sorted(epochs) == [(0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]
    for index, expected in enumerate(alone):
        assert found[index].validation == pytest.approx(expected.validation, abs=0.04)
        assert found[index].test == pytest.approx(expected.test, abs=0.04)
        for own, other in zip(found[index].history, expected.history, strict=True):
            assert own["loss"] == pytest.approx(other["loss"], rel=1e-2)
        saved = together[index].folder
        assert saved is not None
        assert not (saved / "state.pt").exists()
        assert (saved / "model.safetensors").exists()


def test_augmentation(data: ImageData) -> None:
    weights = [
        next(iter(state(finetuned(data, epochs=1, augment=name).network).values()))
        for name in ("shift", "crop", "randaugment", "crop")
    ]
    assert torch.equal(weights[1], weights[3])
    assert not any(torch.equal(weights[i], weights[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    with pytest.raises(UserError, match="use shift, crop, randaugment"):
        finetuned(data, augment="mixup")


def test_the_five_likeliest_of_many_classes(data: ImageData) -> None:
    assert finetuned(data, epochs=1).test_top5 is None  # of ten
    test = Split(data.load_test().images, torch.arange(96) % 12)
    names = tuple(map(str, range(12)))
    many = replace(data, classes=names, load_test=lambda: test)
    trained = finetuned(many, epochs=1)
    middle, spread = (torch.tensor(v).view(3, 1, 1) for v in (trained.mean, trained.std))
    with torch.no_grad():
        logits = trained.network((test.images / 255 - middle) / spread)
    ranks = (logits > logits.gather(1, test.labels[:, None])).sum(1)
    assert trained.test == pytest.approx(float((ranks < 1).float().mean()))
    assert trained.test_top5 == pytest.approx(float((ranks < 5).float().mean()))
