"""What the benchmarks share: training many networks on all cores, tables, the machine's name."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ghnas.architectures.graph import Graph
from ghnas.architectures.network import Network, kaiming, load_parameters
from ghnas.data import ImageData, Split, evaluation_batches, load_data, random_batches
from ghnas.executors.trainable import trainable
from ghnas.ghn.checkpoint import load_ghn
from ghnas.ghn.model import GHN
from ghnas.scoring.evaluation import Batch, evaluate_one
from ghnas.spaces import load_space
from ghnas.training.hypernetwork.training import sample_graphs
from ghnas.training.sgd import SGDSettings, SGDTraining
from ghnas.utils.statistics import Estimate, Values

RESULTS = Path(__file__).resolve().parent.parent / "results"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Training:
    """One network to train from scratch or from predicted weights.

    Args:
        graph: The architecture.
        seed: Of the images' order and of Kaiming initialisation.
        steps: SGD steps, batch 64, cosine rate.
        rate: Learning rate at the first step.
        predicted: Weights to start from; None: Kaiming initialisation.
        check_every: Steps between measurements; 0 measures at the end alone.
        images: Validation images to measure on.
        data: Images; None: the embedded ones.
    """

    graph: Graph
    seed: int
    steps: int
    rate: float
    predicted: dict[str, torch.Tensor] | None = None
    check_every: int = 0
    images: int = 4000
    data: ImageData | None = None


_data: ImageData | None = None


def embedded() -> ImageData:
    """The embedded data set, made once for each process."""
    global _data
    if _data is None:
        _data = load_data()
    return _data


def train_one(task: Training) -> list[tuple[int, float]]:
    """(steps done, validation accuracy with batch statistics), the last at the end."""
    return _train(task)[0]


def train_and_test(task: Training) -> tuple[float, float]:
    """Validation and test accuracy at the end."""
    curve, parameters = _train(task)
    data = task.data or embedded()
    tests = _checks(data, data.load_test())
    return curve[-1][1], evaluate_one(task.graph, parameters, tests).accuracy


def _train(task: Training) -> tuple[list[tuple[int, float]], dict[str, torch.Tensor]]:
    """SGD with Nesterov momentum and a cosine rate; the curve and the final parameters."""
    torch.set_num_threads(1)
    data, network = task.data or embedded(), Network(task.graph)
    generator = torch.Generator().manual_seed(task.seed)
    load_parameters(network, task.predicted or kaiming(task.graph, generator))
    batches = random_batches(
        data.train, 64, seed=1000 + task.seed, device=CPU, mean=data.mean, std=data.std, shift=1
    )
    checks = _checks(data, data.validation.take(task.images))
    trained = trainable(network)
    parameters = {name: value.detach() for name, value in network.named_parameters()}
    curve = []
    training = SGDTraining(trained.parameters, task.steps, SGDSettings(task.rate))
    for step, batch in zip(range(1, task.steps + 1), batches, strict=False):
        training.step(trained.loss, *batch)
        if step == task.steps or (task.check_every and step % task.check_every == 0):
            curve.append((step, evaluate_one(task.graph, parameters, checks).accuracy))
    return curve, parameters


def _checks(data: ImageData, split: Split) -> list[Batch]:
    return evaluation_batches(split, 500, device=CPU, mean=data.mean, std=data.std)


def on_all_cores(function: Callable[[Any], Any], tasks: Sequence[Any], what: str) -> Iterator[Any]:
    """Apply a function to every task, one process for each core; results in order, as they come."""
    torch.multiprocessing.set_sharing_strategy("file_system")
    context = torch.multiprocessing.get_context("spawn")
    began = time.monotonic()
    with context.Pool(os.cpu_count()) as pool:
        for done, result in enumerate(pool.imap(function, tasks), start=1):
            spent = time.monotonic() - began
            print(f"{what}: {done}/{len(tasks)} in {spent:.0f} s", file=sys.stderr)
            yield result


def steps_to(
    graphs: Sequence[Graph],
    target: float,
    steps: int,
    rates: Sequence[float],
    data: ImageData | None = None,
    images: int = 2000,
) -> tuple[dict[float, int | None], dict[float, float]]:
    """SGD from Kaiming initialisation until the mean validation accuracy of networks is `target`.

    Returns:
        For each learning rate the steps, counted in twenties, None: more than `steps`; and the
        accuracy at the end.
    """
    tasks = [
        Training(
            graph, 1, steps, rate, check_every=20, images=images, data=data and data.without_test()
        )
        for rate in rates
        for graph in graphs
    ]
    curves = list(on_all_cores(train_one, tasks, "trainings"))
    counted = [step for step, _ in curves[0]]
    means = np.array([[value for _, value in curve] for curve in curves])
    means = means.reshape(len(rates), len(graphs), -1).mean(1)
    reached, last = {}, {}
    for rate, curve in zip(rates, means, strict=True):
        over = [step for step, value in zip(counted, curve, strict=True) if value >= target]
        reached[rate], last[rate] = (over[0] if over else None), float(curve[-1])
    return reached, last


def random_architectures(count: int, seed: int) -> list[Graph]:
    """DARTS architectures for the embedded data set, from a seed that no training used."""
    import random

    data = embedded()
    rng = random.Random(f"benchmark:{seed}")
    return sample_graphs(load_space("darts"), data.image_shape, data.num_classes, count, rng)


def shipped_ghn() -> GHN:
    """The hypernetwork of the package for darts and the embedded data set."""
    return load_ghn("darts-embedded")


def write_table(
    name: str,
    title: str,
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    notes: Sequence[str] = (),
) -> None:
    """Print a Markdown table and keep it as `results/<name>.md`."""
    lines = [f"# {title}", "", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    machine = f"{os.cpu_count()} cores, {_processor()}, Python {platform.python_version()}"
    lines += [
        "",
        *notes,
        "",
        f"Made by `python {' '.join(sys.argv)}` on {time.strftime('%Y-%m-%d')};",
    ]
    lines += [f"{machine}, torch {torch.__version__}; no GPU."]
    text = "\n".join(lines) + "\n"
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((s.partition(":")[2].strip() for s in lines if s.startswith("model name")), "CPU")


def percent(value: float) -> str:
    """0.1234 -> 12.3 %."""
    return f"{100 * value:.1f} %"


def interval(estimate: Estimate, factor: float) -> str:
    """An estimate times a factor, with its interval."""
    value, low, high = (factor * x for x in (estimate.value, estimate.low, estimate.high))
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def reordered(scores: Values, survivors: Sequence[int], again: Values) -> Values:
    """Scores in which the survivors, still before all others, are in the order of `again`."""
    result = scores.copy()
    places = np.empty(len(again))
    places[np.argsort(again, kind="stable")] = np.arange(1, len(again) + 1)
    result[list(survivors)] = np.max(scores) + places
    return result
