"""How well latencies are predicted from a table of operations, on networks that it has not seen.

    python benchmarks/latency.py

For each space and batch a table is fitted to 48 random networks, as `ghnas search --max-latency`
does, and 40 others, drawn from another seed, are predicted and then measured.
"""

from __future__ import annotations

import argparse
import random
import sys

import numpy as np
from common import write_table

from ghnas.scoring.latency import NETWORKS, ROUNDS, Setting, fit_table, measure
from ghnas.spaces import load_space
from ghnas.utils.statistics import estimate_spearman

SPACES = {
    "darts": {"channels": 8, "cells": 5},
    "nasbench201": {"channels": 8, "cells": 1},
    "mobile": {},
}
IMAGE = (3, 16, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--held-out", type=int, default=40)
    parser.add_argument("--batches", default="1,16")
    options = parser.parse_args()
    rows = [
        _row(name, Setting(int(batch)), options.held_out)
        for batch in options.batches.split(",")
        for name in SPACES
    ]
    head = ("space", "batch", "ms, least to most", "error", "Spearman", "cross-validated error")
    write_table(
        "latency",
        "Latencies predicted from a table of operations",
        (*head, "Spearman of FLOPs", "of parameters"),
        rows,
        [
            f"{NETWORKS} measured networks to fit, {options.held_out} others to report on; images "
            f"of {IMAGE[1]}x{IMAGE[2]}, darts with 8 channels and 5 cells, nasbench201 with 8 "
            f"channels and 1 cell a stage. PyTorch, evaluation mode, one thread, processor time, "
            f"the least of the medians of {ROUNDS} rounds of three runs or more; others worked on "
            "the machine. "
            "error: median of |predicted / measured - 1|, and its 90 % quantile; cross-validated: "
            "what the search says of its table. Spearman with 95 % bootstrap intervals."
        ],
    )


def _row(name: str, setting: Setting, held_out: int) -> list[str]:
    space = load_space(name).with_skeleton(**SPACES[name]).for_images(IMAGE, 10)
    rng = random.Random(f"benchmark of latencies: {name}")
    architectures = [space.sample(rng) for _ in range(NETWORKS + held_out)]
    graphs = [item.graph for item in architectures]
    seconds = np.array(measure(graphs, setting))
    table = fit_table(graphs[:NETWORKS], seconds[:NETWORKS].tolist(), setting)
    observed = seconds[NETWORKS:]
    errors = np.abs([table.predict(graph) for graph in graphs[NETWORKS:]] / observed - 1)
    print(name, setting, np.median(errors), file=sys.stderr, flush=True)

    def agreement(values: list[float]) -> str:
        found = estimate_spearman(np.array(values), observed)
        return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"

    held = architectures[NETWORKS:]
    return [
        name,
        str(setting.batch),
        f"{1000 * observed.min():.2f} to {1000 * observed.max():.2f}",
        f"{100 * np.median(errors):.1f} %, {100 * np.quantile(errors, 0.9):.1f} %",
        agreement([table.predict(item.graph) for item in held]),
        f"{100 * table.error:.1f} %",
        agreement([float(item.flops) for item in held]),
        agreement([float(item.parameters) for item in held]),
    ]


if __name__ == "__main__":
    main()
