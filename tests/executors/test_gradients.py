"""Gradients: of all executors, of every operation, and of networks that train for a while."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ghnas.architectures.graph import Graph, GraphBuilder
from ghnas.architectures.network import Network, initialised, kaiming
from ghnas.architectures.ops import (
    Activation,
    AvgPool,
    BatchNorm,
    Bias,
    Concat,
    Conv,
    Extend,
    GlobalAveragePool,
    Input,
    Linear,
    MaxPool,
    Op,
    Shift,
    Sum,
    Truncate,
    Zeros,
)
from ghnas.executors.base import Executor, FlatParameters, Parameters
from ghnas.executors.fused import FusedExecutor, FusedNetwork, lower_training
from ghnas.executors.grouped import GroupedExecutor
from ghnas.executors.module import ModuleExecutor
from ghnas.executors.trainable import PlainNetwork, trainable
from ghnas.spaces import load_space
from ghnas.training.sgd import SGDSettings, SGDTraining

SKELETONS: dict[str, dict[str, Any]] = {
    "darts": {"cells": 3, "channels": 4},
    "mobile": {},
    "nasbench201": {"cells": 1, "channels": 4},
    "nasbench101": {"channels": 8},
    "nasbench_macro": {"channels": 4, "head": 16},
    "deepnets1m": {"channels": 8},
}
SIZES = {
    "darts": (12, 16),
    "mobile": (15, 16),
    "nasbench201": (11, 16),
    "nasbench101": (11, 16),
    "nasbench_macro": (13, 16),
    "deepnets1m": (16, 16),
}


def sampled(name: str, seed: int, size: int) -> Graph:
    space = load_space(name).with_skeleton(**SKELETONS[name])
    return space.sample(random.Random(seed)).for_images((3, size, size), 10).graph


def uneven(graph: Graph, seed: int = 0) -> dict[str, Tensor]:
    """Weights with norms and biases that are not the identity."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value + 0.3 * torch.randn(value.shape, generator=generator)
        if value.dim() == 1
        else value
        for name, value in kaiming(graph, generator).items()
    }


def batch(graph: Graph, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, *graph.nodes[0].shape, generator=generator)
    return images, torch.randint(0, graph.nodes[-1].shape[0], (count,), generator=generator)


def gradients(
    executor: Executor,
    graphs: list[Graph],
    weights: list[Parameters],
    images: Tensor,
    labels: Tensor,
) -> tuple[Tensor, list[Tensor]]:
    """Losses, and the gradient of their sum with respect to each network's parameters."""
    own = [FlatParameters.copied(*pair) for pair in zip(graphs, weights, strict=True)]
    leaves = [
        {name: value.detach().clone().requires_grad_() for name, value in item.as_dict().items()}
        for item in own
    ]
    losses, logits = executor.losses(graphs, leaves, images, labels)
    assert not logits.requires_grad
    losses.sum().backward()
    flat = [
        torch.cat(
            [
                (torch.zeros_like(value) if value.grad is None else value.grad).reshape(-1)
                for value in item.values()
            ]
        )
        for item in leaves
    ]
    return losses.detach(), flat


def assert_close(found: Tensor, expected: Tensor, relative: float = 1e-4) -> None:
    assert float((found - expected).norm()) <= relative * float(expected.norm())


def assert_equal_to_pytorch(graph: Graph, count: int = 6) -> None:
    lower_training(graph)  # does not fall back on PyTorch's operations
    weights, (images, labels) = uneven(graph), batch(graph, count)
    loss, (found,) = gradients(FusedExecutor(), [graph], [weights], images, labels)
    plain, (expected,) = gradients(ModuleExecutor(), [graph], [weights], images, labels)
    torch.testing.assert_close(loss, plain, rtol=1e-4, atol=1e-5)
    assert_close(found, expected)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(sorted(SKELETONS)), data=st.data())
def test_all_executors_agree(seed: int, name: str, data: st.DataObject) -> None:
    """With three of five weights: at times a rectifier's input is zero but for rounding.

    The reference is of double precision. Some of DeepNets-1M's networks are so deep, and without
    normalisation, that single precision keeps two or three digits of their gradients.
    """
    graph = sampled(name, seed, data.draw(st.integers(*SIZES[name]), "size"))
    errors: dict[str, list[float]] = {"fused": [], "grouped": [], "module": []}
    executors = (FusedExecutor(), GroupedExecutor(), ModuleExecutor())
    for own in range(5):
        weights, (images, labels) = uneven(graph, own), batch(graph, 8, own)
        exact = {key: value.double() for key, value in weights.items()}
        loss, (expected,) = gradients(ModuleExecutor(), [graph], [exact], images.double(), labels)
        for key, executor in zip(errors, executors, strict=True):
            losses, (found,) = gradients(executor, [graph], [weights], images, labels)
            torch.testing.assert_close(losses.double(), loss, rtol=1e-3, atol=1e-3)
            errors[key].append(float((found - expected).norm() / expected.norm()))
    for values in errors.values():
        assert sorted(values)[2] < (5e-2 if name == "deepnets1m" else 1e-4)


