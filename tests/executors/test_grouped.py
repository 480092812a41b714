"""Operations and populations: many networks side by side equal each alone, and PyTorch's own."""

from __future__ import annotations

import pickle
import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ghnas.architectures import cpu_kernels
from ghnas.architectures.network import Network, kaiming, load_parameters
from ghnas.executors.grouped import plan, plan_one, run, run_stacked, stacked_plan
from ghnas.spaces.base import load_space

SHAPE = (3, 16, 16)


@pytest.fixture(params=["darts", "mobile"])
def graphs(request: pytest.FixtureRequest) -> list:
    space, rng = load_space(request.param), random.Random(1)
    return [space.graph(space.sample(rng), SHAPE, 10) for _ in range(5)]


def test_a_population_equals_its_members(graphs: list) -> None:
    parameters = [
        kaiming(graph, torch.Generator().manual_seed(i)) for i, graph in enumerate(graphs)
    ]
    images = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(9))
    together = run(plan(graphs), parameters, images)
    for graph, weights, logits in zip(graphs, parameters, together, strict=True):
        alone = run(plan_one(graph), [weights], images)[0]
        torch.testing.assert_close(logits, alone, rtol=1e-3, atol=1e-4)
        network = Network(graph)
        load_parameters(network, weights)
        torch.testing.assert_close(network(images), alone, rtol=1e-4, atol=1e-5)


def test_stacked_parameters_give_the_same(graphs: list) -> None:
    parameters = [kaiming(graph) for graph in graphs]
    members: dict[tuple[int, ...], list[tuple[int, str]]] = {}
    for index, graph in enumerate(graphs):
        for name, shape in graph.parameters.items():
            members.setdefault(shape, []).append((index, name))
    stacks = [torch.stack([parameters[i][n] for i, n in rows]) for rows in members.values()]
    schedule = pickle.loads(pickle.dumps(stacked_plan(plan(graphs), list(members.values()))))
    images = torch.randn(4, *SHAPE)
    expected = run(plan(graphs), parameters, images)
    torch.testing.assert_close(run_stacked(schedule, stacks, images), expected)


def test_predictions_do_not_depend_on_other_batches() -> None:
    """Evaluation mode uses running statistics: one image alone gives what it gives in a batch."""
    space = load_space("darts")
    network = Network(space.graph(space.sample(random.Random(0)), SHAPE, 10))
    images = torch.randn(16, *SHAPE)
    network.train()
    network(images)
    network.eval()
    torch.testing.assert_close(network(images)[:1], network(images[:1]), rtol=1e-4, atol=1e-5)


def gradients(function, x: Tensor, *parameters: Tensor) -> list[Tensor]:
    inputs = [item.clone().requires_grad_() for item in (x, *parameters)]
    result = function(*inputs)
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(1))
    return [result, *torch.autograd.grad((result * weights).sum(), inputs)]


@pytest.mark.parametrize("size", [(16, 16), (8, 8), (4, 4), (7, 6)])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_depthwise_equals_pytorch(
    size: tuple[int, int], kernel: int, stride: int, dilation: int
) -> None:
    x = torch.randn(3, 6, *size).to(memory_format=torch.channels_last)
    weight = torch.randn(6, 1, kernel, kernel)
    padding = dilation * (kernel - 1) // 2
    ours = gradients(lambda a, w: cpu_kernels.depthwise_conv(a, w, stride, dilation), x, weight)
    theirs = gradients(lambda a, w: F.conv2d(a, w, None, stride, padding, dilation, 6), x, weight)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(16, 16), (5, 4), (1, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_pools_equal_pytorch(size: tuple[int, int], stride: int) -> None:
    x = torch.randn(3, 6, *size).to(memory_format=torch.channels_last)
    ours = gradients(lambda a: cpu_kernels.avg_pool(a, 3, stride), x)
    theirs = gradients(lambda a: F.avg_pool2d(a, 3, stride, 1, count_include_pad=False), x)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        expected = F.max_pool2d(x, 3, stride, 1)
        torch.testing.assert_close(cpu_kernels.max_pool(x, 3, stride), expected)
