"""Where a candidate's time goes, stage by stage, against a plain implementation.

The plain one is what one writes first: a network at a time, an nn.Module in PyTorch's default
memory format, on all threads, its weights predicted by a traversal from node to node.
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import cast

import torch
from common import write_table
from torch import Tensor, nn

from ghnas.architectures.architecture import Architecture
from ghnas.architectures.graph import Graph
from ghnas.architectures.network import Network, load_parameters
from ghnas.engine.objectives import FunctionObjective
from ghnas.engine.run import create_run
from ghnas.engine.search import new_manifest
from ghnas.engine.trials import Trial
from ghnas.executors.fused import FusedExecutor, lower
from ghnas.ghn.config import GHNConfig
from ghnas.ghn.encoder import GatedGNN
from ghnas.ghn.features import FeatureBatch
from ghnas.ghn.model import GHN, read_graphs
from ghnas.scoring.chunks import CHUNK
from ghnas.scoring.evaluation import SCORE_BATCH, Batch
from ghnas.scoring.scorer import Scorer
from ghnas.spaces import load_space
from ghnas.utils.devices import cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", default="darts")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--cells", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=16)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--plain", type=int, default=8, help="candidates of the plain one")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    setting = Setting(options.space, options.channels, options.cells, options.image_size)
    ghn = GHN(GHNConfig()).eval()
    candidates = setting.candidates(options.candidates)
    graphs = setting.graphs(candidates)
    torch.manual_seed(0)
    images = torch.randn(options.images, 3, setting.size, setting.size)
    batches = [(part, torch.arange(len(part)) % 10)
               for part in images.split(SCORE_BATCH)]  # fmt: skip
    seconds = {
        "propose": timed(lambda: setting.candidates(len(candidates)), options.repeats),
        "graph": timed(lambda: setting.graphs(candidates), options.repeats),
        "hash": timed(lambda: [graph.hash for graph in setting.graphs(candidates)], 3),
    }
    seconds["hash"] -= seconds["graph"]
    seconds |= cpu_stages(ghn, graphs, batches, options.repeats)
    seconds["record"] = timed(lambda: setting.record(candidates, graphs), options.repeats)
    count = len(candidates)
    rows = [(name, f"{1000 * value / count:.2f} ms") for name, value in seconds.items()]
    whole = whole_seconds(ghn, graphs, batches, options.repeats) / count
    plain = {
        f"batches of {size}": plain_seconds(ghn, graphs[: options.plain], images, size)
        / options.plain
        for size in (SCORE_BATCH, options.images)
    }
    flops = sum(graph.flops for graph in graphs) / count * options.images
    rate, bandwidth = machine_rates()
    lanes = cores()
    bound = flops / (rate * lanes)
    rows += [
        (f"predict and score, {lanes} at a time", f"{1000 * whole:.1f} ms a candidate"),
        *(
            (f"plain, {name}", f"{1000 * value:.0f} ms a candidate, {value / whole:.1f} times")
            for name, value in plain.items()
        ),
        ("arithmetic of the networks", f"{flops / 1e9:.2f} GFLOP a candidate"),
        ("matrix products of 1024 x 1024", f"{rate / 1e9:.0f} GFLOP/s each of {lanes}"),
        ("copying 64 MiB", f"{bandwidth / 1e9:.1f} GB/s"),
        ("bound by arithmetic", f"{1000 * bound:.1f} ms, {100 * bound / whole:.0f} % of the time"),
    ]
    write_table(
        f"stages_{options.space}_c{setting.channels}_n{setting.cells}_{setting.size}",
        f"{options.space}, C={setting.channels}, {setting.cells} cells, {options.images} images "
        f"of {setting.size}x{setting.size}: every image scored",
        ("stage", "measured"),
        rows,
        [
            f"{count} random candidates (plain: {options.plain}), median of {options.repeats} "
            "runs; the stages on one core, an untrained GHN-2; FLOPs are multiply-adds x 2. "
            "Batch-norm sees "
            f"{SCORE_BATCH} images at a time; the plain one is given with that, and with all "
            "images at once.",
        ],
    )


class Setting:
    """A space with its skeleton, and images of one size."""

    def __init__(self, space: str, channels: int, cells: int, size: int) -> None:
        self.name, self.channels, self.cells, self.size = space, channels, cells, size

    @cached_property
    def space(self):  # type: ignore[no-untyped-def]
        changes = {"channels": self.channels, "cells": self.cells}
        space = load_space(self.name)
        known = {key: value for key, value in changes.items() if key in space.skeleton}
        return space.with_skeleton(**known)

    def candidates(self, count: int) -> list[Architecture]:
        rng = random.Random(0)
        return [self.space.sample(rng) for _ in range(count)]

    def graphs(self, candidates: Sequence[Architecture]) -> list[Graph]:
        return [item.for_images((3, self.size, self.size), 10).graph for item in candidates]

    def record(self, candidates: Sequence[Architecture], graphs: Sequence[Graph]) -> None:
        """Write them as a search does."""
        with tempfile.TemporaryDirectory() as folder:
            space = self.space.for_images((3, self.size, self.size), 10)
            objective = FunctionObjective(lambda architecture: 0.5)
            run = create_run(Path(folder), new_manifest(space, objective, len(candidates)))
            run.write(
                [
                    Trial(i, item, (0.5,), graph.parameter_count, graph.flops, str(i))
                    for i, (item, graph) in enumerate(zip(candidates, graphs, strict=True))
                ]
            )


def timed(work: Callable[[], object], repeats: int) -> float:
    """Median seconds, after a run that does not count."""
    work()
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


@torch.no_grad()
def cpu_stages(
    ghn: GHN, graphs: list[Graph], batches: list[Batch], repeats: int
) -> dict[str, float]:
    """Seconds for all graphs on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    chunks = [graphs[i : i + CHUNK] for i in range(0, len(graphs), CHUNK)]
    parameters = [item for chunk in chunks for item in ghn.predict_graphs(chunk)]

    executor = FusedExecutor()

    def score() -> None:
        for images, _ in batches:
            executor.run(graphs, parameters, images)

    fresh = timed(lambda: [read_graphs(chunk, ghn.config) for chunk in chunks], repeats)
    predict = timed(lambda: [ghn.predict_graphs(chunk) for chunk in chunks], repeats)
    found = {
        "features": fresh,
        "predict": predict - fresh,
        "schedule": timed(lambda: [lower(graph) for graph in graphs], repeats),
        "score": timed(score, repeats),
    }
    torch.set_num_threads(threads)
    return found


