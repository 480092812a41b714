"""All executors give the logits of the networks, alone and together, batch after batch."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ghnas.architectures.graph import Graph
from ghnas.architectures.network import Network, kaiming, load_parameters
from ghnas.executors.base import Executor, Parameters
from ghnas.executors.fused import FusedExecutor
from ghnas.executors.grouped import GroupedExecutor
from ghnas.executors.module import ModuleExecutor
from ghnas.spaces import load_space

SHAPE = (3, 16, 16)
SPACES = {
    "darts": {"cells": 3, "channels": 4},
    "mobile": {},
    "nasbench201": {"cells": 1, "channels": 4},
    "nasbench101": {"cells": 1, "channels": 7},
    "nasbench_macro": {"channels": 4, "head": 16},
    "deepnets1m": {"channels": 8},
}
EXECUTORS = (ModuleExecutor, GroupedExecutor, FusedExecutor)


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> Executor:
    return request.param()


@pytest.fixture(params=SPACES, scope="module")
def networks(request: pytest.FixtureRequest) -> tuple[list[Graph], list[Parameters]]:
    """Random architectures, their norms not the identity."""
    space = load_space(request.param).with_skeleton(**SPACES[request.param])
    rng, generator = random.Random(1), torch.Generator().manual_seed(1)
    graphs = [space.sample(rng).for_images(SHAPE, 10).graph for _ in range(5)]
    weights = [
        {
            name: value + 0.3 * torch.randn(value.shape, generator=generator)
            if value.dim() == 1
            else value
            for name, value in kaiming(graph, generator).items()
        }
        for graph in graphs
    ]
    return graphs, weights


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def expected(graph: Graph, weights: Parameters, batch: Tensor) -> Tensor:
    network = Network(graph).train()
    load_parameters(network, weights)
    return network(batch)


def assert_equal(found: Tensor, reference: Tensor) -> None:
    scale = float(reference.abs().max().clamp(min=1))
    torch.testing.assert_close(found / scale, reference / scale, rtol=1e-4, atol=1e-4)


def test_batches_of_any_size(
    executor: Executor, networks: tuple[list[Graph], list[Parameters]]
) -> None:
    for number, count in enumerate((6, 3, 6)):
        batch = images(count, seed=number)
        logits = executor.run(*networks, batch)
        assert logits.shape == (5, count, 10)
        for graph, weights, found in zip(*networks, logits, strict=True):
            assert_equal(found, expected(graph, weights, batch))


def test_several_batches_in_one_pass(
    executor: Executor, networks: tuple[list[Graph], list[Parameters]]
) -> None:
    """Batch-norm sees each batch alone."""
    whole = images(12)
    together = executor.run(*networks, whole, 3)
    for number, batch in enumerate(whole.split(4)):
        for found, alone in zip(together, executor.run(*networks, batch), strict=True):
            assert_equal(found[4 * number : 4 * number + 4], alone)


@pytest.mark.parametrize("size", [(18, 18), (30, 30), (50, 50), (17, 9)])
@pytest.mark.parametrize("name", SPACES)
def test_sizes_that_do_not_halve(executor: Executor, name: str, size: tuple[int, int]) -> None:
    """With stages or cells enough that an odd size is halved."""
    space = load_space(name)
    if name != "mobile":
        space = space.with_skeleton(**SPACES[name] | ({"cells": 5} if name == "darts" else {}))
    shape = (3, *size)
    graphs = [space.sample(seed).for_images(shape, 10).graph for seed in (1, 3)]
    weights = [kaiming(graph, torch.Generator().manual_seed(1)) for graph in graphs]
    batch = torch.randn(6, *shape, generator=torch.Generator().manual_seed(0))
    for graph, own, found in zip(
        graphs, weights, executor.run(graphs, weights, batch), strict=True
    ):
        assert_equal(found, expected(graph, own, batch))


@pytest.mark.parametrize("kind", [GroupedExecutor])
@pytest.mark.parametrize("name", ["darts", "nasbench201", "nasbench101", "nasbench_macro"])
def test_gradients_at_sizes_that_do_not_halve(kind: type[GroupedExecutor], name: str) -> None:
    space = load_space(name).with_skeleton(**SPACES[name])
    graph = space.sample(0).for_images((3, 13, 18), 10).graph
    own = kaiming(graph, torch.Generator().manual_seed(1))
    batch = torch.randn(6, 3, 13, 18, generator=torch.Generator().manual_seed(0))
    found = []
    for executor in (ModuleExecutor(), kind()):
        leaves = {key: value.clone().requires_grad_() for key, value in own.items()}
        executor.run([graph, graph], [leaves, leaves], batch).square().mean().backward()
        found.append([value.grad for value in leaves.values()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_populations_that_shrink_grow_and_repeat(
    executor: Executor, networks: tuple[list[Graph], list[Parameters]]
) -> None:
    graphs, weights = networks
    batch = images(4)
    whole = [expected(graph, own, batch) for graph, own in zip(graphs, weights, strict=True)]
    for members in ([0, 1, 2, 3, 4], [1, 4], [4], [2, 4, 0], [3, 3]):
        logits = executor.run([graphs[i] for i in members], [weights[i] for i in members], batch)
        for i, found in zip(members, logits, strict=True):
            assert_equal(found, whole[i])


def test_one_graph_with_different_weights(executor: Executor) -> None:
    space = load_space("darts").with_skeleton(cells=1, channels=2)
    graph = space.sample(random.Random(0)).for_images(SHAPE, 10).graph
    weights = [kaiming(graph, torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    logits = executor.run([graph, graph], weights, images(4))
    for own, found in zip(weights, logits, strict=True):
        assert_equal(found, expected(graph, own, images(4)))
    assert not torch.allclose(logits[0], logits[1])


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_what_is_not_finite_stays_within_its_network(
    executor: Executor, networks: tuple[list[Graph], list[Parameters]], bad: float
) -> None:
    graphs, weights = networks
    name = next(iter(graphs[2].parameters))
    broken = {key: value.clone() for key, value in weights[2].items()}
    broken[name].view(-1)[0] = bad
    logits = executor.run(graphs, [*weights[:2], broken, *weights[3:]], images(4))
    assert not torch.isfinite(logits[2]).any(dim=1).all()
    for i in (0, 1, 3, 4):
        assert_equal(logits[i], expected(graphs[i], weights[i], images(4)))


def test_an_executor_can_be_sent_to_another_process(
    executor: Executor, networks: tuple[list[Graph], list[Parameters]]
) -> None:
    before = executor.run(*networks, images(4))
    copy = pickle.loads(pickle.dumps(executor))
    assert torch.equal(copy.run(*networks, images(4)), before)


def test_threads_share_an_executor(
    executor: Executor, networks: tuple[list[Graph], list[Parameters]]
) -> None:
    graphs, weights = networks
    parts = [(graphs[:3], weights[:3]), (graphs[3:], weights[3:])]
    alone = [executor.run(*part, images(4)) for part in parts]
    with ThreadPoolExecutor(2) as threads:
        jobs = [threads.submit(executor.run, *parts[i % 2], images(4)) for i in range(8)]
        for i, job in enumerate(jobs):
            assert torch.equal(job.result(), alone[i % 2])


@pytest.mark.parametrize("kind", [ModuleExecutor, GroupedExecutor])
def test_gradients_with_pytorchs_operations(
    kind: type[ModuleExecutor | GroupedExecutor],
    networks: tuple[list[Graph], list[Parameters]],
) -> None:
    graphs, weights = networks
    found = []
    for executor in (ModuleExecutor(), kind()):
        leaves = [{k: v.clone().requires_grad_() for k, v in own.items()} for own in weights]
        executor.run(graphs, leaves, images(4)).square().mean().backward()
        found.append([v.grad for own in leaves for v in own.values()])
    for a, b in zip(*found, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3 * float(a.abs().max()) + 1e-6)


FINGERPRINT = """
import hashlib, torch
from ghnas.architectures.network import kaiming
from ghnas.executors.fused import FusedExecutor
from ghnas.spaces import load_space
graph = load_space("darts").sample(0).for_images((3, 16, 16), 10).graph
generator = torch.Generator().manual_seed(0)
weights, images = kaiming(graph, generator), torch.randn(64, 3, 16, 16, generator=generator)
logits = FusedExecutor().run([graph], [weights], images)
print(hashlib.sha256(logits.numpy().tobytes()).hexdigest())
"""


def test_the_first_process_on_a_machine_gives_the_logits_of_later_ones(tmp_path: Path) -> None:
    """It compiles the kernels; later ones read them from disk."""
    places = {"GHNAS_CACHE": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    first, second = (
        subprocess.run(
            [sys.executable, "-c", FINGERPRINT],
            env=os.environ | places,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    )
    assert first == second != ""
