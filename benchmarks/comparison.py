"""The paper's comparison at our scale: GHN-2, what it is without each of its parts, GHN-1, MLP."""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

import numpy as np
import torch
from common import CPU, percent, write_table

from ghnas.data import ImageData, evaluation_batches, load_data
from ghnas.ghn.checkpoint import load_ghn
from ghnas.ghn.config import PRESETS, GHNConfig
from ghnas.scoring.scorer import Scorer
from ghnas.spaces import Space, load_space
from ghnas.training.hypernetwork.training import Job, TrainSettings, train
from ghnas.utils.devices import cores

SPLITS = ("test", "wide", "deep", "dense", "bnfree")
ROWS: dict[str, tuple[dict[str, object], int | None]] = {
    "GHN-2": ({}, None),
    "without virtual edges": ({"ve": False}, None),
    "without weight normalisation": ({"weight_norm": False}, None),
    "with a meta-batch of 1": ({}, 1),
    "GHN-1": (PRESETS["ghn1"], None),
    "MLP": (PRESETS["mlp"], None),
}
"""For each row the settings that differ from GHN-2 and another meta-batch."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="a folder of parquet files or images, or cifar10")
    parser.add_argument("--image-size", type=int, default=16)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--meta-batch", type=int, default=4)
    parser.add_argument("--architectures", type=int, default=60, help="of each split")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--name", default="comparison", help="of the table in results/")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, default=Path("comparison"), help="for checkpoints")
    options = parser.parse_args()
    device = torch.device(options.device)
    data = load_data(options.data, image_size=options.image_size)
    space = load_space("deepnets1m").with_skeleton(channels=options.channels)
    rows = []
    for name in options.rows:
        changes, meta_batch = ROWS[name]
        config = GHNConfig(num_classes=data.num_classes, **changes)  # type: ignore[arg-type]
        settings = TrainSettings(
            steps=options.steps,
            meta_batch=meta_batch or options.meta_batch,
            workers=min(cores(), meta_batch or options.meta_batch),
            evaluate_every=max(options.steps // 5, 1),
        )
        path = options.folder / f"{name.replace(' ', '-')}.safetensors"
        if not path.exists():
            print(name, file=sys.stderr, flush=True)
            job = Job(space, data, config, settings, path, device)
            train(job, lambda progress: _report(progress.step, progress.loss, progress.held_out))
        rows.append((name, *_scores(path, space, data, options.architectures, options.images)))
        print(*rows[-1], flush=True)
    write_table(
        options.name,
        f"Zero-shot accuracy on {data.name}, {options.image_size}x{options.image_size}",
        ("hypernetwork", *SPLITS),
        rows,
        [
            f"Mean, standard deviation over architectures and best of {options.architectures} "
            f"unseen architectures of each split of DeepNets-1M ({options.channels} channels) on "
            f"{options.images} validation images; {options.steps} training steps, meta-batch "
            f"{options.meta_batch}, batch 64, seed 0 throughout, one training each.",
        ],
    )


def _report(step: int, loss: float, held_out: float | None) -> None:
    if held_out is not None:
        line = f"  step {step}: loss {loss:.3f}, held out {held_out:.1%}"
        print(line, file=sys.stderr, flush=True)


def _scores(path: Path, space: Space, data: ImageData, count: int, images: int) -> list[str]:
    ghn = load_ghn(path)
    batches = evaluation_batches(
        data.validation.take(images), 64, device=CPU, mean=data.mean, std=data.std
    )
    cells = []
    for split in SPLITS:
        chosen, rng = space.with_skeleton(split=split), random.Random(f"comparison:{split}")
        graphs = [
            chosen.sample(rng).for_images(data.image_shape, data.num_classes).graph
            for _ in range(count)
        ]
        scores = [score for score in Scorer(ghn, batches, CPU).score(graphs) if score]
        found = np.array([score.accuracy for score in scores])
        cells.append(
            f"{percent(found.mean())} +- {percent(found.std())}, best {percent(found.max())}"
        )
    return cells


if __name__ == "__main__":
    main()
