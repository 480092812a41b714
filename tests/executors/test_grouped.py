"""Populations: how their steps are made, stacked parameters, and tensors on the right device."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ghnas.architectures.graph import Graph
from ghnas.architectures.network import initialised, kaiming
from ghnas.executors.grouped import GroupedExecutor, GroupedNetworks, Plan, plan, schedule
from ghnas.executors.module import ModuleExecutor
from ghnas.executors.stacked import StackedParameters, rows_of, take
from ghnas.executors.trainable import PlainNetwork
from ghnas.ghn.config import GHNConfig
from ghnas.ghn.model import GHN, read_graphs
from ghnas.spaces import load_space
from ghnas.training.populations import follow
from ghnas.training.sgd import SGDSettings, SGDTraining

SHAPE = (3, 8, 8)
SPACES: dict[str, dict[str, int]] = {
    "darts": {"cells": 3, "channels": 4},
    "mobile": {},
    "nasbench201": {"cells": 1, "channels": 4},
    "deepnets1m": {"channels": 8},
}


def sampled(name: str, count: int, seed: int = 0) -> list[Graph]:
    space, rng = load_space(name).with_skeleton(**SPACES[name]), random.Random(seed)
    return [space.sample(rng).for_images(SHAPE, 10).graph for _ in range(count)]


def images(count: int) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0))


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(SPACES)), st.integers(1, 6), st.integers(0, 1000))
def test_a_schedule_runs_every_node_once_behind_its_inputs(
    name: str, count: int, seed: int
) -> None:
    graphs = sampled(name, count, seed)
    made = schedule(graphs)
    done: dict[tuple[int, int], tuple[int, int]] = {}
    kept = set()
    for number, step in enumerate(made.steps):
        for slot, runs in enumerate(step.inputs):
            sources = [(s, start + i) for s, start, length in runs for i in range(length)]
            wanted = [done[g, graphs[g].nodes[n].inputs[slot]] for g, n in step.members]
            assert sources == wanted
            assert {source for source, _ in sources} <= kept
        for position, (g, n) in enumerate(step.members):
            assert graphs[g].nodes[n].spec == step.spec
            assert (g, n) not in done
            done[g, n] = number, position
        kept = (kept | {number}) - set(step.releases)
    assert len(done) == sum(len(graph.nodes) for graph in graphs)
    assert made.outputs == tuple(done[g, len(graph.nodes) - 1] for g, graph in enumerate(graphs))
    assert {step for step, _ in made.outputs} <= kept


def test_a_population_needs_few_more_steps_than_a_network() -> None:
    graphs = sampled("nasbench201", 40)
    alone = max(len(graph.nodes) for graph in graphs)
    steps = len(schedule(graphs).steps)
    assert steps < 4 * alone
    assert sum(len(graph.nodes) for graph in graphs) / steps > 10


def test_a_schedule_knows_the_memory_of_a_chain() -> None:
    """Images of 2 x 4 x 4, a convolution to 8 channels, and what is behind it: two at a time."""
    from ghnas.architectures.graph import GraphBuilder
    from ghnas.architectures.ops import Activation, Conv, GlobalAveragePool, Input

    builder = GraphBuilder()
    x = builder.add(Conv(8, 3), builder.add(Input(2, 4, 4)), name="conv")
    builder.add(GlobalAveragePool(), builder.add(Activation(), x))
    graph = builder.build()
    assert schedule([graph]).largest == 8 * 16 + 8 * 16
    images_once, ten = 2 * 16, schedule([graph] * 10).largest
    assert 10 * 2 * 8 * 16 <= ten <= 10 * (2 * 8 * 16 + images_once)


def test_a_plan_can_be_sent_to_another_process() -> None:
    graphs = sampled("darts", 3)
    weights = StackedParameters.of([kaiming(graph) for graph in graphs], rows_of(graphs))
    made = plan(graphs, weights.rows, weights.networks, 2)
    copy: Plan = pickle.loads(pickle.dumps(made))
    logits = made.run(weights.tensors, images(8))
    assert torch.equal(copy.run(weights.tensors, images(8)), logits)
    reference = ModuleExecutor().run(graphs, weights, images(8), 2)
    torch.testing.assert_close(logits, reference, rtol=1e-4, atol=1e-4)


def test_some_of_stacked_parameters_are_those_of_some_networks() -> None:
    graphs = sampled("nasbench201", 5)
    named = [kaiming(graph, torch.Generator().manual_seed(1)) for graph in graphs]
    stacked = StackedParameters.of(named, rows_of(graphs))
    assert [dict(item).keys() for item in stacked] == [item.keys() for item in named]
    for some in (take(stacked, [3, 1]), stacked[3:0:-2]):
        assert len(some) == 2
        for found, index in zip(some, (3, 1), strict=True):
            for name, value in named[index].items():
                assert torch.equal(found[name], value)


def test_predicted_stacks_run_as_predictions_by_name() -> None:
    torch.manual_seed(0)
    ghn, graphs = GHN(GHNConfig(num_classes=10, hid=8)).eval(), sampled("darts", 4)
    stacked = ghn.predict_population(read_graphs(graphs, ghn.config), len(graphs))
    executor, named = GroupedExecutor(), ghn.predict_graphs(graphs)
    whole = executor.run(graphs, named, images(6))
    torch.testing.assert_close(executor.run(graphs, stacked, images(6)), whole)
    some = executor.run([graphs[2], graphs[0]], stacked.take([2, 0]), images(6))
    torch.testing.assert_close(some, whole[[2, 0]], rtol=1e-4, atol=1e-4)


class _Calls(TorchDispatchMode):
    """Counts the operations that are called, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.counts[func.__name__.partition(".")[0]] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def calls() -> Iterator[Counter[str]]:
    with _Calls() as mode:
        yield mode.counts


