"""What a GPU has to do for a candidate, and how long it takes: launches, host time, rates.

    python benchmarks/gpu.py

Launches and host time need no GPU: operations are counted with tensors that have no values. With
one, everything else is measured too, in the same run.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from common import write_table
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

import ghnas
from ghnas.architectures.graph import Graph
from ghnas.architectures.network import forward, kaiming
from ghnas.data.batches import Batch
from ghnas.executors.grouped import GroupedExecutor, plan, schedule
from ghnas.ghn.config import GHNConfig
from ghnas.ghn.model import GHN, read_graphs
from ghnas.scoring.evaluation import SCORE_BATCH
from ghnas.scoring.racing import Race, Stage
from ghnas.scoring.scorer import Scorer
from ghnas.training.populations import POPULATION, train_together
from ghnas.utils.single_thread import collect_garbage_rarely

NOTHING = {
    "detach", "view", "_unsafe_view", "_reshape_alias", "expand", "slice", "select", "transpose",
    "permute", "t", "unsqueeze", "squeeze", "split", "split_with_sizes", "chunk", "unbind",
    "narrow", "device", "lift_fresh", "alias", "as_strided", "empty", "new_empty",
    "unflatten", "diagonal",
}  # fmt: skip
"""Operations that launch no kernel."""
TOGETHER = 64
"""Tensors that one kernel concatenates, where they are parts of larger ones."""
SHAPE = (3, 16, 16)
Row = tuple[str, str, str, str]


class Launches(TorchDispatchMode):
    """Counts the operations that launch at least one kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.__name__.partition(".")[0]
        if name == "cat":
            self.count += -(-len(args[0]) // TOGETHER)
        elif name not in NOTHING:
            self.count += 1
        return func(*args, **(kwargs or {}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", type=int, default=512)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    collect_garbage_rarely()  # as processes of the host do
    space = ghnas.load_space("darts").for_images(SHAPE, 10)
    rng = random.Random(0)
    architectures = [space.sample(rng) for _ in range(options.networks)]
    began = time.process_time()
    graphs = [item.graph for item in architectures]
    seconds = {"graph": time.process_time() - began}
    seconds |= {
        "hash": cpu_seconds(lambda: [graph.hash for graph in graphs]),
        "features": cpu_seconds(lambda: [read_graphs(part, CONFIG) for part in chunks(graphs)]),
        "plan": cpu_seconds(lambda: [planned(part) for part in chunks(graphs)]),
    }
    rows: list[Row] = steps_of(graphs)
    rows += launches_of(graphs, options.images)
    rows += [
        (f"host, {name}", f"{1000 * value / len(graphs):.2f} core-ms", "", "")
        for name, value in seconds.items()
    ]
    whole = 1000 * sum(seconds.values()) / len(graphs)
    rows.append(("host, all of these", f"{whole:.2f} core-ms", "5.6 core-ms", "2 (aim 1)"))
    rows += on_gpu(graphs, options.images, options.repeats)
    write_table(
        "gpu",
        f"A candidate on a GPU: DARTS cells, {options.networks} networks together, "
        f"{options.images} images of 16x16, every image scored",
        ("what, for a candidate", "now", "before", "asked"),
        rows,
        [
            "Launches are operations that launch a kernel, counted with tensors on a GPU that have "
            f"no values; of a concatenation of parts, one for every {TOGETHER}. Batch "
            "normalisation is counted once, and launches two or three. 'Before' is an estimate "
            "made before populations ran in lockstep by cell. Host time is of one core, without "
            "processes; features and plans are made for "
            f"{CHUNK} networks together.",
        ],
    )


CONFIG = GHNConfig(num_classes=10)
CHUNK = 64


def chunks(graphs: Sequence[Graph]) -> list[Sequence[Graph]]:
    """As host processes get them, with specifications that are known already."""
    return [graphs[i : i + CHUNK] for i in range(0, len(graphs), CHUNK)]


def planned(graphs: Sequence[Graph]) -> object:
    """A plan for parameters by shape, as predicted ones come."""
    from ghnas.executors.stacked import rows_of

    return plan(graphs, rows_of(graphs), range(len(graphs)), 8)


def cpu_seconds(work: Callable[[], object]) -> float:
    """Of one core, the first time: what is worked out once for a graph counts."""
    began = time.process_time()
    work()
    return time.process_time() - began


def steps_of(graphs: Sequence[Graph]) -> list[Row]:
    """How many nodes run together."""
    made = schedule(graphs)
    nodes = sum(len(graph.nodes) for graph in graphs)
    each = nodes / len(made.steps)
    return [("nodes of a step", f"{each:.0f} ({len(made.steps)} steps)", "26.6", "")]


def launches_of(graphs: Sequence[Graph], images: int) -> list[Row]:
    """Operations for a population, all batches in one pass."""
    features, counts = read_graphs(graphs, CONFIG), []
    batches = max(images // SCORE_BATCH, 1)
    with FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device("cuda"):
            ghn, pixels = GHN(CONFIG).eval(), torch.empty(images, *SHAPE)
        with Launches() as predicting:
            weights = ghn.predict_population(features, len(graphs))
        with torch.no_grad(), Launches() as running:
            GroupedExecutor().run(graphs, weights, pixels, batches)
        counts = [predicting.count, running.count]
    each = [count / len(graphs) for count in counts]
    return [
        ("launches, predicting", f"{each[0]:.1f} ({counts[0]})", "", ""),
        ("launches, running", f"{each[1]:.1f} ({counts[1]})", "", ""),
        ("launches, both", f"{sum(each):.1f}", "620", "60 (aim 20)"),
    ]


def on_gpu(graphs: Sequence[Graph], images: int, repeats: int) -> list[Row]:
    """What only a GPU can tell."""
    names = (
        "exact", "raced", "kernels", "busy", "one network at a time", "largest population",
        f"training, {POPULATION} together", "search of 10,000",
    )  # fmt: skip
    if not torch.cuda.is_available():
        return [(name, "not measured", "", "") for name in names]
    device = torch.device("cuda")
    torch.manual_seed(0)
    ghn = GHN(CONFIG).to(device).eval()
    labels = torch.arange(SCORE_BATCH, device=device) % 10
    batches = [
        (torch.randn(SCORE_BATCH, *SHAPE, device=device), labels)
        for _ in range(images // SCORE_BATCH)
    ]
    scorer = Scorer(ghn, batches, device)
    losses = sorted(score.early[1][1] for score in scorer.score(graphs) if score)
    half = Race((NEVER, Stage(1.0, 0.0, -0.1, 0.0)), 1.0 - 0.1 * losses[len(losses) // 2])
    exact = wall(lambda: scorer.score(graphs), repeats) / len(graphs)
    raced = wall(lambda: scorer.score(graphs, race=half), repeats) / len(graphs)
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        scorer.score(graphs)
        torch.cuda.synchronize()
    kernels = [item for item in found.events() if item.device_type.name == "CUDA"]
    busy = sum(item.device_time_total for item in kernels) / 1e6 / (exact * len(graphs))
    size = scorer._way.size(graphs)
    scorer.close()
    return [
        ("exact", f"{1000 * exact:.3f} ms", "not measured", "1 ms (aim 0.5)"),
        ("raced, half stop after two batches", f"{1000 * raced:.3f} ms", "", ""),
        ("kernels", f"{len(kernels) / len(graphs):.1f}", "", ""),
        ("busy", f"{100 * busy:.0f} % of the time", "", ""),
        ("one network at a time", f"{1000 * plain(ghn, graphs[:8], batches):.1f} ms", "", ""),
        ("largest population", str(size), "", ""),
        (f"training, {POPULATION} together", training(graphs[:POPULATION], batches), "", ""),
        ("search of 10,000", f"{search():.0f} s in all", "", ""),
    ]


NEVER = Stage(1.0, 0.0, 0.0, 1.0)


def wall(work: Callable[[], object], repeats: int) -> float:
    """Median seconds, after a run that does not count."""
    work()
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return sorted(found)[len(found) // 2]


@torch.no_grad()
def plain(ghn: GHN, graphs: Sequence[Graph], batches: Sequence[Batch]) -> float:
    """Seconds a candidate, predicted and run one by one with PyTorch."""

    def work() -> None:
        for graph in graphs:
            weights: dict[str, Tensor] = ghn.predict_graphs([graph])[0]
            for images, _ in batches:
                forward(graph, weights, images)

    return wall(work, 3) / len(graphs)


def training(graphs: Sequence[Graph], batches: Sequence[Batch]) -> str:
    """Steps a second of one network, when many train together."""
    device = batches[0][0].device
    weights = [{k: v.to(device) for k, v in kaiming(graph).items()} for graph in graphs]
    steps = [batches[i % len(batches)] for i in range(50)]
    seconds = wall(lambda: train_together(graphs, weights, steps, batches[:1]), 3)
    return f"{50 * len(graphs) / seconds:.0f} steps a second"


def search() -> float:
    """Seconds of the default search, with the hypernetwork and images that ship."""
    space, ghn = ghnas.load_space("darts"), ghnas.load_ghn("darts-embedded")
    objective = ghnas.ZeroShot(ghn, ghnas.load_data("embedded"), device="cuda")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        ghnas.search(space, objective, budget=10_000, sampler="random", path=Path(folder) / "run")
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
