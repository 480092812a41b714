"""SGD from predicted weights against SGD from Kaiming initialisation, at several lengths."""

from __future__ import annotations

import argparse

import numpy as np
from common import (
    Training,
    on_all_cores,
    percent,
    random_architectures,
    shipped_ghn,
    train_one,
    write_table,
)

SHARES = (0.1, 0.25, 0.5, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architectures", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rate", type=float, default=0.03)
    options = parser.parse_args()
    graphs = random_architectures(options.architectures, seed=3)
    predicted = shipped_ghn().predict(graphs)
    tasks = [
        Training(graph, seed, round(share * options.steps), options.rate, start)
        for share in SHARES
        for start_kind in ("ghn", "kaiming")
        for graph, weights in zip(graphs, predicted, strict=True)
        for start in ((weights if start_kind == "ghn" else None),)
        for seed in range(1, options.seeds + 1)
    ]
    finals = [curve[-1][1] for curve in on_all_cores(train_one, tasks, "trainings")]
    table = np.array(finals).reshape(len(SHARES), 2, options.architectures, options.seeds)
    rows = []
    for share, (ghn, kaiming) in zip(SHARES, table, strict=True):
        seeds = np.mean([x.std(axis=1, ddof=1).mean() for x in (ghn, kaiming)])
        wins = int((ghn.mean(1) > kaiming.mean(1)).sum())
        rows.append(
            (
                f"{round(share * options.steps)} ({share:.0%})",
                percent(ghn.mean()),
                percent(kaiming.mean()),
                f"{100 * (ghn.mean() - kaiming.mean()):+.1f}",
                f"{wins} of {options.architectures}",
                percent(float(seeds)),
            )
        )
    write_table(
        "finetuning",
        "Fine-tuning: the GHN's weights against Kaiming initialisation",
        (
            "SGD steps",
            "from the GHN",
            "from Kaiming",
            "difference (points)",
            "GHN better",
            "std between seeds",
        ),
        rows,
        [
            f"{options.architectures} random DARTS architectures x {options.seeds} seeds on "
            f"digitscapes; batch 64, rate {options.rate:g}, a cosine of its own for each length; "
            "4,000 validation images.",
        ],
    )


if __name__ == "__main__":
    main()