def test_more_images_and_more_networks_need_no_more_convolutions() -> None:
    few, many = sampled("nasbench201", 20), sampled("nasbench201", 20) * 2
    counts = []
    for graphs, batches in ((few, 1), (few, 4), (many, 4)):
        weights = StackedParameters.of([kaiming(graph) for graph in graphs], rows_of(graphs))
        with calls() as found:
            GroupedExecutor().run(graphs, weights, images(8), batches)
        counts.append((found["convolution"], found["native_batch_norm"]))
    assert counts[0] == counts[1] == counts[2]


def test_all_tensors_are_on_the_device() -> None:
    """With tensors without values, so that no GPU is needed: another device is an error."""
    config = GHNConfig(num_classes=10, hid=8)
    for name in SPACES:
        graphs = sampled(name, 1 if name == "deepnets1m" else 2)  # hundreds of nodes each
        features = read_graphs(graphs, config)
        with FakeTensorMode(allow_non_fake_inputs=True):
            with torch.device("cuda"):
                ghn, pixels = GHN(config).eval(), torch.empty(8, *SHAPE)
            weights = ghn.predict_population(features, len(graphs))
            logits = GroupedExecutor().run(graphs, weights, pixels, 2)
            assert (logits.device.type, logits.shape) == ("cuda", (len(graphs), 8, 10))
            with pytest.raises(RuntimeError, match="device"):
                GroupedExecutor().run(graphs, weights, pixels.cpu(), 2)


@pytest.mark.parametrize("count", [1, 3])
def test_stacked_parameters_get_gradients(count: int) -> None:
    graphs = sampled("darts", count)
    rows = rows_of(graphs)
    named = [kaiming(graph, torch.Generator().manual_seed(2)) for graph in graphs]
    labels = torch.arange(6)
    tensors = [item.clone().requires_grad_() for item in StackedParameters.of(named, rows).tensors]
    stacked = StackedParameters(tensors, rows, range(count))
    losses, _ = GroupedExecutor().losses(graphs, stacked, images(6), labels)
    losses.sum().backward()
    leaves = [{k: v.clone().requires_grad_() for k, v in own.items()} for own in named]
    expected, _ = ModuleExecutor().losses(graphs, leaves, images(6), labels)
    expected.sum().backward()
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
    for tensor, own in zip(tensors, rows, strict=True):
        assert tensor.grad is not None
        for found, (index, name) in zip(tensor.grad, own, strict=True):
            gradient = leaves[index][name].grad
            assert gradient is not None
            scale = float(gradient.abs().max()) + 1e-6
            torch.testing.assert_close(found, gradient, rtol=1e-2, atol=1e-3 * scale)


def test_networks_that_train_together_are_as_those_that_train_alone() -> None:
    """Losses, running statistics, what they give afterwards; also norms of the images."""
    from ghnas.architectures.graph import GraphBuilder
    from ghnas.architectures.ops import BatchNorm, Bias, Conv, GlobalAveragePool, Input, Linear

    builder = GraphBuilder()
    x = builder.add(BatchNorm(), builder.add(Input(*SHAPE)), name="norm")
    x = builder.add(GlobalAveragePool(), builder.add(Conv(4, 3), x, name="conv"))
    builder.add(Bias(), builder.add(Linear(10), x, name="head"), name="head")
    graphs = [*sampled("darts", 2), *sampled("nasbench201", 1), builder.build()]
    labels = torch.arange(12) % 10
    together, alone = ([initialised(graph, 1) for graph in graphs] for _ in range(2))
    population = GroupedNetworks(together)
    trainings = [
        SGDTraining(PlainNetwork(network).parameters, 4, SGDSettings(0.001)) for network in together
    ]
    losses = [follow(trainings, population.losses(images(12), labels)) for _ in range(4)]
    logits = population.logits(images(12))
    for index, network in enumerate(alone):
        plain = PlainNetwork(network)
        training = SGDTraining(plain.parameters, 4, SGDSettings(0.001))
        expected = [training.step(plain.loss, images(12), labels) for _ in range(4)]
        assert [step[index] for step in losses] == pytest.approx(expected, rel=1e-3)
        torch.testing.assert_close(logits[index], plain.logits(images(12)), rtol=1e-2, atol=1e-2)
        own = together[index].state_dict()
        for name, value in network.state_dict().items():
            torch.testing.assert_close(own[name], value, rtol=1e-2, atol=1e-3, msg=name)
    before = [item.detach().clone() for item in together[0].parameters()]
    follow(trainings, torch.full((len(graphs),), float("nan")))  # changes nothing
    for item, old in zip(together[0].parameters(), before, strict=True):
        assert torch.equal(item, old)
