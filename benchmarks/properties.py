"""Do graph embeddings predict accuracy, inference time and convergence of architectures?"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import torch
from common import (
    RESULTS,
    Training,
    on_all_cores,
    random_architectures,
    shipped_ghn,
    train_one,
    write_table,
)

from ghnas.architectures.graph import Graph
from ghnas.architectures.network import Network
from ghnas.ghn.model import GHN
from ghnas.ranking.properties import graph_embeddings, predict_property

BATCH = 64
HEAD = ("architecture", "accuracy", "convergence", "milliseconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architectures", type=int, default=100)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--file", type=Path, default=RESULTS / "properties.csv")
    options = parser.parse_args()
    graphs = random_architectures(options.architectures, seed=5)
    if not options.file.exists():
        _measure(options.file, graphs, options.steps, options.rate)
    with options.file.open(newline="") as file:
        table = list(csv.DictReader(file))
    ghn = shipped_ghn()
    torch.manual_seed(0)
    features = {
        "trained GHN-2's embedding": graph_embeddings(ghn, graphs),
        "untrained GHN-2's embedding": graph_embeddings(GHN(ghn.config).eval(), graphs),
        "parameters, FLOPs, nodes": np.array(
            [[g.parameter_count, g.flops, len(g.primitives.nodes)] for g in graphs], dtype=float
        ),
    }
    rows = []
    for name, values in features.items():
        cells = []
        for column in HEAD[1:]:
            target = [float(row[column]) for row in table]
            found = predict_property(values, target)
            cells.append(f"{found.kendall:.2f} +- {found.spread:.2f}")
        rows.append((name, *cells))
    write_table(
        "properties",
        "Properties predicted from an architecture's graph: Kendall tau, cross-validated",
        ("features", "accuracy", "convergence", "inference time"),
        rows,
        [
            f"{len(graphs)} random DARTS architectures (8 channels, 5 cells) on digitscapes; "
            f"accuracy after {options.steps} SGD steps from Kaiming initialisation (rate "
            f"{options.rate:g}), convergence: mean accuracy on the way there over the last; "
            f"milliseconds for {BATCH} images on one thread, best of 7. Support-vector "
            "regression, 5 folds, 10 repeats (+-: their standard deviation).",
        ],
    )


def _measure(path: Path, graphs: list[Graph], steps: int, rate: float) -> None:
    tasks = [
        Training(graph, 1, steps, rate, check_every=steps // 6, images=2000) for graph in graphs
    ]
    curves = list(on_all_cores(train_one, tasks, "trainings"))
    torch.set_num_threads(1)
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(HEAD)
        for index, (graph, curve) in enumerate(zip(graphs, curves, strict=True)):
            accuracies = [accuracy for _, accuracy in curve]
            convergence = float(np.mean(accuracies)) / accuracies[-1]
            rows.writerow(
                (index, f"{accuracies[-1]:.5f}", f"{convergence:.5f}", f"{_time(graph):.3f}")
            )


@torch.no_grad()
def _time(graph: Graph) -> float:
    network = Network(graph).eval().to(memory_format=torch.channels_last)
    images = torch.randn(BATCH, *graph.nodes[0].shape)
    images = images.contiguous(memory_format=torch.channels_last)
    seconds = []
    for _ in range(7):
        began = time.perf_counter()
        network(images)
        seconds.append(time.perf_counter() - began)
    return 1000 * min(seconds)


if __name__ == "__main__":
    main()
