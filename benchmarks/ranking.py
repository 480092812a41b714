"""Does the zero-shot ranking agree with training? Do architectures differ on the data set?

Trains 30 random DARTS architectures twice, from two seeds, and compares orders.
"""

from __future__ import annotations

import argparse

import numpy as np
from common import (
    CPU,
    RESULTS,
    Training,
    embedded,
    on_all_cores,
    percent,
    random_architectures,
    shipped_ghn,
    train_one,
    write_table,
)
from scipy.stats import kendalltau, spearmanr

from ghnas.data import evaluation_batches
from ghnas.scoring import Scorer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architectures", type=int, default=30)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rate", type=float, default=0.05)
    options = parser.parse_args()
    data, graphs = embedded(), random_architectures(options.architectures, seed=1)
    tasks = [
        Training(graph, seed, options.steps, options.rate) for seed in (1, 2) for graph in graphs
    ]
    finals = [curve[-1][1] for curve in on_all_cores(train_one, tasks, "trainings")]
    trained = np.array(finals).reshape(2, -1)
    mean = trained.mean(0)
    zero_shot = {}
    for images in (512, 4000):
        batches = evaluation_batches(
            data.validation.take(images), 128, device=CPU, mean=data.mean, std=data.std
        )
        scores = Scorer(shipped_ghn(), batches, CPU).score(graphs)
        zero_shot[images] = np.array([score.accuracy for score in scores if score])
    rankings = {f"zero-shot, {images} images": values for images, values in zero_shot.items()}
    rankings["parameters"] = np.array([graph.parameter_count for graph in graphs])
    rankings["FLOPs"] = np.array([graph.flops for graph in graphs])
    rows = [_row(name, values, mean) for name, values in rankings.items()]
    rows.append(_row("ceiling: one seed against the other", trained[0], trained[1]))
    noise = np.abs(trained[0] - trained[1]).mean() / np.sqrt(2) * np.sqrt(np.pi / 2)
    write_table(
        "ranking",
        "Ranking: zero-shot accuracy against accuracy after training",
        ("ranking by", "Spearman", "Kendall"),
        rows,
        [
            f"{len(graphs)} random DARTS architectures (8 channels, 5 cells) on digitscapes; "
            f"{options.steps} SGD steps (batch 64, rate {options.rate:g}, cosine), seeds 1 and 2, "
            f"mean of both; 4,000 validation images.",
            f"Trained accuracy {percent(mean.mean())}, standard deviation between architectures "
            f"{percent(mean.std(ddof=1))}, between seeds {percent(float(noise))}. "
            f"Zero-shot (4,000 images) {percent(zero_shot[4000].mean())} +- "
            f"{percent(zero_shot[4000].std(ddof=1))}.",
        ],
    )
    lines = ["architecture,seed_1,seed_2,zero_shot_512,zero_shot_4000,params,flops"]
    for i, graph in enumerate(graphs):
        values = (*trained[:, i], zero_shot[512][i], zero_shot[4000][i])
        cells = ",".join(f"{value:.4f}" for value in values)
        lines.append(f"{i},{cells},{graph.parameter_count},{graph.flops}")
    (RESULTS / "ranking.csv").write_text("\n".join(lines) + "\n")


def _row(name: str, values: np.ndarray, target: np.ndarray) -> tuple[str, str, str]:
    spearman = spearmanr(values, target).statistic
    kendall = kendalltau(values, target).statistic
    return name, f"{spearman:.2f}", f"{kendall:.2f}"


if __name__ == "__main__":
    main()
