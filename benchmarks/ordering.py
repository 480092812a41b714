"""What makes an order good? Many ways to score, against accuracies that are known.

On the tuning part of the architectures (`--part tune`) all of them, to choose by; on the test
part the ones chosen, beside every proxy. Measurements are kept in a CSV file: the same command
goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import functools
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import CPU, interval, reordered, write_table

from ghnas.architectures.network import kaiming
from ghnas.data import ImageData, evaluation_batches, load_data, random_batches
from ghnas.ghn.checkpoint import load_ghn
from ghnas.ghn.model import GHN
from ghnas.scoring.composite import Reference
from ghnas.scoring.composite import measure as measure_components
from ghnas.scoring.evaluation import Components, evaluate_one
from ghnas.scoring.proxies import PROXIES, rank_vote, score_graph
from ghnas.spaces import load_space
from ghnas.training.short import SETTINGS, train_briefly
from ghnas.training.truth_table import Truth, read_truth, subset
from ghnas.utils.processes import Workers
from ghnas.utils.statistics import Values, evaluate
from ghnas.utils.tables import RowFile

COLUMNS = ("architecture", "measure", "key", "value", "seconds")
REFERENCE, REFERENCE_SEED = 200, "ordering:reference"
SHORT_LISTS = (10, 20)


@dataclass(frozen=True)
class Measure:
    """One way to look at an architecture.

    Args:
        name: Of its rows.
        kind: `zero-shot` (loss and accuracy), `components`, `short` (a short training), or `proxy`.
        ghn: The hypernetwork's file; empty: Kaiming initialisation.
        cells: Of each stage; None: as the hypernetwork was trained.
        split: Images that the score is measured on.
        images: How many.
        batch: Whose statistics batch-norm sees.
        steps: Of a short training.
        rate: Of a short training.
    """

    name: str
    kind: str
    ghn: str = ""
    cells: int | None = None
    split: str = "validation"
    images: int = 512
    batch: int = 128
    steps: int = 0
    rate: float = 0.0


def zero_shot_measures(ghn: str, checkpoints: Sequence[str]) -> list[Measure]:
    base = Measure("zero-shot", "zero-shot", ghn)
    return [
        base,
        *(replace(base, name=f"{n:,} images", images=n) for n in (128, 2048)),
        *(replace(base, name=f"batches of {n}", batch=n) for n in (64, 512)),
        replace(base, name="training images", split="train"),
        *(replace(base, name=f"{n} cells a stage", cells=n) for n in (2, 5)),
        *(replace(base, name=f"checkpoint {Path(p).stem}", ghn=p) for p in checkpoints),
    ]


def short_measures(ghn: str) -> list[Measure]:
    base = Measure("", "short", images=512)
    return [
        *(
            replace(base, name=f"{k} steps from the GHN, rate {r}", ghn=ghn, steps=k, rate=r)
            for k, r in ((1, 0.01), (5, 0.01), (20, 0.01), (20, 0.05), (50, 0.05))
        ),
        replace(base, name="100 steps from Kaiming, rate 0.1", steps=100, rate=0.1),
    ]


def main() -> None:
    options = _options()
    truth = subset(read_truth(options.truth, options.column), options.part, options.count, 0)
    ghn = str(options.ghn)
    components = Measure("components", "components", ghn)
    measures = [*(Measure(name, "proxy") for name in PROXIES), components]
    if options.part == "tune":
        measures += zero_shot_measures(ghn, options.checkpoints)
        measures += short_measures(ghn) if options.short else []
    else:
        measures.append(Measure("zero-shot", "zero-shot", ghn))
    work = Work(
        options.data, options.space, options.channels, options.cells, options.image_size, ghn
    )
    with RowFile(options.rows, COLUMNS, asdict(work)) as file:
        rows = _all_scores(file, work, measures, components, truth, options)
    _write(rows, truth, options)


def _all_scores(
    file: RowFile,
    work: Work,
    measures: Sequence[Measure],
    components: Measure,
    truth: Truth,
    options: argparse.Namespace,
) -> Scores:
    """Measure what is missing, and what follows from it."""
    reference_texts = _reference_texts(work)
    _measure(work, file, measures, truth.architectures, options.workers)
    _measure(work, file, [components], reference_texts, options.workers)
    rows = _scores(file, truth, reference_texts)
    first = rows["composite score"]
    best = np.argsort(-first[0], kind="stable")
    if options.short_column:
        known = read_truth(options.truth, options.short_column)
        again = subset(known, options.part, options.count, 0).by_seed.mean(0)
        for count in SHORT_LISTS:
            label = f"composite score, its {count} best by {options.short_column}"
            rows[label] = reordered(first[0], best[:count], again[best[:count]]), first[1]
    return rows


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("truth", type=Path, help="CSV of architectures and accuracies")
    parser.add_argument("data", help="a folder of parquet files or images, or cifar10")
    parser.add_argument("--ghn", type=Path, required=True)
    parser.add_argument("--checkpoints", nargs="*", default=[], help="earlier ones of the same")
    parser.add_argument("--column", default="cifar10_test_accuracy_200ep")
    parser.add_argument("--space", default="nasbench201")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--cells", type=int, default=1)
    parser.add_argument("--image-size", type=int, default=16)
    parser.add_argument("--part", choices=("tune", "test"), default="tune")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--short", action="store_true", help="short trainings of all, too")
    parser.add_argument(
        "--short-column",
        default="cifar10_valid_accuracy_12ep",
        help="published accuracies of a shorter training, for a short list; empty: none",
    )
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rows", type=Path, default=Path("ordering.csv"), help="measurements")
    parser.add_argument("--note", default="", help="such as how the hypernetwork was made")
    parser.add_argument("--name", default="ordering", help="of the table in results/")
    return parser.parse_args()


@dataclass(frozen=True)
class Work:
    """What all measurements of a file share."""

    data: str
    space: str
    channels: int
    cells: int
    image_size: int
    ghn: str


def _reference_texts(work: Work) -> list[str]:
    """Random architectures, of which nothing but the graph is known."""
    space, rng = load_space(work.space), random.Random(REFERENCE_SEED)
    return [str(space.sample(rng)) for _ in range(REFERENCE)]


def _measure(
    work: Work, file: RowFile, measures: Sequence[Measure], texts: Sequence[str], workers: int
) -> None:
    """Add what the file does not have yet."""
    known = {(row["architecture"], row["measure"]) for row in file.rows}
    tasks = [(m, text) for m in measures for text in texts if (text, m.name) not in known]
    began = time.monotonic()
    images = load_data(work.data, image_size=work.image_size).without_test() if tasks else None
    with Workers(workers, functools.partial, _measure_one, work, images, gradients=True) as pool:
        for done, rows in enumerate(pool.as_completed(tasks), start=1):
            file.append(rows)
            if done % 100 == 0 or done == len(tasks):
                spent = time.monotonic() - began
                print(f"{done}/{len(tasks)} in {spent:.0f} s", file=sys.stderr, flush=True)


@functools.cache
def _ghn(path: str) -> GHN:
    return load_ghn(path)


@functools.cache
def _checks(data: ImageData, split: str, images: int, batch: int) -> list[Any]:
    part = data.train if split == "train" else data.validation
    return evaluation_batches(part.take(images), batch, device=CPU, mean=data.mean, std=data.std)


@functools.cache
def _training_batches(data: ImageData, steps: int) -> list[Any]:
    endless = random_batches(
        data.train, 64, seed=0, device=CPU, mean=data.mean, std=data.std, mirror=data.mirror,
        shift=1,
    )  # fmt: skip
    return list(islice(endless, steps))


def _measure_one(
    work: Work, data: ImageData, measure: Measure, text: str
) -> list[dict[str, object]]:
    if measure.ghn:
        _ghn(measure.ghn)  # what is read once does not count
    batches = _training_batches(data, max(measure.steps, 1))
    checks = _checks(data, measure.split, measure.images, measure.batch)
    began = time.process_time()
    space = load_space(work.space).with_skeleton(
        channels=work.channels, cells=measure.cells or work.cells
    )
    graph = space.parse(text).for_images(data.image_shape, data.num_classes).graph
    found: Mapping[str, float]
    if measure.kind == "proxy":
        found = {"score": score_graph(PROXIES[measure.name], graph, *batches[0], 0)}
    else:
        if measure.ghn:
            parameters = _ghn(measure.ghn).predict_graphs([graph])[0]
        else:
            parameters = kaiming(graph, torch.Generator().manual_seed(0))
        if measure.kind == "short":
            settings = replace(SETTINGS, learning_rate=measure.rate)
            refined = train_briefly(graph, parameters, batches, checks, settings)
            found = {
                "accuracy": refined.score.accuracy,
                "loss": -refined.score.loss,
                "training loss": -refined.summed_loss(0.0),
                "training loss, 2nd half": -refined.summed_loss(0.5),
            }
        elif measure.kind == "zero-shot":
            score = evaluate_one(graph, parameters, checks)
            found = {"accuracy": score.accuracy, "loss": -score.loss}
        else:
            score = evaluate_one(graph, parameters, checks)
            found = asdict(measure_components(graph, parameters, checks[0], score))
    seconds = time.process_time() - began
    return [
        {
            "architecture": text,
            "measure": measure.name,
            "key": key,
            "value": repr(value),
            "seconds": f"{seconds:.4f}",
        }
        for key, value in found.items()
    ]


Scores = dict[str, tuple[Values, float]]
"""By name: a score for each architecture, higher is better, and seconds of one core for each."""


def _scores(file: RowFile, truth: Truth, reference_texts: Sequence[str]) -> Scores:
    """What follows from the measurements."""
    values: dict[tuple[str, str], dict[str, float]] = {}
    seconds: dict[str, list[float]] = {}
    for row in file.rows:
        key = row["measure"], row["key"]
        values.setdefault(key, {})[row["architecture"]] = float(row["value"])
        seconds.setdefault(row["measure"], []).append(float(row["seconds"]))
    rows: Scores = {}
    for (name, key), found in values.items():
        if name != "components" and all(text in found for text in truth.architectures):
            label = name if key == "score" else f"{name}: {key}"
            array = np.array([found[text] for text in truth.architectures])
            rows[label] = array, float(np.mean(seconds[name]))

    def components(text: str) -> Components:
        return Components(
            *(values["components", key][text] for key in Components.__dataclass_fields__)
        )

    reference = Reference.of([components(text) for text in reference_texts])
    items = [components(text) for text in truth.architectures]
    cost = float(np.mean(seconds["components"]))
    for label, parts in COMPOSITE.items():
        rows[label] = np.array([reference.score(item, parts) for item in items]), cost
    rows["vote of synflow, jacov, snip"] = _vote(rows, ("synflow", "jacov", "snip"))
    rows["vote of params, naswot"] = _vote(rows, ("params", "naswot"))
    rows["vote of params, naswot, synflow"] = _vote(rows, ("params", "naswot", "synflow"))
    return rows


COMPOSITE = {
    "composite score": ("fit", "separability", "size"),
    "fit + size": ("fit", "size"),
    "fit + separability": ("fit", "separability"),
    "separability + size": ("separability", "size"),
    "separability with predicted weights": ("separability",),
}


def _vote(rows: Scores, names: Sequence[str]) -> tuple[Values, float]:
    return rank_vote({n: rows[n][0] for n in names}), sum(rows[n][1] for n in names)


def _write(rows: Scores, truth: Truth, options: argparse.Namespace) -> None:
    accuracy = truth.by_seed.mean(0)
    figures = {name: evaluate(scores, accuracy) for name, (scores, _) in rows.items()}
    order = sorted(rows, key=lambda name: -figures[name]["spearman"].value)
    table = [
        (
            name,
            interval(figures[name]["spearman"], 1),
            interval(figures[name]["kendall"], 1),
            f"{figures[name]['spearman_best_tenth'].value:.2f}",
            interval(figures[name]["regret_1"], 100),
            f"{100 * figures[name]['regret_5'].value:.2f}",
            f"{rows[name][1]:.3f}",
        )
        for name in order
    ]
    write_table(
        options.name,
        f"What makes an order good: {len(accuracy):,} architectures of {options.space}, "
        f"part {options.part}",
        ("order by", "Spearman", "Kendall", "in the best tenth", "regret of 1, %",
         "regret of 5, %", "seconds"),
        table,
        [*_notes(truth, options), "", options.note],
    )  # fmt: skip


def _notes(truth: Truth, options: argparse.Namespace) -> Iterator[str]:
    yield (
        f"Against {truth.column}, {len(truth.architectures):,} architectures of the part "
        f"`{options.part}` (`ghnas.utils.statistics.part_of`: by the SHA-256 of the architecture's "
        "text), drawn with seed 0; in brackets bootstrap 95 % intervals over architectures, 1,000 "
        "samples. Networks have "
        f"{options.channels} channels and {options.cells} cells a stage unless said otherwise, "
        f"images {options.image_size}x{options.image_size}: 512 validation images in batches of "
        "128 for predicted weights, 64 training images for proxies, Kaiming initialisation with "
        "seed 0, batches of 64 in short trainings. The composite score is the sum of: minus the "
        "zero-shot loss, the log-determinant of the ReLU codes' kernel with predicted weights, the "
        "logarithm of the number of parameters, each in units of its interquartile range among "
        f"{REFERENCE} random architectures of the space (their accuracies unknown). Regret: "
        "accuracy lost by taking the first choice, or the best of the first five; its interval is "
        "wide, for it hangs on a handful of architectures. Seconds: of one core of a busy machine, "
        "for each architecture. Rows that end in 12ep reorder the composite score's best by the "
        "published accuracy after 12 epochs of training: what a short list gains from being "
        "trained, not counted in the seconds."
    )


if __name__ == "__main__":
    main()
