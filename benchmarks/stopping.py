"""Is it worth stopping when more training no longer changes the first choices?

    python benchmarks/stopping.py <folder of tables>

The `predictor` sampler searches tables of published accuracies, tuning part, up to 64 trainings,
eight at a time. A rule stops a search when its five best have not changed in the last two batches,
and the predictor expects of nothing that is left to be better than the fifth. Against it, every
search stops after the same number of trainings, the mean of the rule's.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
from common import write_table

import ghnas
from ghnas.engine.bench import Table
from ghnas.engine.samplers import PredictorSearch, with_values
from ghnas.scoring.predictor import Regression
from ghnas.spaces.features import graph_features
from ghnas.training.truth_table import read_truth, subset
from ghnas.utils.statistics import Values, estimate_mean

SOURCES = (
    ("nasbench201", "cifar10_test_accuracy_200ep"),
    ("nasbench_macro", "test_accuracy"),
    ("nasbench101", "test_accuracy"),
)
RULES = ("five unchanged", "and nothing better expected")
BATCH, MOST, FEWEST, FIRST = 8, 64, 16, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", type=Path)
    parser.add_argument("--seeds", type=int, default=30)
    options = parser.parse_args()
    rows = []
    for space, column in SOURCES:
        known = subset(read_truth(options.tables / space / "accuracies.csv", column), "tune")
        table = Table(ghnas.load_space(space), known.architectures, 100 * known.mean)
        features = graph_features(table.space, table.members)
        found = [search(table, features, seed) for seed in range(options.seeds)]
        name = f"{space}, {len(table.members):,}"
        rows += [(name, rule, *compared(found, rule)) for rule in RULES]
    write_table(
        "stopping",
        "Stopping when the first choices no longer change",
        ("table", "rule", "trainings", "regret by the rule", "by as many for all", "difference"),
        rows,
        [
            f"Mean over {options.seeds} searches; regret: points of accuracy below the best of the "
            "table's tuning part. Between two batches the regret of a fixed number is "
            "interpolated. Difference: 95 % interval, bootstrap over searches; below zero is "
            "better by the rule."
        ],
    )


def search(table: Table, features: Values, seed: int) -> dict[str, Values]:
    """After each batch: the regret, and whether each rule would stop."""
    sampler = PredictorSearch(table.space, ("maximize",), pool=table.members)
    trained, firsts = list[int](), list[set[int]]()
    regret = list[float]()
    stops: dict[str, list[bool]] = {rule: [] for rule in RULES}
    while len(trained) < MOST:
        rng = random.Random(f"{seed}:{len(trained)}")
        asked = [table.places[item] for item in dict.fromkeys(sampler.ask(BATCH, rng))]
        sampler.tell([with_values(table.members[i], (table.accuracies[i],)) for i in asked])
        trained += asked
        known = table.accuracies[trained]
        order = np.argsort(-known, kind="stable")[:FIRST]
        firsts.append({trained[i] for i in order})
        regret.append(float(table.accuracies.max() - known.max()))
        same = len(trained) >= FEWEST and len(firsts) > 2 and firsts[-1] == firsts[-3]
        better = same and not nothing_better(features, trained, known, int(order[-1]))
        for rule, met in zip(RULES, (same, same and not better), strict=True):
            stops[rule].append(met)
    return {"regret": np.array(regret), **{key: np.array(own) for key, own in stops.items()}}


def nothing_better(features: Values, trained: list[int], known: Values, fifth: int) -> bool:
    """Whether nothing that is left is expected to be better than the fifth."""
    left = np.setdiff1d(np.arange(len(features)), trained)
    regression = Regression(features[trained], known, seed=len(trained))
    expected = regression.predict(features[left]).mean
    own = regression.predict(features[[trained[fifth]]]).mean
    return bool(expected.max() <= own[0])


def compared(found: list[dict[str, Values]], rule: str) -> tuple[str, ...]:
    """Mean trainings, and the regret by the rule and by the same number for all."""
    ends = np.array([int(np.argmax([*item[rule], True])) for item in found])
    ends = np.minimum(ends, MOST // BATCH - 1)
    regrets = np.array([item["regret"] for item in found])
    by_rule = regrets[np.arange(len(ends)), ends]
    mean = float(ends.mean())
    below, share = int(mean), mean - int(mean)
    above = min(below + 1, regrets.shape[1] - 1)
    fixed = (1 - share) * regrets[:, below] + share * regrets[:, above]
    difference = estimate_mean(by_rule - fixed)
    return (
        f"{BATCH * (mean + 1):.1f}",
        f"{by_rule.mean():.3f}",
        f"{fixed.mean():.3f}",
        f"{difference.value:.3f} ({difference.low:.3f} to {difference.high:.3f})",
    )


if __name__ == "__main__":
    main()
