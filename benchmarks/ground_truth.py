"""Do architectures differ on the embedded data set by more than chance?

Trains random DARTS architectures from Kaiming initialisation, each from two seeds, and compares
the two orders. Rows are written as they come, a second call goes on; `ranking.py` reads them.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from common import (
    RESULTS,
    Training,
    on_all_cores,
    percent,
    random_architectures,
    train_one,
    write_table,
)
from scipy.stats import kendalltau, spearmanr

SEEDS = (1, 2)
HEAD = ("architecture", "seed", "accuracy", "params", "flops")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architectures", type=int, default=30)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--file", type=Path, default=RESULTS / "ground_truth.csv")
    options = parser.parse_args()
    graphs = random_architectures(options.architectures, seed=1)
    known = read(options.file) if options.file.exists() else {}
    keys = [(i, seed) for i in range(len(graphs)) for seed in SEEDS if (i, seed) not in known]
    tasks = [Training(graphs[i], seed, options.steps, options.rate) for i, seed in keys]
    with options.file.open("a", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        if not known:
            rows.writerow(HEAD)
        for (i, seed), curve in zip(keys, on_all_cores(train_one, tasks, "trainings"), strict=True):
            known[i, seed] = curve[-1][1]
            graph = graphs[i]
            rows.writerow((i, seed, f"{known[i, seed]:.5f}", graph.parameter_count, graph.flops))
            file.flush()
    first, second = by_seed(known)
    mean = (first + second) / 2
    noise = np.sqrt(((first - second) ** 2).mean() / 2)
    agreement = spearmanr(first, second).statistic
    low, high = interval(first, second)
    write_table(
        "ground_truth",
        "Two trainings of the same architectures on digitscapes",
        ("agreement of the seeds", "value"),
        [
            ("Spearman", f"{agreement:.2f} (bootstrap 95 %: {low:.2f} to {high:.2f})"),
            ("Kendall", f"{kendalltau(first, second).statistic:.2f}"),
            ("mean accuracy", percent(mean.mean())),
            ("standard deviation between architectures (mean of seeds)", percent(mean.std(ddof=1))),
            ("standard deviation between seeds", percent(float(noise))),
            ("worst, best architecture", f"{percent(mean.min())}, {percent(mean.max())}"),
        ],
        [
            f"{len(graphs)} random DARTS architectures (8 channels, 5 cells) from Kaiming "
            f"initialisation, {options.steps} SGD steps (batch 64, rate {options.rate:g}, cosine), "
            "4,000 validation images; order of images and initial weights from seeds 1 and 2. "
            "Every figure is in `ground_truth.csv`.",
            "",
            "![first seed against second](ground_truth.png)",
        ],
    )
    _plot(first, second, agreement)


def read(path: Path) -> dict[tuple[int, int], float]:
    """Accuracy by architecture and seed."""
    with path.open(newline="") as file:
        return {
            (int(row["architecture"]), int(row["seed"])): float(row["accuracy"])
            for row in csv.DictReader(file)
        }


def by_seed(known: dict[tuple[int, int], float]) -> np.ndarray:
    """Accuracies (seeds, architectures)."""
    count = len(known) // len(SEEDS)
    return np.array([[known[i, seed] for i in range(count)] for seed in SEEDS])


def interval(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Bootstrap 95 % interval of Spearman's correlation over architectures."""
    random = np.random.default_rng(0)
    picks = random.integers(0, len(first), (2000, len(first)))
    values = [spearmanr(first[pick], second[pick]).statistic for pick in picks]
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def _plot(first: np.ndarray, second: np.ndarray, agreement: float) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4, 4))
    axes.scatter(100 * first, 100 * second, s=14)
    axes.set(xlabel="accuracy from seed 1 (%)", ylabel="accuracy from seed 2 (%)")
    axes.set_title(f"Spearman {agreement:.2f}")
    figure.tight_layout()
    figure.savefig(RESULTS / "ground_truth.png", dpi=110)


if __name__ == "__main__":
    main()