def classifier(graph: GraphBuilder, x: int) -> Graph:
    pooled = graph.add(GlobalAveragePool(), x)
    graph.add(Bias(), graph.add(Linear(5), pooled, name="head"), name="head")
    return graph.build()


@pytest.mark.parametrize("size", [(8, 8), (7, 6), (3, 3)])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("depthwise", [True, False])
def test_convolutions(
    size: tuple[int, int], kernel: int, stride: int, dilation: int, depthwise: bool
) -> None:
    """Behind another one, so that gradients go through them as well as into their weights."""
    graph = GraphBuilder()
    x = graph.add(Conv(5, 1), graph.add(Input(3, *size)), name="first")
    x = graph.add(Activation("hardswish"), graph.add(BatchNorm(), x, name="norm"))
    conv = Conv(5 if depthwise else 6, kernel, stride, dilation, depthwise)
    x = graph.add(conv, x, name="conv")
    x = graph.add(Activation("relu6"), graph.add(BatchNorm(), x, name="after"))
    assert_equal_to_pytorch(classifier(graph, x))


@pytest.mark.parametrize("count", [1, 3, 64, 600])
def test_any_number_of_images(count: int) -> None:
    graph = GraphBuilder()
    x = graph.add(Conv(4, 3), graph.add(Input(3, 6, 5)), name="first")
    x = graph.add(Activation(), graph.add(BatchNorm(), x, name="norm"))
    x = graph.add(Conv(4, 3, 2), graph.add(Conv(4, 3, 1, 1, True), x, name="deep"), name="strided")
    assert_equal_to_pytorch(classifier(graph, graph.add(BatchNorm(), x, name="last")), count)


@pytest.mark.parametrize(
    "pool", [MaxPool(3), MaxPool(3, 2), MaxPool(5, 2), AvgPool(3), AvgPool(3, 2)]
)
@pytest.mark.parametrize("size", [(8, 8), (5, 4), (1, 1)])
@pytest.mark.parametrize("function", ["relu", "relu6", "hardswish"])
def test_pools_of_activated_values(
    pool: MaxPool | AvgPool, size: tuple[int, int], function: str
) -> None:
    graph = GraphBuilder()
    x = graph.add(BatchNorm(), graph.add(Input(3, *size)), name="norm")
    x = graph.add(pool, graph.add(Activation(function), x))
    assert_equal_to_pytorch(classifier(graph, graph.add(BatchNorm(), x, name="after")))


def test_values_with_many_readers() -> None:
    """Sums, concatenations, shifts, copies, and two norms of one tensor."""
    graph = GraphBuilder()
    image = graph.add(Input(3, 8, 8))
    raw = graph.add(Conv(4, 1), image, name="a")
    a = graph.add(BatchNorm(), raw, name="an")
    other = graph.add(BatchNorm(), raw, name="bn")
    b = graph.add(Activation(), a)
    total = graph.add(Sum(), a, b, graph.add(Zeros(4), image), b, raw, other)
    again = graph.add(Sum(), a, total)
    one = graph.add(Sum(), again)
    halves = [
        graph.add(Conv(2, 1, 2), one, name="even"),
        graph.add(Conv(2, 1, 2), graph.add(Shift(), one), name="odd"),
    ]
    joined = graph.add(Concat(), *halves)
    wide = graph.add(Concat(), joined, joined, graph.add(AvgPool(3, 2), total))
    x = graph.add(BatchNorm(), graph.add(BatchNorm(), wide, name="norm"), name="twice")
    x = graph.add(Activation(), graph.add(Activation(), x))
    bias = graph.add(Bias(), graph.add(Conv(4, 1), x, name="c"), name="c")
    ends = graph.add(Sum(), bias, graph.add(Activation("relu6"), bias), joined)
    assert_equal_to_pytorch(classifier(graph, ends))


def test_a_last_row_that_is_read_twice() -> None:
    graph = GraphBuilder()
    x = graph.add(Conv(4, 1), graph.add(Input(3, 7, 5)), name="a")
    x = graph.add(Activation(), graph.add(BatchNorm(), x, name="an"))
    wide = graph.add(Extend(), x)
    shifted = graph.add(Conv(4, 1, 2), graph.add(Shift(), wide), name="b")
    x = graph.add(Concat(), shifted, graph.add(MaxPool(3, 2), wide))
    assert_equal_to_pytorch(classifier(graph, graph.add(BatchNorm(), x, name="last")))


@pytest.mark.parametrize("size", [(8, 8), (5, 4)])
def test_windows_of_an_even_size(size: tuple[int, int]) -> None:
    graph = GraphBuilder()
    x = graph.add(BatchNorm(), graph.add(Input(3, *size)), name="norm")
    x = graph.add(MaxPool(2, 2), graph.add(Activation("hardswish"), x))
    assert_equal_to_pytorch(classifier(graph, graph.add(BatchNorm(), x, name="after")))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1)])
