"""The fused executor: the same logits as the network, whatever the space."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ghnas
from ghnas.architectures.graph import Graph, GraphBuilder
from ghnas.architectures.network import Network, forward, kaiming, load_parameters
from ghnas.architectures.ops import (
    Activation,
    AvgPool,
    BatchNorm,
    Bias,
    Concat,
    Conv,
    GlobalAveragePool,
    Input,
    Linear,
    MaxPool,
    Shift,
    Sum,
    Zeros,
)
from ghnas.executors.fused import FusedExecutor, Unsupported, lower
from ghnas.scoring.evaluation import evaluate, evaluate_one
from ghnas.spaces import load_space

SMALL: dict[str, dict[str, int]] = {
    "darts": {},
    "mobile": {},
    "nasbench201": {"channels": 4, "cells": 1},
    "nasbench101": {"channels": 7},
    "nasbench_macro": {"channels": 8, "head": 32},
}
IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def assert_equal_to_network(graph: Graph, images: torch.Tensor) -> None:
    """Weights of Kaiming, and norms that are not the identity."""
    generator = torch.Generator().manual_seed(1)
    parameters = {
        name: value + 0.3 * torch.randn(value.shape, generator=generator)
        if value.dim() == 1
        else value
        for name, value in kaiming(graph, generator).items()
    }
    network = Network(graph)
    load_parameters(network, parameters)
    network.train()
    with torch.no_grad():
        expected = network(images)
    lower(graph)  # does not fall back on PyTorch's operations
    found = FusedExecutor().run([graph], [parameters], images)[0]
    scale = float(expected.abs().max().clamp(min=1))
    torch.testing.assert_close(found / scale, expected / scale, rtol=1e-4, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(sorted(SMALL)))
def test_random_candidates_give_the_logits_of_their_networks(seed: int, name: str) -> None:
    space = load_space(name).with_skeleton(**SMALL[name])
    graph = space.sample(random.Random(seed)).for_images((3, 16, 16), 10).graph
    assert_equal_to_network(graph, IMAGES)


@pytest.mark.parametrize("seed", range(6))
def test_networks_with_other_operations_are_evaluated_all_the_same(seed: int) -> None:
    """DeepNets-1M has attention and the like: then PyTorch's operations run."""
    space = load_space("deepnets1m").with_skeleton(channels=8)
    graph = space.sample(random.Random(seed)).for_images((3, 16, 16), 10).graph
    parameters = kaiming(graph, torch.Generator().manual_seed(1))
    batches = [(IMAGES, torch.arange(6)), (IMAGES.flip(0), torch.arange(6))]
    found = evaluate(FusedExecutor(), [graph], [parameters], batches)[0]
    expected = evaluate_one(graph, parameters, batches)
    assert (found.accuracy, found.images) == (expected.accuracy, 12)
    assert found.loss == pytest.approx(expected.loss, rel=1e-4)


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
    graph = GraphBuilder()
    x = graph.add(Input(3, *size))
    conv = Conv(3 if depthwise else 6, kernel, stride, dilation, depthwise)
    x = graph.add(conv, x, name="conv")
    x = graph.add(Activation("relu6"), graph.add(BatchNorm(), x, name="norm"))
    assert_equal_to_network(classifier(graph, x), torch.randn(5, 3, *size))


@pytest.mark.parametrize("pool", [MaxPool(3), MaxPool(3, 2), AvgPool(3), AvgPool(3, 2)])
@pytest.mark.parametrize("size", [(8, 8), (5, 4), (1, 1)])
def test_pools_of_activated_values(pool: MaxPool | AvgPool, size: tuple[int, int]) -> None:
    graph = GraphBuilder()
    x = graph.add(BatchNorm(), graph.add(Input(3, *size)), name="norm")
    x = graph.add(pool, graph.add(Activation("hardswish"), x))
    x = graph.add(BatchNorm(), x, name="after")
    assert_equal_to_network(classifier(graph, x), torch.randn(6, 3, *size))


