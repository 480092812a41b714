"""Whether the way of running networks changes their order: fused kernels, PyTorch, batch size."""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence

import numpy as np
import torch
from common import percent, write_table

from ghnas.data import evaluation_batches, load_data
from ghnas.executors.fused import FusedExecutor
from ghnas.ghn.checkpoint import find_ghn, load_ghn
from ghnas.scoring.chunks import CHUNK
from ghnas.scoring.evaluation import SCORE_BATCH, Score, evaluate, evaluate_one
from ghnas.spaces import load_space
from ghnas.utils.statistics import spearman


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=192)
    parser.add_argument("--images", type=int, default=512)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, space = load_data(), load_space("darts")
    ghn = load_ghn(find_ghn(space.name, data.name))
    info = ghn.info
    rng = random.Random(0)
    graphs = [
        space.sample(rng).for_images(data.image_shape, data.num_classes).graph
        for _ in range(options.candidates)
    ]
    chunks = [graphs[i : i + CHUNK] for i in range(0, len(graphs), CHUNK)]
    weights = [item for chunk in chunks for item in ghn.predict_graphs(chunk)]
    split = data.validation.take(options.images)
    batches = {
        size: evaluation_batches(split, size, device="cpu", mean=info.mean, std=info.std)
        for size in (SCORE_BATCH, 2 * SCORE_BATCH)
    }
    pairs = list(zip(graphs, weights, strict=True))
    base = evaluate(FusedExecutor(), graphs, weights, batches[SCORE_BATCH])
    rows = []
    for size, found in batches.items():
        other = [evaluate_one(graph, item, found) for graph, item in pairs]
        rows.append((f"PyTorch, batches of {size}", *_compare(base, other)))
    write_table(
        "executors",
        f"Against the fused kernels with batches of {SCORE_BATCH} images",
        ("executor", "equal accuracies", "largest difference", "Spearman", "largest of loss"),
        rows,
        [
            f"{len(graphs)} random architectures of darts, seed 0, {options.images} validation "
            "images, the shipped GHN. One image of 512 is 0.2 points.",
        ],
    )


def _compare(base: Sequence[Score], other: Sequence[Score]) -> tuple[str, str, str, str]:
    a, b = (np.array([score.accuracy for score in scores]) for scores in (base, other))
    losses = np.array([[x.loss, y.loss] for x, y in zip(base, other, strict=True)])
    return (
        percent(float((a == b).mean())),
        f"{100 * float(np.abs(a - b).max()):.1f} points",
        f"{spearman(a, b):.4f}",
        f"{float(np.abs(losses[:, 0] - losses[:, 1]).max()):.1e}",
    )


if __name__ == "__main__":
    main()