def test_channels_that_are_left_out(order: tuple[int, ...]) -> None:
    """Read truncated before, between and after other readers, plain, normalised and activated."""
    graph = GraphBuilder()
    raw = graph.add(Conv(5, 1), graph.add(Input(3, 6, 6)), name="a")
    norm = graph.add(Activation(), graph.add(BatchNorm(), raw, name="norm"))
    narrow = [graph.add(Truncate(count), x) for x in (raw, norm) for count in (2, 3)]
    whole = graph.add(Sum(), norm, graph.add(Conv(5, 3), norm, name="b"))
    readers = (graph.add(Concat(), *narrow, whole), whole, graph.add(Sum(), norm, raw))
    joined = graph.add(Concat(), *[readers[i] for i in order], narrow[3])
    assert_equal_to_pytorch(classifier(graph, graph.add(BatchNorm(), joined, name="last")))


def test_a_norm_of_the_images() -> None:
    graph = GraphBuilder()
    image = graph.add(Input(3, 8, 8))
    x = graph.add(Sum(), graph.add(BatchNorm(), image, name="norm"), image)
    assert_equal_to_pytorch(classifier(graph, x))


def test_gradients_are_scaled_by_what_comes_behind() -> None:
    graph = sampled("darts", 0, 16)
    own = FlatParameters.copied(graph, uneven(graph))
    images, labels = batch(graph, 4)
    found = []
    for factor in (1.0, -2.5):
        own.flat.grad = None
        losses, _ = FusedExecutor().losses([graph], [own], images, labels)
        (losses[0] * factor).backward()
        assert own.flat.grad is not None
        found.append(own.flat.grad)
    torch.testing.assert_close(found[1], -2.5 * found[0])


def trained(
    network: Network, plain: bool, steps: int, images: Tensor, labels: Tensor
) -> list[float]:
    """The losses of a training."""
    own = PlainNetwork(network) if plain else FusedNetwork(network)
    training = SGDTraining(own.parameters, steps, SGDSettings(learning_rate=0.001))
    return [training.step(own.loss, images, labels) for _ in range(steps)]


def test_a_tensor_that_a_norm_and_a_bias_read() -> None:
    graph = GraphBuilder()
    raw = graph.add(Conv(4, 1), graph.add(Input(3, 8, 8)), name="a")
    norm = graph.add(Activation(), graph.add(BatchNorm(), raw, name="norm"))
    bias = graph.add(Activation("hardswish"), graph.add(Bias(), raw, name="b"))
    assert_equal_to_pytorch(classifier(graph, graph.add(Sum(), norm, bias)))
    assert_equal_to_pytorch(classifier(graph, graph.add(Concat(), bias, norm)))


@pytest.mark.parametrize("name", [name for name in SKELETONS if name != "deepnets1m"])
def test_a_training_is_that_of_pytorch(name: str) -> None:
    """Losses of 20 steps, running statistics, and what the network gives afterwards; PyTorch's
    in double precision."""
    graph = sampled(name, 3, 16)
    images, labels = batch(graph, 32)
    fused, plain = initialised(graph, 1), initialised(graph, 1).double()
    found = trained(fused, False, 20, images, labels)
    assert found == pytest.approx(trained(plain, True, 20, images.double(), labels), rel=1e-3)
    assert found[-1] < found[0]
    for (key, value), other in zip(fused.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(value, other.float(), rtol=1e-2, atol=1e-4, msg=key)
    fused.eval()
    with torch.no_grad():
        expected = fused(images)
    logits = trainable(fused).logits(images)
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)


def test_a_network_without_kernels_trains_with_pytorchs() -> None:
    graph = GraphBuilder()
    x = graph.add(Activation("gelu"), graph.add(Conv(4, 3), graph.add(Input(3, 8, 8)), name="c"))
    made = classifier(graph, x)
    network = trainable(Network(made))
    assert isinstance(network, PlainNetwork)
    images, labels = batch(made, 4)
    network.loss(images, labels).backward()
    assert all(item.grad is not None for item in network.parameters)
    expected = F.cross_entropy(network.network.train()(images), labels)
    torch.testing.assert_close(network.loss(images, labels), expected)


def test_what_is_not_a_number_is_said() -> None:
    graph = sampled("darts", 0, 16)
    own = FlatParameters.copied(graph, {k: v * float("nan") for k, v in kaiming(graph).items()})
    losses, _ = FusedExecutor().losses([graph], [own], *batch(graph, 4))
    assert losses.isnan().all()


def test_operations_of_every_class_are_covered() -> None:
    """The handlers of a forward pass are those that the tests above go through backwards."""
    from ghnas.executors.fused.lowering import _HANDLERS

    covered: set[type[Op]] = {
        Activation, AvgPool, BatchNorm, Bias, Concat, Conv, GlobalAveragePool, Input, Linear,
        Extend, MaxPool, Shift, Sum, Truncate, Zeros,
    }  # fmt: skip
    assert set(_HANDLERS) == covered