def whole_seconds(ghn: GHN, graphs: list[Graph], batches: list[Batch], repeats: int) -> float:
    """Seconds for all graphs as the search scores them."""
    scorer = Scorer(ghn, batches, torch.device("cpu"))
    return timed(lambda: scorer.score(graphs), repeats)


@torch.no_grad()
def plain_seconds(ghn: GHN, graphs: Sequence[Graph], images: Tensor, size: int) -> float:
    """Seconds for all graphs, one after the other, on all threads."""
    parts = [part.contiguous() for part in images.split(size)]
    threads = torch.get_num_threads()
    torch.set_num_threads(cores())
    plain = copy.deepcopy(ghn)
    plain.gnn = NodeByNode(cast(GatedGNN, plain.gnn))
    example = read_graphs(graphs[:1], ghn.config)
    torch.testing.assert_close(plain.embeddings(example), ghn.embeddings(example))

    def work() -> None:
        for graph in graphs:
            network = Network(graph)
            load_parameters(network, plain.predict_graphs([graph])[0])
            network.train()
            for part in parts:
                network(part)

    found = timed(work, 1)
    torch.set_num_threads(threads)
    return found


class NodeByNode(nn.Module):
    """The traversal as the paper writes it, a node at a time; the same result as `gnn`."""

    def __init__(self, gnn: GatedGNN) -> None:
        super().__init__()
        self.gnn = gnn

    def forward(self, x: Tensor, batch: FeatureBatch) -> Tensor:
        """(N, width) -> (N, width), for a batch of one graph."""
        mlps = (self.gnn.mlp, self.gnn.mlp_ve)
        for traversal in (batch.forward, batch.backward):
            states = list(x[traversal.order].unbind())
            incoming: list[list[tuple[int, float]]] = [[] for _ in states]
            levels = [0, *traversal.ends[:-1]]
            edge_ends = traversal.edge_ends
            bounds = zip([0, *edge_ends[:-1]], edge_ends, levels, strict=True)
            offsets = [level for begin, end, level in bounds for _ in range(begin, end)]
            targets, sources = traversal.targets.tolist(), traversal.sources.tolist()
            weights = traversal.weights.tolist()
            for target, offset, source, weight in zip(
                targets, offsets, sources, weights, strict=True
            ):
                incoming[offset + target].append((source, weight))
            for node, found in enumerate(incoming):
                message = torch.zeros_like(states[node])
                for kind, mlp in enumerate(mlps):
                    own = [(s // 2, w) for s, w in found if s % 2 == kind]
                    if own and mlp is not None:
                        seen = mlp(torch.stack([states[s] for s, _ in own]))
                        message = message + x.new_tensor([w for _, w in own]) @ seen
                states[node] = self.gnn.gru(message[None], states[node][None])[0]
            x = torch.stack(states)[traversal.rank]
        return x


def machine_rates() -> tuple[float, float]:
    """FLOP/s of a large float32 matrix product and bytes/s of a copy, on one core or GPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    a = torch.randn(1024, 1024)
    source = torch.randn(2**24)
    target = torch.empty_like(source)
    product = timed(lambda: a @ a, 20)
    moved = timed(lambda: target.copy_(source), 20)
    torch.set_num_threads(threads)
    return 2 * 1024**3 / product, 2 * 4 * 2**24 / moved


if __name__ == "__main__":
    main()
