"""Is the best of 10,000 candidates, fine-tuned, better than the best of 5 random architectures?"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from common import (
    Training,
    on_all_cores,
    percent,
    random_architectures,
    shipped_ghn,
    train_and_test,
    write_table,
)

from ghnas.engine.runs import find_run

WAYS = (
    "best 5 of the search, from the GHN's weights",
    "5 random architectures, from Kaiming initialisation",
    "5 random architectures, from the GHN's weights",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--run", default=None, help="of a finished search; default: the latest")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rates", type=float, nargs=2, default=(0.1, 0.2), help="GHN, Kaiming")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    run, ghn = find_run(options.results, options.run), shipped_ghn()
    best = [item.record.architecture.graph for item in run.ranked(5)]
    tasks = []
    for seed in range(1, options.seeds + 1):
        drawn = random_architectures(5, seed=100 + seed)
        for graphs, predicted in ((best, True), (drawn, False), (drawn, True)):
            starts = ghn.predict_graphs(graphs) if predicted else [None] * len(graphs)
            rate = options.rates[0] if predicted else options.rates[1]
            tasks += [
                Training(graph, seed, options.steps, rate, start)
                for graph, start in zip(graphs, starts, strict=True)
            ]
    accuracies = np.array(list(on_all_cores(train_and_test, tasks, "trainings")))
    accuracies = accuracies.reshape(options.seeds, len(WAYS), 5, 2)
    rows = []
    for way, values in zip(WAYS, accuracies.swapaxes(0, 1), strict=True):
        picks = values[..., 0].argmax(1)
        tests = values[np.arange(options.seeds), picks, 1]
        rows.append(
            (
                way,
                percent(tests.mean()),
                ", ".join(percent(value) for value in tests),
                percent(values[..., 1].mean()),
            )
        )
    write_table(
        "search_gain",
        f"The best of {run.manifest.budget:,} candidates against the best of 5 random ones",
        ("what is trained", "test accuracy of the best", "for each seed", "mean of all five"),
        rows,
        [
            f"{options.steps} SGD steps (batch 64, cosine; rate {options.rates[0]:g} from the "
            f"GHN's weights, {options.rates[1]:g} from Kaiming initialisation) on digitscapes; "
            "the best is the one with the highest validation accuracy. Each seed draws other "
            "random architectures and another order of images; the search is the same.",
        ],
    )


if __name__ == "__main__":
    main()
