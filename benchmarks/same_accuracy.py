"""Do fused kernels train networks as good as PyTorch's do? The same trainings, both ways."""

from __future__ import annotations

import argparse
import random
from functools import cache

import numpy as np
import torch
from common import embedded, on_all_cores, percent, write_table

import ghnas
from ghnas.architectures.network import Network, load_parameters
from ghnas.data import random_batches
from ghnas.executors.trainable import PlainNetwork, trainable
from ghnas.ghn.model import GHN
from ghnas.training.sgd import SGDSettings, SGDTraining, measure_accuracy
from ghnas.utils.statistics import Values, estimate_mean

BATCH = 64
KINDS = {"PyTorch": PlainNetwork, "fused": trainable}
Task = tuple[int, int, str, int]
"""Cell, seed, kernels, epochs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    tasks: list[Task] = [
        (cell, seed, kind, options.epochs)
        for cell in range(options.cells)
        for seed in range(options.seeds)
        for kind in KINDS
    ]
    found = np.array(list(on_all_cores(train, tasks, "trained")))
    table = found.reshape(options.cells, options.seeds, len(KINDS))
    rows = [(f"cell {cell}", *map(summary, own.T)) for cell, own in enumerate(table)]
    difference = estimate_mean(100 * (table[:, :, 1] - table[:, :, 0]).ravel())
    noise = 100 * np.sqrt(table.var(axis=1, ddof=1).mean(axis=0))
    write_table(
        "same_accuracy",
        f"Validation accuracy after {options.epochs} epochs from predicted weights",
        ("", *KINDS),
        rows,
        [
            "Random DARTS cells, embedded images; mean and standard deviation over "
            f"{options.seeds} seeds of the images' order and shifts, the same for both. Fused less "
            "PyTorch's, "
            f"{found.size // 2} pairs: {difference.value:+.2f} points ({difference.low:+.2f} to "
            f"{difference.high:+.2f}, percentile bootstrap); deviation between seeds "
            f"{noise[0]:.2f} and {noise[1]:.2f} points."
        ],
    )


def summary(values: Values) -> str:
    """Mean and standard deviation, in per cent."""
    return f"{percent(float(values.mean()))} ({100 * float(values.std(ddof=1)):.1f})"


@cache
def hypernetwork() -> GHN:
    """The one that ships."""
    return ghnas.load_ghn("darts-embedded")


def train(task: Task) -> float:
    """Validation accuracy with running statistics, at the end."""
    cell, seed, kind, epochs = task
    torch.set_num_threads(1)
    data, ghn = embedded(), hypernetwork()
    data = data.normalised_with(ghn.info.mean, ghn.info.std)
    space = ghnas.load_space("darts").for_images(data.image_shape, data.num_classes)
    network = Network(space.sample(random.Random(cell)).graph)
    load_parameters(network, ghn.predict_graphs([network.graph])[0])
    own = KINDS[kind](network.to(memory_format=torch.channels_last))
    steps = epochs * (len(data.train) // BATCH)
    training = SGDTraining(own.parameters, steps, SGDSettings())
    batches = random_batches(
        data.train, BATCH, seed=seed, device="cpu", mean=data.mean, std=data.std,
        mirror=data.mirror, shift=1,
    )  # fmt: skip
    for _, (images, labels) in zip(range(steps), batches, strict=False):
        training.step(own.loss, images, labels)
    return measure_accuracy(own, data.validation, data)


if __name__ == "__main__":
    main()
