"""Zero-shot accuracy against minutes of adaptation, for spaces and images that a hypernetwork does
not know.

The curve is of 16 architectures on validation images, by which the best state is chosen; the last
figure is of 50 other architectures on test images.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from common import CPU, percent, steps_to, write_table

from ghnas import adapt, load_data, load_ghn, load_space
from ghnas.architectures.graph import Graph
from ghnas.data import ImageData, Split, evaluation_batches
from ghnas.ghn.model import GHN
from ghnas.scoring.scorer import Scorer
from ghnas.spaces import Space, parse_space
from ghnas.training.hypernetwork.loop import TrainProgress
from ghnas.training.hypernetwork.training import sample_graphs

MINE = """
name: mine
family: stages
skeleton:
  stem: {block: conv_bn_act, kernel: 3, width: 16}
stages:
  - {block: residual, depth: [1, 2], width: [16, 24], kernel: [3, 5]}
  - {block: residual, depth: [1, 2, 3], width: [32, 48], stride: 2, kernel: [3, 5]}
"""
ARCHITECTURES, IMAGES, SEED = 50, 512, 7
TRAINED, STEPS, RATES = 6, 400, (0.05, 0.1, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", help="a folder of images by class")
    parser.add_argument("--bases", nargs="+", default=["darts-embedded"], help="names or files")
    parser.add_argument("--minutes", type=float, default=2.5)
    parser.add_argument("--spaces", nargs="+", default=["mine", "mobile", "darts"])
    options = parser.parse_args()
    photos, embedded = load_data(options.photos, image_size=16), load_data()
    rows = []
    for name in options.spaces:
        space = parse_space(MINE, "mine.yaml") if name == "mine" else load_space(name)
        data = photos if name == "darts" else embedded
        rows += [_row(space, data, base, options.minutes) for base in options.bases]
    write_table(
        "adaptation",
        "Zero-shot accuracy against minutes of adaptation",
        ("space, images", "adapted from", "before", "curve: steps (minutes) accuracy",
         "50 other architectures, test images", "chance", "N*"),
        rows,
        [
            f"The curve: 16 held-out architectures, {IMAGES} validation images at most, about five "
            "of its twelve points. Last figure: mean and standard deviation over architectures "
            f"(seed {SEED}) of the state that the curve chose, {IMAGES} test images at most; "
            "one adaptation each, seed 0, other work beside it.",
            f"N*: SGD steps (batch 64, cosine over {STEPS}) from Kaiming initialisation until "
            f"{TRAINED} of these reach their own zero-shot mean on validation images, at the best "
            f"of the rates {', '.join(map(str, RATES))}.",
            f"photos: {len(photos.train):,} training images of {photos.num_classes} classes of "
            "CIFAR-10 (JPEG) at 16x16 pixels.",
        ],
    )  # fmt: skip


def _row(space: Space, data: ImageData, base: str, minutes: float) -> tuple[str, ...]:
    """One adaptation."""
    began, curve = time.monotonic(), list[tuple[int, float, float]]()

    def note(progress: TrainProgress) -> None:
        if progress.held_out is not None:
            curve.append((progress.step, time.monotonic() - began, progress.held_out))

    found = adapt(load_ghn(base), space, data, minutes, report=note)
    about, history = found.info.training["adaptation"], found.info.training["history"]
    graphs = _others(space, data)
    scores = _accuracies(found, graphs, data.load_test().take(IMAGES), data)
    some = graphs[:TRAINED]
    target = float(np.mean(_accuracies(found, some, data.validation.take(IMAGES), data)))
    reached, _ = steps_to(some, target, STEPS, RATES, data, IMAGES)
    saved = [steps for steps in reached.values() if steps]
    return (
        f"{space.name}, {data.name}",
        Path(base).stem,
        percent(history[0]["held_out"]),
        "; ".join(_points(curve)),
        f"{percent(np.mean(scores))} ({percent(np.std(scores))})",
        percent(about["chance"]),
        str(min(saved)) if saved else f"more than {STEPS}",
    )


def _points(curve: list[tuple[int, float, float]]) -> Iterator[str]:
    chosen = np.unique(np.linspace(0, len(curve) - 1, 5).round().astype(int))
    for step, seconds, accuracy in (curve[index] for index in chosen):
        yield f"{step} ({seconds / 60:.1f}) {percent(accuracy)}"


def _others(space: Space, data: ImageData) -> list[Graph]:
    """Architectures that had no say."""
    rng = random.Random(f"benchmark:{SEED}")
    return sample_graphs(space, data.image_shape, data.num_classes, ARCHITECTURES, rng)


def _accuracies(ghn: GHN, graphs: list[Graph], split: Split, data: ImageData) -> list[float]:
    """Zero-shot."""
    batches = evaluation_batches(split, 64, device=CPU, mean=data.mean, std=data.std)
    return [score.accuracy for score in Scorer(ghn, batches, CPU).score(graphs) if score]


if __name__ == "__main__":
    main()
