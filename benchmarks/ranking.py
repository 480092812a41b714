"""Does the zero-shot ranking agree with the ranking after training?

Scores the architectures whose trainings `ground_truth.py` has written.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ground_truth
import numpy as np
from common import (
    CPU,
    RESULTS,
    embedded,
    percent,
    random_architectures,
    shipped_ghn,
    write_table,
)
from scipy.stats import kendalltau, spearmanr

from ghnas.data import evaluation_batches
from ghnas.scoring import Scorer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, default=RESULTS / "ground_truth.csv")
    options = parser.parse_args()
    trained = ground_truth.by_seed(ground_truth.read(options.file))
    mean = trained.mean(0)
    data, graphs = embedded(), random_architectures(len(mean), seed=1)
    rankings = {}
    for images in (512, 4000):
        batches = evaluation_batches(
            data.validation.take(images), 128, device=CPU, mean=data.mean, std=data.std
        )
        scores = [score for score in Scorer(shipped_ghn(), batches, CPU).score(graphs) if score]
        rankings[f"zero-shot accuracy, {images:,} images"] = [score.accuracy for score in scores]
        rankings[f"zero-shot loss, {images:,} images"] = [-score.loss for score in scores]
    zero_shot = np.array(rankings["zero-shot accuracy, 4,000 images"])
    rankings["parameters"] = [graph.parameter_count for graph in graphs]
    rankings["FLOPs"] = [graph.flops for graph in graphs]
    rows = [_row(name, np.array(values), mean) for name, values in rankings.items()]
    rows.append(_row("ceiling: one seed against the other", trained[0], trained[1]))
    write_table(
        "ranking",
        "Ranking: zero-shot accuracy against accuracy after training",
        ("ranking by", "Spearman", "bootstrap 95 %", "Kendall"),
        rows,
        [
            f"{len(graphs)} random DARTS architectures (8 channels, 5 cells) on digitscapes, "
            "trained as `ground_truth.md` says, mean of two seeds: "
            f"{percent(mean.mean())} +- {percent(mean.std(ddof=1))}. Zero-shot (4,000 images): "
            f"{percent(zero_shot.mean())} +- {percent(zero_shot.std(ddof=1))}.",
            "",
            "![zero-shot against trained accuracy](ranking.png)",
        ],
    )
    _plot(zero_shot, mean)


def _row(name: str, values: np.ndarray, target: np.ndarray) -> tuple[str, str, str, str]:
    spearman = spearmanr(values, target).statistic
    low, high = ground_truth.interval(values, target)
    kendall = kendalltau(values, target).statistic
    return name, f"{spearman:.2f}", f"{low:.2f} to {high:.2f}", f"{kendall:.2f}"


def _plot(zero_shot: np.ndarray, trained: np.ndarray) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4, 4))
    axes.scatter(100 * zero_shot, 100 * trained, s=14)
    axes.set(xlabel="zero-shot accuracy (%)", ylabel="accuracy after training (%)")
    figure.tight_layout()
    figure.savefig(RESULTS / "ranking.png", dpi=110)


if __name__ == "__main__":
    main()
