"""What training a candidate costs: fused kernels beside PyTorch's own, in turn, on one core."""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from statistics import median

import torch
from common import embedded, write_table
from torch import Tensor

import ghnas.training.hypernetwork.meta_batches as meta_batches
from ghnas.architectures.graph import Graph
from ghnas.architectures.network import initialised
from ghnas.data import random_batches
from ghnas.executors.base import Executor
from ghnas.executors.fused import FusedExecutor
from ghnas.executors.module import ModuleExecutor
from ghnas.executors.trainable import PlainNetwork, TrainableNetwork, trainable
from ghnas.ghn.config import GHNConfig
from ghnas.ghn.model import GHN
from ghnas.spaces import load_space
from ghnas.training.hypernetwork.loop import TrainSettings, compute_gradients
from ghnas.training.hypernetwork.meta_batches import MetaBatches
from ghnas.training.sgd import SGDSettings, SGDTraining, measure_accuracy

BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--meta-batch", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    small, large = graphs(8, 16, options.networks), graphs(16, 32, max(options.networks // 2, 1))
    rows = [
        ("training step, C=8, 16x16", *steps(small, options.repeats)),
        ("training step, C=16, 32x32", *steps(large, options.repeats)),
        ("an epoch of `finetune`, C=8, 16x16", *epochs(small[:2])),
        (f"step of a hypernetwork, {options.meta_batch} networks", *meta(options.meta_batch)),
    ]
    write_table(
        "candidate_training",
        f"Training DARTS networks of 5 cells, batch {BATCH}, core-seconds",
        ("what", "PyTorch", "fused", "ratio"),
        [
            (what, f"{plain:.3f}", f"{fused:.3f}", f"{median(ratios):.2f} ({spread(ratios)})")
            for what, plain, fused, ratios in rows
        ],
        [
            f"Processor time of one thread, the two in turn. Steps: {len(small)} and {len(large)} "
            f"random networks, medians of {options.repeats}, with SGD, momentum and clipping; "
            "ratios: median over networks (smallest to largest). An epoch: 312 steps and the "
            "validation images, two networks, once each. A hypernetwork's step: its gradient, with "
            "its own forward and backward passes; ratios over 5 steps.",
        ],
    )


def spread(values: list[float]) -> str:
    """Smallest and largest."""
    return f"{min(values):.2f} to {max(values):.2f}"


def graphs(channels: int, size: int, count: int) -> list[Graph]:
    """Random DARTS networks."""
    space, rng = load_space("darts").with_skeleton(channels=channels), random.Random(0)
    return [space.sample(rng).for_images((3, size, size), 10).graph for _ in range(count)]


def seconds(call: Callable[[], object]) -> float:
    """Processor time."""
    began = time.process_time()
    call()
    return time.process_time() - began


def stepper(network: TrainableNetwork, size: int) -> Callable[[], object]:
    """A function that does one step."""
    training = SGDTraining(network.parameters, 10_000, SGDSettings(learning_rate=0.01))
    images, labels = torch.randn(BATCH, 3, size, size), torch.randint(0, 10, (BATCH,))
    images = images.contiguous(memory_format=torch.channels_last)
    return lambda: training.step(network.loss, images, labels)


def plain(graph: Graph) -> TrainableNetwork:
    """With PyTorch's operations, in their faster memory format."""
    return PlainNetwork(initialised(graph, 0).to(memory_format=torch.channels_last))


def steps(networks: list[Graph], repeats: int) -> tuple[float, float, list[float]]:
    """Seconds of a step, PyTorch's and fused, and the ratio for each network."""
    found = []
    for graph in networks:
        size = graph.nodes[0].shape[1]
        calls = [stepper(plain(graph), size), stepper(trainable(initialised(graph, 0)), size)]
        times = [[seconds(call) for call in calls] for _ in range(repeats + 1)][1:]
        found.append([median(column) for column in zip(*times, strict=True)])
    return (*averages(found), [a / b for a, b in found])


def epochs(networks: list[Graph]) -> tuple[float, float, list[float]]:
    """Seconds of an epoch with its evaluation."""
    data = embedded()

    def epoch(network: TrainableNetwork) -> None:
        training = SGDTraining(network.parameters, 10_000, SGDSettings())
        batches = random_batches(
            data.train, BATCH, seed=0, device="cpu", mean=data.mean, std=data.std, shift=1
        )
        for _, (images, labels) in zip(range(len(data.train) // BATCH), batches, strict=False):
            training.step(network.loss, images, labels)
        measure_accuracy(network, data.validation, data)

    found = []
    for graph in networks:
        pair = (plain(graph), trainable(initialised(graph, 0)))
        found.append([seconds(lambda own=own: epoch(own)) for own in pair])
    return (*averages(found), [a / b for a, b in found])


def meta(size: int) -> tuple[float, float, list[float]]:
    """Seconds of the gradient of a hypernetwork's step."""
    data, config = embedded(), GHNConfig(num_classes=10)
    space, ghn = load_space("darts"), GHN(config)
    settings = TrainSettings(meta_batch=size)
    batches = MetaBatches(data.image_shape, config, 0, range(size), False, space.sample)
    images = random_batches(data.train, BATCH, seed=0, device="cpu", mean=data.mean, std=data.std)
    executors: list[Executor] = [ModuleExecutor(), FusedExecutor()]

    def gradient(step: int, executor: Executor, images: Tensor, labels: Tensor) -> float:
        meta_batches.executor_for = lambda device: executor  # type: ignore[assignment]
        made = batches[step]
        return seconds(lambda: compute_gradients(ghn, made, images, labels, settings))

    found = [
        [gradient(step, executor, *batch) for executor in executors]
        for step, batch in zip(range(6), images, strict=False)
    ]
    return (*averages(found[1:]), [a / b for a, b in found[1:]])


def averages(pairs: list[list[float]]) -> tuple[float, float]:
    """Of PyTorch's and of fused seconds."""
    first, second = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
    return first, second


if __name__ == "__main__":
    main()
