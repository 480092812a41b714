"""SGD from predicted weights against SGD from Kaiming initialisation, at several lengths.

The learning rate of each is the best of several on four other architectures.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

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

from ghnas.architectures.graph import Graph

SHARES = (0.1, 0.25, 0.5, 1.0)
RATES = {"ghn": (0.05, 0.1, 0.2, 0.4), "kaiming": (0.1, 0.2, 0.4, 0.8)}
Starts = Sequence[dict | None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architectures", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    rates, tried = _best_rates(options.steps)
    graphs = random_architectures(options.architectures, seed=3)
    tasks = [
        Training(graph, seed, round(share * options.steps), rates[kind], start)
        for share in SHARES
        for kind, starts in _starts(graphs).items()
        for graph, start in zip(graphs, starts, strict=True)
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
            f"digitscapes; batch 64, a cosine of its own for each length; 4,000 validation images. "
            f"Rate {rates['ghn']:g} from the GHN's weights and {rates['kaiming']:g} from Kaiming "
            f"initialisation: the best after {options.steps} steps on four other architectures "
            f"({tried}).",
        ],
    )


def _starts(graphs: Sequence[Graph]) -> dict[str, Starts]:
    return {"ghn": shipped_ghn().predict_graphs(graphs), "kaiming": [None] * len(graphs)}


def _best_rates(steps: int) -> tuple[dict[str, float], str]:
    """The best rate for each start, and what all of them gave."""
    graphs = random_architectures(4, seed=4)
    starts = _starts(graphs)
    keys = [(kind, rate) for kind, rates in RATES.items() for rate in rates]
    tasks = [
        Training(graph, 1, steps, rate, start)
        for kind, rate in keys
        for graph, start in zip(graphs, starts[kind], strict=True)
    ]
    finals = [curve[-1][1] for curve in on_all_cores(train_one, tasks, "rates")]
    means = dict(zip(keys, np.array(finals).reshape(len(keys), -1).mean(1), strict=True))
    best = {kind: max(rates, key=lambda rate: means[kind, rate]) for kind, rates in RATES.items()}
    tried = "; ".join(
        f"{kind}: " + ", ".join(f"{rate:g} {percent(means[kind, rate])}" for rate in rates)
        for kind, rates in RATES.items()
    )
    return best, tried


if __name__ == "__main__":
    main()