def test_sums_concatenations_zeros_and_shifts() -> None:
    graph = GraphBuilder()
    image = graph.add(Input(3, 8, 8))
    a = graph.add(BatchNorm(), graph.add(Conv(4, 1), image, name="a"), name="an")
    b = graph.add(Activation(), a)
    z = graph.add(Zeros(4), image)
    total = graph.add(Sum(), a, b, z, b)
    one = graph.add(Sum(), total)
    halves = [
        graph.add(Conv(2, 1, 2), one, name="even"),
        graph.add(Conv(2, 1, 2), graph.add(Shift(), one), name="odd"),
    ]
    x = graph.add(BatchNorm(), graph.add(Concat(), *halves), name="norm")
    x = graph.add(Activation(), graph.add(Activation(), x))
    assert_equal_to_network(classifier(graph, x), torch.randn(7, 3, 8, 8))


@pytest.mark.parametrize("ratio", [100.0, 1000.0, 3000.0])
@pytest.mark.parametrize("first", [Activation(), Conv(4, 1), Conv(4, 3), Conv(3, 3, 1, 1, True)])
def test_a_mean_far_above_the_deviation(first: Activation | Conv, ratio: float) -> None:
    """Of values that hardly change, float32 keeps three or four digits."""
    graph = GraphBuilder()
    x = graph.add(first, graph.add(Input(3, 8, 8)), name="conv")
    x = graph.add(Activation(), graph.add(BatchNorm(), x, name="norm"))
    network = classifier(graph, x)
    generator = torch.Generator().manual_seed(0)
    parameters = kaiming(network, generator)
    images = torch.randn(64, 3, 8, 8, generator=generator) + ratio
    exact = {name: value.double() for name, value in parameters.items()}
    expected = forward(network, exact, images.double())
    found = FusedExecutor().run([network], [parameters], images)[0].double()
    assert float((found - expected).abs().max()) < 1e-6 * ratio


def test_what_is_not_a_number_stays_so() -> None:
    space = load_space("darts")
    graph = space.sample(random.Random(0)).for_images((3, 16, 16), 10).graph
    parameters = kaiming(graph)
    parameters["stem.0.weight"][0] = float("nan")
    assert FusedExecutor().run([graph], [parameters], IMAGES).isnan().all()


def test_batches_of_different_sizes_share_memory() -> None:
    space = load_space("darts")
    graph = space.sample(random.Random(3)).for_images((3, 16, 16), 10).graph
    networks, executor = ([graph], [kaiming(graph)]), FusedExecutor()
    small, large = (executor.run(*networks, images) for images in (IMAGES[:2], IMAGES))
    assert (small.shape, large.shape) == ((1, 2, 10), (1, 6, 10))
    torch.testing.assert_close(executor.run(*networks, IMAGES[:2]), small)
    torch.testing.assert_close(FusedExecutor().run(*networks, IMAGES), large)


def test_operations_without_a_kernel_are_refused() -> None:
    graph = GraphBuilder()
    x = graph.add(Activation("gelu"), graph.add(Input(3, 8, 8)))
    with pytest.raises(Unsupported, match="gelu"):
        lower(classifier(graph, x))


def test_another_copy_of_the_package_compiles_for_itself(tmp_path: Path) -> None:
    """One that found the kernels of another copy would compile in the process that computes, whose
    results differ by rounding from those of the processes that read the kernels."""
    shutil.copytree(
        Path(ghnas.__file__).parent,
        tmp_path / "copy" / "ghnas",
        ignore=shutil.ignore_patterns("checkpoints", "__pycache__"),
    )
    program = """if True:
        from ghnas.executors.fused import are_compiled, kernels
        before = are_compiled()
        (kernels._FOLDER / "x").mkdir(parents=True, exist_ok=True)
        (kernels._FOLDER / "x" / "machine.execute-1.nbi").touch()
        print(before, are_compiled())"""
    answers = []
    for root in (Path(ghnas.__file__).parents[1], tmp_path / "copy"):
        environment = os.environ | {"PYTHONPATH": str(root), "GHNAS_CACHE": str(tmp_path / "cache")}
        ended = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True,
            check=True, cwd=tmp_path,
        )  # fmt: skip
        answers.append(ended.stdout.split())
    assert answers == [["False", "True"], ["False", "True"]]
