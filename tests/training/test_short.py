"""Short trainings, and the loop of SGD that they share with all others."""

from __future__ import annotations

import math
import random
from functools import partial

import pytest
import torch

from ghnas.architectures.graph import Graph
from ghnas.architectures.network import Network, initialised, kaiming, load_parameters
from ghnas.executors.base import Executor
from ghnas.executors.fused import FusedNetwork
from ghnas.executors.grouped import GroupedExecutor
from ghnas.executors.trainable import PlainNetwork, trainable
from ghnas.ghn.config import GHNConfig
from ghnas.ghn.model import GHN
from ghnas.scoring.evaluation import Score, evaluate_one
from ghnas.spaces import load_space
from ghnas.training.populations import train_together
from ghnas.training.sgd import Loss, SGDSettings, SGDTraining
from ghnas.training.short import ShortTraining, train_briefly
from ghnas.utils.processes import Workers

SPACE = load_space("nasbench201").with_skeleton(channels=4, cells=1)
SHAPE = (3, 8, 8)


def batches(count: int, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Two classes that differ in brightness."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for _ in range(count):
        labels = torch.arange(16) % 2
        noise = torch.randn(16, *SHAPE, generator=generator)
        result.append((noise + labels.view(-1, 1, 1, 1), labels))
    return result


def graphs(count: int) -> list[Graph]:
    rng = random.Random(0)
    return [SPACE.sample(rng).for_images(SHAPE, 2).graph for _ in range(count)]


def initial(graph: Graph) -> dict[str, torch.Tensor]:
    return kaiming(graph, torch.Generator().manual_seed(1))


def test_a_short_training_equals_plain_sgd() -> None:
    """One step without momentum, worked out with autograd."""
    (graph,) = graphs(1)
    parameters = initial(graph)
    settings = SGDSettings(momentum=0, weight_decay=0, gradient_clip=math.inf)
    data, checks = batches(1), batches(2, seed=5)
    found = train_briefly(graph, parameters, data, checks, settings)
    start = evaluate_one(graph, parameters, data)
    assert found.losses == pytest.approx((start.loss,), rel=1e-5)
    network = Network(graph)
    load_parameters(network, parameters)
    images, labels = data[0]
    torch.nn.functional.cross_entropy(network(images), labels).backward()
    stepped = {name: (p - 0.1 * p.grad).detach() for name, p in network.named_parameters()}
    expected = evaluate_one(graph, stepped, checks)
    assert found.score.loss == pytest.approx(expected.loss, rel=1e-3)


def test_training_lowers_the_loss_and_changes_no_input() -> None:
    (graph,) = graphs(1)
    parameters = initial(graph)
    before = {name: value.clone() for name, value in parameters.items()}
    found = train_briefly(graph, parameters, batches(30), batches(2, seed=5))
    assert found.losses[-1] < found.losses[0]
    assert found.score.loss < evaluate_one(graph, parameters, batches(2, seed=5)).loss
    for name, value in parameters.items():
        torch.testing.assert_close(value, before[name])


def test_what_diverges_is_last_and_stops() -> None:
    (graph,) = graphs(1)
    parameters = {name: value * math.nan for name, value in kaiming(graph).items()}
    found = train_briefly(graph, parameters, batches(3), batches(1))
    assert found.losses == (math.inf,) * 3
    assert found.summed_loss() == math.inf
    assert found.score.accuracy == 0


def test_a_short_training_with_the_executor_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    (graph,) = graphs(1)
    found = train_briefly(graph, initial(graph), batches(4), batches(1, seed=5))
    asked = []

    def grouped(device: str) -> Executor:
        asked.append(device)
        return GroupedExecutor()

    monkeypatch.setattr("ghnas.training.short.executor_for", grouped)
    again = train_briefly(graph, initial(graph), batches(4), batches(1, seed=5))
    assert again.losses == pytest.approx(found.losses, rel=1e-3)
    assert again.score.loss == pytest.approx(found.score.loss, rel=1e-3)
    assert asked == ["cpu"]  # of the weights


def test_trainings_together_are_those_of_each() -> None:
    """Also beside one that has no finite loss, and with gradients that are clipped."""
    own = graphs(4)
    weights = [initial(graph) for graph in own]
    broken = {name: value * math.nan for name, value in weights[1].items()}
    started = [weights[0], broken, *weights[2:]]
    before = [{name: value.clone() for name, value in item.items()} for item in weights]
    settings = SGDSettings(weight_decay=1e-3, gradient_clip=0.5, warm_up=3)
    data, checks = batches(6), batches(2, seed=5)
    together = train_together(own, started, data, checks, settings)
    assert together[1].losses == (math.inf,) * 6
    assert together[1].score.accuracy == 0
    for i in (0, 2, 3):
        alone = train_briefly(own[i], weights[i], data, checks, settings)
        assert together[i].losses == pytest.approx(alone.losses, rel=1e-3)
        assert together[i].score.loss == pytest.approx(alone.score.loss, rel=1e-3)
    for item, old in zip(weights, before, strict=True):
        assert all(torch.equal(item[name], value) for name, value in old.items())


def test_a_training_that_diverges_on_the_way_ends_there() -> None:
    (graph,) = graphs(1)
    data = batches(4)
    data[2] = (data[2][0] * math.nan, data[2][1])
    alone = train_briefly(graph, initial(graph), data, batches(1, seed=5))
    (found,) = train_together([graph], [initial(graph)], data, batches(1, seed=5))
    assert found.losses == pytest.approx(alone.losses, rel=1e-3)
    assert found.losses[2:] == (math.inf, math.inf)
    assert found.score.loss == pytest.approx(alone.score.loss, rel=1e-3)


def test_summed_losses() -> None:
    found = ShortTraining((8.0, 4.0, 2.0, 1.0), Score(0.5, 1.0))
    assert found.summed_loss(0) == 15 / 4
    assert found.summed_loss(0.5) == 3 / 2
    assert ShortTraining((), Score(0.5, 1.0)).summed_loss() == math.inf


def product_loss(weight: torch.Tensor) -> Loss:
    """Cross-entropy of a single matrix product."""
    return lambda images, labels: torch.nn.functional.cross_entropy(images @ weight, labels)


def rates(settings: SGDSettings, steps: int) -> list[float]:
    weight = torch.ones(2, 2, requires_grad=True)
    training = SGDTraining([weight], steps, settings)
    found = []
    for _ in range(steps):
        found.append(training.learning_rate)
        training.step(product_loss(weight), torch.ones(3, 2), torch.tensor([0, 1, 0]))
    return found


def test_the_rate_warms_up_and_falls_as_a_cosine() -> None:
    cosine = [0.5 * (1 + math.cos(math.pi * step / 20)) for step in range(20)]
    assert rates(SGDSettings(learning_rate=2.0), 20) == pytest.approx([2 * x for x in cosine])
    warm = [min(1, (step + 1) / 4) * x for step, x in enumerate(cosine)]
    assert rates(SGDSettings(learning_rate=1.0, warm_up=4), 20) == pytest.approx(warm)
    assert rates(SGDSettings(learning_rate=1.0, warm_up=4), 1) == [0.25]


def test_a_step_is_nesterov_sgd_with_clipped_gradients() -> None:
    """Worked out from the definition (Sutskever et al., 2013, as PyTorch writes it)."""
    torch.manual_seed(0)
    images, labels = torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])
    weight = torch.randn(3, 2, requires_grad=True)
    settings = SGDSettings(learning_rate=0.5, weight_decay=0.1, momentum=0.9, gradient_clip=0.01)
    training = SGDTraining([weight], 4, settings)
    expected, velocity = weight.detach().clone(), torch.zeros(3, 2)
    for step in range(4):
        copy = expected.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(images @ copy, labels)
        (gradient,) = torch.autograd.grad(loss, copy)
        gradient = gradient * min(1, 0.01 / (gradient.norm() + 1e-6)) + 0.1 * expected
        velocity = 0.9 * velocity + gradient
        rate = 0.5 * 0.5 * (1 + math.cos(math.pi * step / 4))
        assert training.step(product_loss(weight), images, labels) == pytest.approx(loss.item())
        expected = expected - rate * (gradient + 0.9 * velocity)
        torch.testing.assert_close(weight.detach(), expected)


