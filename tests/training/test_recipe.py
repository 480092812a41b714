"""The field's recipe for full trainings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import ghnas
from ghnas.architectures.network import Network
from ghnas.training.recipe import (
    Recipe,
    RecipeNetwork,
    auxiliary_source,
    cut_out,
    drop_path,
    droppable_paths,
)
from ghnas.training.sgd import SGDSettings, SGDTraining

SIZE = {"cells": 3, "channels": 4}


def network(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    space = ghnas.load_space("darts").with_skeleton(**SIZE)
    return Network(space.sample(seed=seed).for_images((3, 16, 16), 10).graph)


def batch(count: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, 16, 16, generator=rng)
    return images, torch.randint(10, (count,), generator=rng)


def test_a_recipe_of_nothing_is_plain_training() -> None:
    own, (images, labels) = network(), batch()
    expected = F.cross_entropy(own.train()(images), labels)
    found = RecipeNetwork(own, Recipe(), 0, 10).loss(images, labels)
    assert torch.equal(found, expected)


def test_label_smoothing_and_auxiliary_head_by_their_definitions() -> None:
    own, (images, labels) = network(), batch()
    recipe = Recipe(label_smoothing=0.1, auxiliary=0.4)
    trained = RecipeNetwork(own, recipe, 0, 10)
    values = {}
    graph, head = own.graph, trained.head
    assert head is not None
    trained.network.train()
    from ghnas.architectures.network import traverse

    def apply(node, inputs):  # type: ignore[no-untyped-def]
        values[graph.nodes.index(node)] = own.apply_node(node, inputs)
        return values[graph.nodes.index(node)]

    logits = traverse(graph, images, apply)
    second = head(values[auxiliary_source(graph)])
    smooth = [F.cross_entropy(x, labels, label_smoothing=0.1) for x in (logits, second)]
    found = trained.loss(images, labels)
    assert found.item() == pytest.approx((smooth[0] + 0.4 * smooth[1]).item(), rel=1e-5)
    assert len(trained.parameters) == len(own.graph.parameters) + len(list(head.parameters()))


def test_the_auxiliary_head_reads_the_cell_at_two_thirds() -> None:
    space = ghnas.load_space("darts").with_skeleton(cells=20, channels=4)
    graph = space.sample(seed=0).for_images((3, 32, 32), 10).graph
    node = graph.nodes[auxiliary_source(graph)]
    assert node.cell == 13  # DARTS: 2 * 20 // 3
    assert node.op.kind == "concat"  # type: ignore[attr-defined]
    assert node.shape[1:] == (8, 8)


def test_paths_that_may_be_left_out_by_hand() -> None:
    """The residual branch of a block, never its shortcut."""
    graph = ghnas.load_space("mobile").sample(seed=3).for_images((3, 16, 16), 10).graph
    found = droppable_paths(graph)
    assert found
    for index, places in found.items():
        for place, source in enumerate(graph.nodes[index].inputs):
            shortcut = len(graph.consumers[source]) > 1
            assert (place in places) == (not shortcut)


def test_dropped_paths_keep_the_mean() -> None:
    x = torch.ones(20_000, 1, 1, 1)
    found = drop_path(x, 0.3, torch.Generator().manual_seed(0))
    assert found.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert found.mean().item() == pytest.approx(1, abs=0.02)


def test_cutout_cuts_a_square() -> None:
    images = torch.ones(200, 3, 16, 16)
    found = cut_out(images, 6, torch.Generator().manual_seed(0))
    zeros = (found == 0).sum(dim=(2, 3))
    assert (zeros[:, 0] == zeros[:, 2]).all()  # the same in all channels
    assert zeros.max() == 36  # a whole square
    assert zeros.min() >= 9  # its centre lies in the image, so that a quarter does
    rows = (found[:, 0] == 0).any(dim=2).sum(dim=1)
    columns = (found[:, 0] == 0).any(dim=1).sum(dim=1)
    assert (rows * columns == zeros[:, 0]).all()


def test_averaged_weights_by_hand() -> None:
    own = network()
    trained = RecipeNetwork(own, Recipe(average=0.9), 0, 10)
    first = [p.detach().clone() for p in own.parameters()]
    trained.stepped()  # the first weights are the mean so far
    with torch.no_grad():
        for p in own.parameters():
            p.add_(1)
    trained.stepped()
    for before, mean in zip(first, trained.best.parameters(), strict=True):
        torch.testing.assert_close(mean.detach(), before + 0.1)


def test_parts_of_a_batch_give_the_gradient_of_the_whole() -> None:
    """Where no batch-norm sees a part at a time: one linear layer."""
    images, labels = torch.randn(7, 5), torch.randint(3, (7,))
    weights = []
    for parts in (1, 3):
        torch.manual_seed(0)
        layer = torch.nn.Linear(5, 3)
        training = SGDTraining(layer.parameters(), 4, SGDSettings())
        for _ in range(4):
            training.step(lambda x, y, own=layer: F.cross_entropy(own(x), y), images, labels, parts)
        weights.append(layer.weight.detach())
    torch.testing.assert_close(*weights)


def test_parts_of_a_step_are_cut_in_different_places() -> None:
    """As the images of a whole batch are; the same step of another call is cut as the first."""
    images, labels = batch()
    recipe, losses = Recipe(cutout=8, accumulate=2), []
    for _ in range(2):
        trained = RecipeNetwork(network(), recipe, 0, 10)
        losses.append([trained.loss(images, labels).item() for _ in range(2)])
        trained.stepped()
        losses[-1].append(trained.loss(images, labels).item())
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == 3


FULL = Recipe(4, 0.3, 0.4, 0.1, 0.9, "bf16", 2)


def test_goes_on_as_if_it_had_not_been_interrupted(tmp_path: Path) -> None:
    data = ghnas.load_data("embedded", train_limit=200)
    space = ghnas.load_space("darts").with_skeleton(**SIZE)

    class Stop(Exception):
        pass

    def stop(_: dict[str, float]) -> None:
        raise Stop

    def train(path: Path, report=None) -> ghnas.TrainedNetwork:  # type: ignore[no-untyped-def]
        return ghnas.finetune(
            space.sample(seed=0), data, epochs=2, recipe=FULL, path=path, report=report
        )

    whole = train(tmp_path / "whole")
    with pytest.raises(Stop):
        train(tmp_path / "parts", stop)
    parts = train(tmp_path / "parts")
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, parts.network.state_dict()[name]), name
    loaded = ghnas.load(tmp_path / "parts")
    assert loaded.state_dict().keys() == whole.network.state_dict().keys()
    assert [entry["loss"] for entry in whole.history] == [e["loss"] for e in parts.history]


def test_darts_in_full_size_has_the_published_parameters() -> None:
    from searching import DARTS_V2

    space = ghnas.load_space("darts").with_skeleton(cells=20, channels=36)
    found = space.parse(DARTS_V2).for_images((3, 32, 32), 10)
    assert found.parameters == 3_349_342  # Liu et al., ICLR 2019: 3.3M
