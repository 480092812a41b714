"""Steps a second of a hypernetwork's training, against a plain implementation.

The plain one predicts for an architecture at a time with a traversal from node to node, and runs
each network as an nn.Module in PyTorch's default memory format, on all threads of one process.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from common import write_table
from stages import NodeByNode
from torch import Tensor
from torch.func import functional_call

from ghnas.architectures.network import Network
from ghnas.data import ImageData, load_data, random_batches
from ghnas.executors.module import ModuleExecutor
from ghnas.ghn.config import GHNConfig
from ghnas.ghn.encoder import GatedGNN
from ghnas.ghn.model import GHN, read_graphs
from ghnas.spaces import Space, load_space
from ghnas.training.hypernetwork.meta_batches import sample_graphs
from ghnas.training.hypernetwork.training import Job, TrainProgress, TrainSettings, train
from ghnas.utils.devices import cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="embedded")
    parser.add_argument("--meta-batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--plain-steps", type=int, default=3)
    options = parser.parse_args()
    data, space = load_data(options.data), load_space("darts")
    ours = our_rate(space, data, options.meta_batch, options.steps)
    plain = plain_rate(space, data, options.meta_batch, options.plain_steps)
    shares = our_shares(space, data, options.meta_batch)
    whole = sum(shares.values())
    write_table(
        "training_speed",
        f"Training a GHN-2 for darts on {data.name}, meta-batch {options.meta_batch}, batch 64",
        ("what", "measured"),
        [
            (f"ours, {min(cores(), options.meta_batch)} processes", f"{ours:.2f} steps/s"),
            (f"plain, one process of {cores()} threads", f"{plain:.3f} steps/s"),
            ("ratio", f"{ours / plain:.1f}"),
            *(
                (f"of our step: {name}", f"{100 * value / whole:.0f} %")
                for name, value in shares.items()
            ),
        ],
        [
            f"Ours: the rate of the last 20 of {options.steps} steps, with drawing, graphs and "
            f"the sum of gradients; plain: {options.plain_steps} steps after one that does not "
            "count. Shares: one process, median of 5 steps.",
        ],
    )


def our_rate(space: Space, data: ImageData, meta_batch: int, steps: int) -> float:
    """Steps a second of `ghnas.training.hypernetwork.training`, when it has warmed up."""
    rates: list[float] = []

    def note(progress: TrainProgress) -> None:
        rates.append(progress.steps_per_second)

    with tempfile.TemporaryDirectory() as folder:
        settings = TrainSettings(
            steps=steps + 1,
            meta_batch=meta_batch,
            workers=min(cores(), meta_batch),
            evaluate_every=steps + 1,
            evaluate_architectures=min(cores(), meta_batch),
        )
        output = Path(folder) / "ghn.safetensors"
        config = GHNConfig(num_classes=data.num_classes)
        train(Job(space, data, config, settings, output, torch.device("cpu")), note)
    return rates[-2]  # the last one is the evaluation's


def _batches(data: ImageData):  # type: ignore[no-untyped-def]
    return random_batches(
        data.train, 64, seed=0, device="cpu", mean=data.mean, std=data.std, mirror=data.mirror
    )


def plain_rate(space: Space, data: ImageData, meta_batch: int, steps: int) -> float:
    """Steps a second of the plain implementation."""
    torch.set_num_threads(cores())
    torch.manual_seed(0)
    ghn = GHN(GHNConfig(num_classes=data.num_classes))
    ghn.gnn = NodeByNode(cast(GatedGNN, ghn.gnn))
    optimizer = torch.optim.Adam(ghn.parameters(), 1e-3, weight_decay=1e-5)
    rng = random.Random(0)
    began = 0.0
    for step, (images, labels) in zip(range(steps + 1), _batches(data), strict=False):
        if step == 1:
            began = time.perf_counter()
        images = images.contiguous()
        loss: Tensor = torch.zeros(())
        for graph in sample_graphs(space, data.image_shape, data.num_classes, meta_batch, rng):
            batch = read_graphs([graph], ghn.config)
            weights = {
                name: tensor
                for group, stack in zip(batch.groups, ghn(batch), strict=True)
                for (_, name), tensor in zip(group.members, stack.unbind(0), strict=True)
            }
            network = Network(graph).train()
            loss = loss + F.cross_entropy(functional_call(network, weights, images), labels)
        optimizer.zero_grad()
        (loss / meta_batch).backward()
        torch.nn.utils.clip_grad_norm_(ghn.parameters(), 5.0)
        optimizer.step()
    return steps / (time.perf_counter() - began)


def our_shares(space: Space, data: ImageData, meta_batch: int) -> dict[str, float]:
    """Seconds of the parts of a step in one process with one thread; medians."""
    torch.set_num_threads(1)
    ghn = GHN(GHNConfig(num_classes=data.num_classes))
    rng, found = random.Random(0), []
    for _, (images, labels) in zip(range(6), _batches(data), strict=False):
        marks = [time.perf_counter()]
        graphs = sample_graphs(space, data.image_shape, data.num_classes, meta_batch, rng)
        batch = read_graphs(graphs, ghn.config)
        marks.append(time.perf_counter())
        stacks = ghn(batch)
        marks.append(time.perf_counter())
        leaves = [stack.detach().requires_grad_() for stack in stacks]
        logits = ModuleExecutor().run(graphs, batch.by_graph(leaves, len(graphs)), images)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)))
        marks.append(time.perf_counter())
        gradients = torch.autograd.grad(loss, leaves)
        marks.append(time.perf_counter())
        torch.autograd.backward(stacks, list(gradients))
        marks.append(time.perf_counter())
        found.append([b - a for a, b in pairwise(marks)])
    names = (
        "graphs and features",
        "GHN, forward",
        "networks, forward",
        "networks, backward",
        "GHN, backward",
    )
    medians = torch.tensor(found[1:]).median(dim=0).values.tolist()
    return dict(zip(names, medians, strict=True))


if __name__ == "__main__":
    main()