def test_a_training_goes_on_exactly() -> None:
    (graph,) = graphs(1)
    settings, data = SGDSettings(warm_up=3), batches(6)
    networks = [trainable(initialised(graph, seed=1)) for _ in range(2)]
    whole = SGDTraining(networks[0].parameters, 6, settings)
    losses = list(whole.steps(networks[0].loss, data))
    first = SGDTraining(networks[1].parameters, 6, settings)
    begun = list(first.steps(networks[1].loss, data[:2]))
    again = SGDTraining(networks[1].parameters, 6, settings)
    again.load_state_dict(first.state_dict())
    assert begun + list(again.steps(networks[1].loss, data[2:])) == losses


def test_a_training_goes_on_with_other_kernels() -> None:
    """As on another device: momentum and learning rate are kept, and parameters find theirs."""
    (graph,) = graphs(1)
    settings, data = SGDSettings(learning_rate=0.01, warm_up=3), batches(6)
    whole, begun = (initialised(graph, seed=1) for _ in range(2))
    plain = PlainNetwork(whole)
    expected = list(SGDTraining(plain.parameters, 6, settings).steps(plain.loss, data))
    fused = FusedNetwork(begun)
    first = SGDTraining(fused.parameters, 6, settings)
    losses = list(first.steps(fused.loss, data[:3]))
    rest = initialised(graph, seed=2)
    rest.load_state_dict(begun.state_dict())
    plain = PlainNetwork(rest)
    again = SGDTraining(plain.parameters, 6, settings)
    again.load_state_dict(first.state_dict())
    losses += again.steps(plain.loss, data[3:])
    assert losses == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("predicted", [True, False])
def test_results_do_not_depend_on_the_number_of_processes(predicted: bool) -> None:
    items = graphs(4)
    if predicted:
        weights = GHN(GHNConfig(num_classes=2, hid=8)).predict_graphs(items)
    else:
        weights = [initial(graph) for graph in items]
    tasks = [
        (graph, parameters, batches(3), batches(1))
        for graph, parameters in zip(items, weights, strict=True)
    ]
    found = []
    for count in (1, 3):
        with Workers(count, partial, train_briefly, gradients=True) as workers:
            found.append(list(workers.map(tasks)))
    assert found[0] == found[1]
    assert len(set(found[0])) == len(tasks)
