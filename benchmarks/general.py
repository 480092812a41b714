"""Zero-shot accuracy of hypernetworks on every space, also on some that no training ever saw."""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import CPU, percent, write_table

from ghnas.data import ImageData, evaluation_batches, load_data
from ghnas.ghn.checkpoint import load_ghn, shipped_ghn
from ghnas.ghn.model import GHN
from ghnas.scoring.evaluation import Batch
from ghnas.scoring.scorer import Scorer
from ghnas.spaces import Space, load_space
from ghnas.training.hypernetwork.training import sample_graphs
from ghnas.utils.files import write_atomically

UNSEEN = Path(__file__).resolve().parent / "unseen_spaces"
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "darts": ("darts", {}),
    "darts, 4 channels": ("darts", {"channels": 4}),
    "darts, 12 channels": ("darts", {"channels": 12}),
    "darts, 16 channels": ("darts", {"channels": 16}),
    "darts, 14 cells": ("darts", {"cells": 14}),
    "nasbench201": ("nasbench201", {}),
    "nasbench101": ("nasbench101", {}),
    "nasbench_macro": ("nasbench_macro", {}),
    "mobile": ("mobile", {}),
    "deepnets1m, test": ("deepnets1m", {"channels": 8, "split": "test"}),
    "deepnets1m, wide": ("deepnets1m", {"channels": 8, "split": "wide"}),
    "deepnets1m, deep": ("deepnets1m", {"channels": 8, "split": "deep"}),
    "deepnets1m, dense": ("deepnets1m", {"channels": 8, "split": "dense"}),
    "deepnets1m, bnfree": ("deepnets1m", {"channels": 8, "split": "bnfree"}),
}
"""For each row of the table the space and what differs from its own skeleton."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ghns", nargs="*", help="names or files", default=["general-embedded"])
    parser.add_argument("--data", default="embedded", help="name or folder of images")
    parser.add_argument("--image-size", type=int, help="default: the data's own")
    parser.add_argument("--count", type=int, default=100, help="architectures of each space")
    parser.add_argument("--images", type=int, default=512, help="validation images")
    parser.add_argument("--spaces", default="", help="only rows that begin so, with commas")
    parser.add_argument("--own", action="store_true", help="also the space's own hypernetwork")
    parser.add_argument("--name", default="general", help="of the table in results/")
    parser.add_argument("--title", help="default: says the data set")
    parser.add_argument("--note", action="append", default=[])
    parser.add_argument("--kept", type=Path, help="a file for results, to go on after a stop")
    options = parser.parse_args()
    ghns = {Path(name).stem: load_ghn(name) for name in options.ghns}
    known = json.loads(options.kept.read_text()) if options.kept and options.kept.exists() else {}
    data = load_data(options.data, image_size=options.image_size)
    batches, rows = _batches(data, options.images), []
    for label, space in _spaces(tuple(options.spaces.split(","))):
        shipped = shipped_ghn(space.name, data.name)
        used = ghns | ({"own": load_ghn(shipped)} if shipped and options.own else {})
        for name, ghn in used.items():
            key = f"{label}|{name}|{ghn.info.sha256}|{options.count}|{options.images}"
            if key not in known:
                known[key] = _accuracies(ghn, space, label, data, batches, options.count)
                print(label, name, _cell(known[key]), file=sys.stderr, flush=True)
                if options.kept:
                    write_atomically(options.kept, json.dumps(known))
            used[name] = known[key]  # type: ignore[assignment]
        columns = [*ghns, "own"] if options.own else [*ghns]
        rows.append([label, *(_cell(used[c]) if c in used else "-" for c in columns)])
    write_table(
        options.name,
        options.title or f"Zero-shot accuracy on {data.name}, space by space",
        ["space", *ghns, *(["own hypernetwork"] if options.own else [])],
        rows,
        [
            f"Mean +- standard deviation over {options.count} random architectures of each space "
            f"(not of the mean), best of them; {options.images} "
            f"validation images of {data.name}, batches of 64, batch statistics; chance is 10 %. "
            "Spaces marked so are files in `benchmarks/unseen_spaces/`, of which no training had "
            "one. deepnets1m has 8 channels, all others their own skeleton where none is named.",
            *options.note,
        ],
    )


def _spaces(prefixes: tuple[str, ...]) -> Iterator[tuple[str, Space]]:
    for label, (name, changes) in SMALL.items():
        if label.startswith(prefixes):
            yield label, load_space(name).with_skeleton(**changes)
    for path in sorted(UNSEEN.glob("*.yaml")):
        if path.stem.startswith(prefixes):
            yield f"{path.stem} (never seen)", load_space(str(path))


def _batches(data: ImageData, images: int) -> list[Batch]:
    split = data.validation.take(images)
    return evaluation_batches(split, 64, device=CPU, mean=data.mean, std=data.std)


def _accuracies(
    ghn: GHN, space: Space, label: str, data: ImageData, batches: list[Batch], count: int
) -> list[float]:
    """Of architectures from a seed that no training used."""
    rng = random.Random(f"general:{label}")
    graphs = sample_graphs(space, data.image_shape, data.num_classes, count, rng)
    return [s.accuracy if s else 0.0 for s in Scorer(ghn, batches, CPU, workers=1).score(graphs)]


def _cell(accuracies: list[float]) -> str:
    found = np.array(accuracies)
    return f"{percent(found.mean())} +- {percent(found.std())}, best {percent(found.max())}"


if __name__ == "__main__":
    main()
