"""Scores do not depend on how the networks run: executor, processes, what else is wanted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ghnas.architectures.graph import Graph
from ghnas.architectures.network import Network, kaiming, load_parameters
from ghnas.data import ImageData, evaluation_batches, load_data
from ghnas.executors.base import Executor
from ghnas.executors.fused import FusedExecutor
from ghnas.executors.grouped import GroupedExecutor
from ghnas.executors.module import ModuleExecutor
from ghnas.ghn.checkpoint import load_ghn
from ghnas.ghn.config import GHNConfig, GHNInfo
from ghnas.ghn.model import GHN
from ghnas.scoring.evaluation import Batch, evaluate, evaluate_one
from ghnas.scoring.racing import Race, Stage
from ghnas.scoring.scorer import CHUNK, Scorer, score
from ghnas.spaces import load_space
from ghnas.utils.errors import UserError

SHAPE, CLASSES = (3, 8, 8), 4
CPU = torch.device("cpu")


def make_graphs(count: int) -> list[Graph]:
    space, rng = load_space("darts").with_skeleton(cells=1, channels=4), random.Random(0)
    return [space.sample(rng).for_images(SHAPE, CLASSES).graph for _ in range(count)]


def make_batches(sizes: Sequence[int] = (16, 16, 12)) -> list[Batch]:
    """Images whose class shows, so that networks differ in accuracy."""
    generator = torch.Generator().manual_seed(3)
    patterns = torch.randn(CLASSES, *SHAPE, generator=generator)
    batches = []
    for size in sizes:
        labels = torch.arange(size) % CLASSES
        noise = torch.randn(size, *SHAPE, generator=generator)
        batches.append((patterns[labels] + 0.5 * noise, labels))
    return batches


@pytest.fixture(scope="module")
def ghn() -> GHN:
    torch.manual_seed(0)
    return GHN(GHNConfig(num_classes=CLASSES, hid=8)).eval()


@pytest.fixture(params=[ModuleExecutor, GroupedExecutor, FusedExecutor])
def executor(request: pytest.FixtureRequest) -> Executor:
    return request.param()


def test_every_executor_gives_the_scores_of_the_networks(ghn: GHN, executor: Executor) -> None:
    graphs, batches = make_graphs(6), make_batches()
    scores = Scorer(ghn, batches, CPU, workers=1, executor=executor).score(graphs)
    assert len({item.accuracy for item in scores if item}) > 1
    for graph, weights, found in zip(graphs, ghn.predict_graphs(graphs), scores, strict=True):
        network = Network(graph).train()
        load_parameters(network, weights)
        with torch.no_grad():
            logits = torch.cat([network(images) for images, _ in batches])
        labels = torch.cat([labels for _, labels in batches])
        assert found is not None
        assert found.accuracy == int((logits.argmax(1) == labels).sum()) / len(labels)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        assert found.loss == pytest.approx(float(loss), abs=1e-4)
        assert (found.images, len(found.early), found.stopped) == (44, 2, False)


def race_to(bar: float) -> Race:
    """Who is right on fewer of the first images stops; nobody stops later."""
    return Race((Stage(0.0, 1.0, 0.0, 0.0), Stage(1.0, 0.0, 0.0, 0.0)), bar)


def median_race(ghn: GHN, graphs: Sequence[Graph], batches: list[Batch]) -> Race:
    scores = Scorer(ghn, batches, CPU, workers=1).score(graphs)
    first = sorted(score.early[0][0] for score in scores if score)
    return race_to(first[len(first) // 2])


def test_every_executor_stops_the_same_candidates(ghn: GHN, executor: Executor) -> None:
    graphs, batches = make_graphs(8), make_batches()
    race = median_race(ghn, graphs, batches)
    weights = ghn.predict_graphs(graphs)
    found = evaluate(executor, graphs, weights, batches, race)
    assert {item.stopped for item in found} == {True, False}
    for graph, own, item in zip(graphs, weights, found, strict=True):
        whole = evaluate_one(graph, own, batches)
        assert item.stopped == (whole.early[0][0] < race.bar)
        expected = (16, whole.early[0][0]) if item.stopped else (44, whole.accuracy)
        assert (item.images, item.accuracy) == expected


@pytest.mark.parametrize("raced", [False, True])
def test_scores_do_not_depend_on_the_number_of_workers(ghn: GHN, raced: bool) -> None:
    """To the last digit, with racing, and when a part was scored before (a search resumed)."""
    graphs, batches = make_graphs(2 * CHUNK + 5), make_batches()
    race = median_race(ghn, graphs, batches) if raced else None
    whole = Scorer(ghn, batches, CPU, workers=1).score(graphs, race=race)
    assert all(score is not None for score in whole)
    assert any(score.stopped for score in whole if score) == raced
    for workers in (1, 2):
        scorer = Scorer(ghn, batches, CPU, workers=workers)
        assert scorer.score(graphs, race=race) == whole
        for wanted in ([3, 4, CHUNK, 2 * CHUNK + 4], list(range(CHUNK + 1, len(graphs))), []):
            expected = [score if i in wanted else None for i, score in enumerate(whole)]
            assert scorer.score(graphs, wanted, race) == expected


def test_a_broken_network_is_the_worst_with_every_executor(executor: Executor) -> None:
    graphs, batches = make_graphs(3), make_batches()
    weights = [dict(kaiming(graph, torch.Generator().manual_seed(0))) for graph in graphs]
    weights[1]["stem.0.weight"][0] = float("inf")
    scores = evaluate(executor, graphs, weights, batches)
    assert (scores[1].accuracy, scores[1].loss) == (0.0, float("inf"))
    for i in (0, 2):
        reference = evaluate_one(graphs[i], weights[i], batches)
        assert scores[i].accuracy == reference.accuracy > 0
        assert scores[i].loss == pytest.approx(reference.loss, abs=1e-4)


@pytest.fixture(scope="module")
def embedded() -> ImageData:
    return load_data("embedded")


def test_score_of_architectures_on_a_data_set(tiny_ghn: Path, embedded: ImageData) -> None:
    """In order, on the data's images, and normalised as the hypernetwork was trained."""
    ghn = load_ghn(tiny_ghn)
    info = ghn.info
    mean = tuple(value + 0.2 for value in info.mean)
    ghn.info = replace(info, mean=mean)
    space = load_space("darts").with_skeleton(cells=1).for_images((3, 40, 40), 7)
    architectures = [space.sample(seed=seed) for seed in range(CHUNK + 2)]
    split = embedded.validation.take(80)
    batches = evaluation_batches(split, 40, device="cpu", mean=mean, std=info.std)
    graphs = [item.for_images(embedded.image_shape, 10).graph for item in architectures]
    expected = Scorer(ghn, batches, CPU, workers=1).score(graphs)
    assert len({item.loss for item in expected if item}) == len(graphs)
    for workers in (1, 2):
        options = {"images": 80, "batch_size": 40, "device": "cpu", "workers": workers}
        assert score(ghn, architectures, embedded, **options) == expected
    ghn.info = GHNInfo()  # then the data's own mean counts
    assert score(ghn, architectures[:1], embedded, 80, 40, "cpu") != expected[:1]
    assert score(ghn, [], embedded) == []


def test_what_cannot_be_scored_is_refused(tiny_ghn: Path, embedded: ImageData) -> None:
    ghn = load_ghn(tiny_ghn)
    architecture = load_space("darts").sample(seed=0)
    with pytest.raises(UserError, match="for 7 classes"):
        score(GHN(GHNConfig(num_classes=7, hid=8)), [architecture], embedded)
    with pytest.raises(UserError, match="1 or more"):
        score(ghn, [architecture], embedded, images=0)
    with pytest.raises(UserError, match="unknown device"):
        score(ghn, [architecture], embedded, device="abacus")
