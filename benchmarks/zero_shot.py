"""How good are predicted weights, and how many SGD steps are they worth (N*)?"""

from __future__ import annotations

import argparse

import numpy as np
from common import (
    CPU,
    embedded,
    percent,
    random_architectures,
    shipped_ghn,
    steps_to,
    write_table,
)

from ghnas.data import evaluation_batches
from ghnas.scoring.scorer import Scorer

RATES = (0.05, 0.1, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architectures", type=int, default=200)
    parser.add_argument("--trained", type=int, default=8, help="of them, for N*")
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    data, graphs = embedded(), random_architectures(options.architectures, seed=2)
    batches = evaluation_batches(data.validation, 128, device=CPU, mean=data.mean, std=data.std)
    scores = Scorer(shipped_ghn(), batches, CPU).score(graphs)
    zero_shot = np.array([score.accuracy for score in scores if score])
    subset = graphs[: options.trained]
    target = zero_shot[: options.trained].mean()
    reached, last = steps_to(subset, target, options.steps, RATES)
    rows = [
        (rate, reached[rate] or f"more than {options.steps}", percent(last[rate])) for rate in RATES
    ]
    found = [value for value in reached.values() if value]
    answer = min(found) if found else f"more than {options.steps}"
    write_table(
        "zero_shot",
        "Zero-shot accuracy, and what it is worth in SGD steps",
        ("learning rate", "steps to the zero-shot mean", f"accuracy after {options.steps} steps"),
        rows,
        [
            f"Zero-shot accuracy of {len(graphs)} unseen random DARTS architectures on 4,000 "
            f"validation images of digitscapes: mean {percent(zero_shot.mean())}, best "
            f"{percent(zero_shot.max())}, worst {percent(zero_shot.min())}, standard deviation "
            f"{percent(zero_shot.std(ddof=1))}.",
            f"**N\\* = {answer}**: SGD steps (batch 64, cosine over {options.steps} steps, seed 1) "
            f"from Kaiming initialisation until {len(subset)} of these architectures reach their "
            f"own zero-shot mean of {percent(target)} (2,000 validation images, every 20 steps), "
            f"at the best of three rates.",
        ],
    )


if __name__ == "__main__":
    main()
