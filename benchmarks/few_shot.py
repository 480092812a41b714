"""Training on few images of each class: from the weights that hypernetworks predict, and from
Kaiming initialisation (the few-shot rows of the GHN-2 paper, section 5.3, at our scale).

The learning rate of each start is the best on validation images, by one training of each
architecture; the figures are of other seeds, on test images.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import percent, write_table

from ghnas import TrainedNetwork, finetune, load_data, load_ghn, load_space
from ghnas.architectures.architecture import Architecture
from ghnas.data import ImageData
from ghnas.ghn.model import GHN

IMAGES = 1000
RATES = (0.01, 0.03, 0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="a folder of parquet files or images, or cifar10")
    parser.add_argument("--ghns", nargs="+", default=["general-embedded", "darts-cifar10"])
    parser.add_argument("--space", default="darts")
    parser.add_argument("--cells", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=16)
    parser.add_argument("--shots", type=int, default=100, help="training images of each class")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--architectures", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--note", default="", help="how the hypernetworks were trained")
    options = parser.parse_args()
    data = load_data(options.data, image_size=options.image_size)
    data = replace(data, validation=data.validation.take(IMAGES))  # looked at after every epoch
    space = load_space(options.space).with_skeleton(cells=options.cells)
    chosen = [space.sample(seed=100 + number) for number in range(options.architectures)]
    starts: dict[str, GHN | None] = {"Kaiming initialisation": None}
    starts |= {Path(name).stem: load_ghn(name) for name in options.ghns}
    rows = []
    for name, ghn in starts.items():
        tried = {
            rate: np.mean([_train(item, data, ghn, rate, 0, options).validation for item in chosen])
            for rate in RATES
        }
        rate = max(tried, key=lambda item: tried[item])
        found = np.array(
            [
                [_train(item, data, ghn, rate, seed, options).test for item in chosen]
                for seed in range(1, options.seeds + 1)
            ]
        )
        by_seed, each = found.mean(axis=1), found.mean(axis=0)
        accuracy = percent(by_seed.mean()), percent(by_seed.std(ddof=1))
        rows.append((name, _trained(ghn), f"{rate:g}", *accuracy, ", ".join(map(percent, each))))
        print(*rows[-1], file=sys.stderr, flush=True)
    write_table(
        "few_shot",
        f"{options.shots} training images of each class of {data.name}",
        ("start", "hypernetwork", "rate", "test accuracy", "sd of seeds", "of each architecture"),
        rows,
        [
            f"{options.architectures} random {space.name} architectures of {options.cells} cells "
            f"at {options.image_size}x{options.image_size} pixels, {options.epochs} epochs, batch "
            f"64, cosine; mean over {options.seeds} seeds. The images are the same for every seed; "
            "order, shifts and Kaiming initialisation are not. Rates tried: "
            f"{', '.join(map(str, RATES))} (seed 0, {IMAGES:,} validation images). The "
            "hypernetworks saw all training images of their data set.",
            options.note,
        ],
    )


def _train(
    architecture: Architecture,
    data: ImageData,
    ghn: GHN | None,
    rate: float,
    seed: int,
    options: argparse.Namespace,
) -> TrainedNetwork:
    return finetune(
        architecture,
        data,
        ghn=ghn,
        epochs=options.epochs,
        learning_rate=rate,
        seed=seed,
        shots=options.shots,
    )


def _trained(ghn: GHN | None) -> str:
    """How a hypernetwork was trained, in a few words."""
    if ghn is None:
        return "-"
    known = ghn.info.training
    words = (
        f"{known['steps']:,} steps of {known['meta_batch']} architectures of "
        f"{ghn.info.skeleton.get('cells', 'any')} cells on {ghn.info.data}"
    )
    return f"{words}, after other trainings" if known["start"] else words


if __name__ == "__main__":
    main()
