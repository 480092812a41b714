"""Training the best again for longer, or more candidates for as long?

    python benchmarks/halving.py <budgets.csv of DARTS cells>

The published file has the test accuracy of the same cells after trainings of several lengths, and
after 600 epochs at full size. For the same number of epochs, either 32 cells are trained for the
shorter length, and the best of them again for the longer one, as `ghnas search --train-epochs 1,3`
does; or more than 32 for the shorter one. Both choose by what they have seen.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
from common import write_table

from ghnas.engine.stages.training_plan import TrainingPlan
from ghnas.utils.statistics import Values
from ghnas.utils.tables import read_rows

SIZE = ("cells", "channels", "image_size", "batch_size", "precision", "cutout")
COUNT, DRAWS, RESAMPLES = 32, 200, 200
FIRST = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("budgets", type=Path)
    options = parser.parse_args()
    known: dict[tuple[str, ...], dict[int, dict[str, float]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    full: dict[str, float] = {}
    for row in read_rows(options.budgets):
        name, size = row["architecture"], tuple(row[key] for key in SIZE)
        known[size][int(row["epochs"])][name] = float(row["test_accuracy"])
        full[name] = float(row["test_accuracy_600ep"])
    truth = np.array(list(full.values()))
    rows = []
    for size, by_length in known.items():
        complete = {
            epochs: np.array([found[name] for name in full])
            for epochs, found in sorted(by_length.items())
            if found.keys() == full.keys()
        }
        for shorter, longer in pairwise(complete):
            rows.append((*size, *figures(complete, truth, shorter, longer)))
    write_table(
        "halving",
        f"{len(full)} DARTS cells on CIFAR-10: {COUNT} trained, and the best again for longer",
        (*(key.replace("_", " ") for key in SIZE), "epochs", "trained longer",
         f"more, short: first {FIRST}", "fewer, some longer", "difference"),
        rows,
        [
            f"Accuracy after 600 epochs of the first {FIRST} choices, mean over {DRAWS} draws of "
            f"cells; of a random cell {truth.mean():.2f}. Both cost as many epochs, restarts "
            "included. Difference: 95 % interval, bootstrap over the cells from which is drawn; "
            "above zero is better with longer trainings of some."
        ],
    )  # fmt: skip


def figures(
    lengths: Mapping[int, Values], truth: Values, shorter: int, longer: int
) -> Iterator[str]:
    """A row of the table."""
    plan = TrainingPlan(COUNT, (shorter, longer), repeats=0)
    _, kept = plan.survivors(COUNT)
    more = plan.all_steps(COUNT) // shorter
    random = np.random.default_rng(0)
    cells = np.arange(len(truth))
    draws = [random.permutation(cells) for _ in range(DRAWS)]

    def gains(among: Values) -> tuple[float, float]:
        """By each way, from cells of which some may stand for several."""
        found = []
        for draw in draws:
            own = among[draw % len(among)]
            many = own[:more][np.argsort(-lengths[shorter][own[:more]], kind="stable")]
            best = own[:COUNT][np.argsort(-lengths[shorter][own[:COUNT]], kind="stable")]
            first = best[:kept][np.argsort(-lengths[longer][best[:kept]], kind="stable")]
            chosen = np.concatenate([first, best[kept:]])[:FIRST]
            found.append((truth[many[:FIRST]].mean(), truth[chosen].mean()))
        return tuple(np.mean(found, axis=0).tolist())

    short, some = gains(cells)
    samples = [gains(random.choice(cells, len(cells))) for _ in range(RESAMPLES)]
    low, high = np.quantile([b - a for a, b in samples], (0.025, 0.975))
    yield f"{shorter}, {longer}"
    yield f"{kept} of {COUNT}; or {more}"
    yield f"{short:.2f}"
    yield f"{some:.2f}"
    yield f"{some - short:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
