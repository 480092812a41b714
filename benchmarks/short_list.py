"""What does it bring to train a short list for a moment? Against accuracies that are known.

Takes the scores of an earlier `ghnas rank`, trains the best by one of them as `ghnas search
--train` trains, and compares the order with and without. Trainings are kept in a CSV file: the same
command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import csv
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
from common import CPU, interval, reordered, write_table

from ghnas.data import evaluation_batches, load_data, random_batches
from ghnas.engine.stages.training_jobs import BATCH, TrainingJob, train_all
from ghnas.engine.trainings import quality
from ghnas.spaces import load_space
from ghnas.utils.processes import LocalPool
from ghnas.utils.statistics import Values, evaluate
from ghnas.utils.tables import RowFile

COLUMNS = ("architecture", "refined", "accuracy", "seconds")


def main() -> None:
    options = _options()
    with (options.rank / "ranking.csv").open() as file:
        table = list(csv.DictReader(file))
    names = [row["architecture"] for row in table]
    truth = np.array([float(row[options.column]) for row in table])
    scores = np.array([float(row[options.score]) for row in table])
    chosen = [int(i) for i in np.argsort(-scores, kind="stable")[: options.count]]
    refined, seconds = _refined(options, names, chosen)
    again = reordered(scores, chosen, refined)
    label = f"the {len(chosen)} best by their loss"
    _write(
        options,
        {
            f"all {len(names):,}: {options.score}": (scores, truth),
            f"all {len(names):,}: {options.score}, then {label}": (again, truth),
            f"the {len(chosen)} best alone: {options.score}": (scores[chosen], truth[chosen]),
            f"the {len(chosen)} best alone: loss of the training": (refined, truth[chosen]),
        },
        float(np.mean(seconds)),
    )


def _refined(
    options: argparse.Namespace, names: list[str], chosen: list[int]
) -> tuple[Values, Values]:
    """What a short training of each chosen architecture gives, and its seconds."""
    space = load_space(options.space).with_skeleton(cells=options.cells, channels=options.channels)
    data = load_data(str(options.data), image_size=options.image_size)
    batches = random_batches(
        data.train, BATCH, seed=options.seed, device=CPU, mean=data.mean, std=data.std,
        mirror=data.mirror, shift=1,
    )  # fmt: skip
    checks = evaluation_batches(
        data.validation.take(512), BATCH, device=CPU, mean=data.mean, std=data.std
    )
    job = TrainingJob(
        space,
        list(islice(batches, options.steps)),
        checks,
        CPU,
        LocalPool(options.workers),
        options.seed,
    )
    settings = {
        "skeleton": dict(space.skeleton), "steps": options.steps, "seed": options.seed,
        "data": data.fingerprint,
    }  # fmt: skip
    with RowFile(options.rows, COLUMNS, settings) as file:
        known = {row["architecture"] for row in file.rows}
        graphs = {
            i: space.parse(names[i]).for_images(data.image_shape, data.num_classes).graph
            for i in chosen
            if names[i] not in known
        }
        with closing(train_all(graphs, job)) as results:
            for i, found, spent in results:
                file.append(
                    [
                        {
                            "architecture": names[i],
                            "refined": quality(found),
                            "accuracy": found.score.accuracy,
                            "seconds": round(spent, 2),
                        }
                    ]
                )
                print(f"{len(file.rows)} trained", flush=True)
        by_name = {row["architecture"]: row for row in file.rows}
    rows = [by_name[names[i]] for i in chosen]
    return (
        np.array([float(row["refined"]) for row in rows]),
        np.array([float(row["seconds"]) for row in rows]),
    )


def _write(
    options: argparse.Namespace, orders: dict[str, tuple[Values, Values]], seconds: float
) -> None:
    rows = []
    for name, (scores, truth) in orders.items():
        figures = evaluate(scores, truth)
        first = np.argsort(-scores, kind="stable")[:5]
        rows.append(
            (
                name,
                interval(figures["spearman"], 1),
                interval(figures["kendall"], 1),
                interval(figures["regret_1"], 100),
                interval(figures["regret_5"], 100),
                f"{100 * (np.max(truth) - truth[first].mean()):.2f}",
            )
        )
    write_table(
        options.name,
        f"A short list trained for a moment: {options.space}",
        ("order", "Spearman", "Kendall", "lost by the first, %", "by the best of five, %",
         "mean of five, %"),
        rows,
        [
            f"Scores: {options.rank}. Each of the best {options.count} was trained for "
            f"{options.steps} SGD steps of {BATCH} images from Kaiming initialisation, with "
            f"{options.cells} cells and {options.channels} channels at {options.image_size} x "
            f"{options.image_size}, seed {options.seed}: {seconds:.1f} s each on one busy core. "
            "Their order is that of the training loss over the second half of the steps. In "
            "brackets bootstrap 95 % intervals over architectures, 1,000 samples; what is lost by "
            "a choice is against the best of all in the first two rows, of the short list in the "
            "others, and hangs on a handful of architectures.",
            options.note,
        ],
    )  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rank", type=Path, help="the folder that `ghnas rank` wrote")
    parser.add_argument("data", type=Path, help="the folder of CIFAR-10's parquet files")
    parser.add_argument("--column", required=True, help="the accuracy's column in ranking.csv")
    parser.add_argument("--space", default="nasbench201")
    parser.add_argument("--score", default="composite", help="what chooses the short list")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--cells", type=int, default=5)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rows", type=Path, default=Path("short_list.csv"))
    parser.add_argument("--name", default="short_list")
    parser.add_argument("--note", default="")
    return parser.parse_args()


if __name__ == "__main__":
    main()
