"""One hypernetwork for several data sets, with an embedding of the images, against one for each.

The paper (arXiv 2110.13100, section 6) leaves open whether one hypernetwork can serve several data
sets. Here a small network looks at a few images of the data set, and the mean of what it says is
added to the embedding of every node, so that for one data set the result is a plain hypernetwork.
All start from the same shipped one and see each of their data sets for the same number of steps. On
data sets that none has seen each is adapted for a short time, from what it predicts for them.
"""

from __future__ import annotations

import argparse
import copy
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from common import embedded, percent, write_table
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ghnas import adapt, load_data, load_ghn, load_space
from ghnas.data import ImageData, random_batches
from ghnas.executors.fused import compile_gradients
from ghnas.ghn.features import FeatureBatch
from ghnas.ghn.model import GHN
from ghnas.training.hypernetwork.adaptation import HEAD_STEPS
from ghnas.training.hypernetwork.loop import (
    TrainSettings,
    compute_gradients,
    held_out_accuracy,
    held_out_graphs,
    rate_schedule,
)
from ghnas.training.hypernetwork.meta_batches import MetaBatches
from ghnas.training.hypernetwork.mixture import Mixture

LOOKED_AT = 64
CPU = torch.device("cpu")


class Conditioned(nn.Module):
    """A hypernetwork that sees images of the data set.

    Args:
        ghn: To start from; without images it predicts what this one does.
    """

    def __init__(self, ghn: GHN) -> None:
        super().__init__()
        self.ghn = ghn
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, ghn.config.hid),
        )  # fmt: skip
        nn.init.zeros_(self.encoder[-1].weight)
        nn.init.zeros_(self.encoder[-1].bias)
        self.images = torch.zeros(1, *ghn.info.image_shape, dtype=torch.uint8)

    def _table(self) -> Tensor:
        """The embeddings of the operations, moved by that of the images (N, C, H, W) in uint8."""
        vector = self.encoder(self.images / 64 - 2).mean(0)
        result: Tensor = self.ghn.embed.weight + vector
        return result

    def forward(self, batch: FeatureBatch) -> list[Tensor]:
        """As of the hypernetwork, for the images last looked at."""
        moved = {"embed.weight": self._table()}
        result: list[Tensor] = torch.func.functional_call(self.ghn, moved, (batch,))
        return result

    @torch.no_grad()
    def for_data(self, data: ImageData) -> GHN:
        """The plain hypernetwork for a data set."""
        self.images = data.train.take(512).images
        result = copy.deepcopy(self.ghn)
        result.embed.weight.copy_(self._table())
        return result


@dataclass(frozen=True)
class Way:
    """How a hypernetwork comes about.

    Args:
        name: In the table.
        trained_on: Its data sets.
        sees: Whether it sees images of the data set.
    """

    name: str
    trained_on: tuple[str, ...]
    sees: bool = False


WAYS = (
    Way("digitscapes alone", ("digitscapes",)),
    Way("cifar10 alone", ("cifar10",)),
    Way("both", ("digitscapes", "cifar10")),
    Way("both, sees images", ("digitscapes", "cifar10"), sees=True),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cifar10", help="the folder of its parquet files, or cifar10")
    parser.add_argument("--start", default="general-embedded")
    parser.add_argument("--steps", type=int, default=400, help="on each data set")
    parser.add_argument("--adapt-steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    compile_gradients()
    seen = {"digitscapes": embedded(), "cifar10": load_data(options.cifar10, image_size=16)}
    unseen = {"digits": digits(), "shapes": shapes()}
    rows = []
    for way in WAYS:
        found = [_figures(way, seed, seen, unseen, options) for seed in range(options.seeds)]
        rows.append((way.name, *(_spread([each[name] for each in found]) for name in found[0])))
    write_table(
        "multi_task",
        "One hypernetwork for several data sets",
        ("trained on", *(f"{name}, zero-shot" for name in seen),
         *(f"{name}, adapted {when}" for name in unseen for when in ("head alone", "further"))),
        rows,
        [
            f"From {options.start}, {options.steps} steps on each data set (meta-batch 8 of the "
            "mixture, 32 images, rate 0.001 that falls twice), those of two data sets in turn. "
            "zero-shot: mean accuracy of 32 held-out architectures of the mixture on 512 "
            "validation images; of a data set that was not trained on, from the start's class "
            "head. adapted: to DARTS cells (8 channels, 5 cells) and images that no training saw, "
            f"16 held-out cells; the first {HEAD_STEPS} steps train a fresh class head alone, "
            f"further: the highest of {options.adapt_steps} steps. digits: scikit-learn's (10 "
            "classes); shapes: five drawn shapes. Mean and least to most over "
            f"{options.seeds} seeds of training and adaptation.",
        ],
    )  # fmt: skip


def _figures(
    way: Way,
    seed: int,
    seen: dict[str, ImageData],
    unseen: dict[str, ImageData],
    options: argparse.Namespace,
) -> dict[str, float]:
    began = time.monotonic()
    trained = _train(way, [seen[name] for name in way.trained_on], seed, options)
    settings = TrainSettings()
    result = {}
    for name, data in seen.items():
        graphs = held_out_graphs(Mixture(), data, settings)
        ghn = trained.for_data(data)
        result[name] = held_out_accuracy(ghn, graphs, data, settings, CPU)
    for name, data in unseen.items():
        adapted = adapt(
            trained.for_data(data), load_space("darts"), data, steps=options.adapt_steps, seed=seed,
            device="cpu", workers=1,
        )  # fmt: skip
        history = adapted.info.training["history"]
        result[f"{name}, head"] = max(h["held_out"] for h in history if h["step"] <= HEAD_STEPS)
        result[name] = max(h["held_out"] for h in history)
    told = ", ".join(f"{name} {percent(value)}" for name, value in result.items())
    print(f"{way.name}, seed {seed}: {told} in {time.monotonic() - began:.0f} s", flush=True)
    return result


def _train(
    way: Way, sets: Sequence[ImageData], seed: int, options: argparse.Namespace
) -> Conditioned:
    torch.manual_seed(seed)
    start = load_ghn(options.start)
    ghn = Conditioned(start)
    trained = ghn.parameters() if way.sees else start.parameters()
    steps = options.steps * len(sets)
    settings = TrainSettings(steps=steps, batch_size=32, network_clip=0.5, seed=seed)
    optimizer = torch.optim.Adam(
        trained, settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = rate_schedule(optimizer, steps)
    metas = MetaBatches(
        sets[0].image_shape, start.config, seed, range(settings.meta_batch), False, Mixture().sample
    )
    batches = [
        random_batches(data.train, settings.batch_size, seed=seed, device=CPU, mean=data.mean,
                       std=data.std, mirror=data.mirror, shift=settings.shift)
        for data in sets
    ]  # fmt: skip
    draw = torch.Generator().manual_seed(seed)
    for step in range(steps):
        data = sets[step % len(sets)]
        images, labels = next(batches[step % len(sets)])
        if way.sees:
            chosen = torch.randint(len(data.train), (LOOKED_AT,), generator=draw)
            ghn.images = data.train.select(chosen).images
        compute_gradients(ghn, metas[step], images, labels, settings)
        norm = nn.utils.clip_grad_norm_(ghn.parameters(), settings.gradient_clip)
        if torch.isfinite(norm):
            optimizer.step()
        schedule.step()
    return ghn


def digits() -> ImageData:
    """The handwritten digits of scikit-learn, 8x8, at 16x16."""
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    large = nn.functional.interpolate(images, size=(16, 16), mode="bilinear").clamp(0, 1)
    return _data(large.expand(-1, 3, -1, -1), torch.tensor(found.target), "digits", 10)


def shapes(count: int = 2000, seed: int = 0) -> ImageData:
    """Disc, square, ring, cross and stripes of any colour on a noisy ground of another."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 5
    images = np.empty((count, 3, 16, 16), dtype=np.float32)
    rows, columns = np.mgrid[0:16, 0:16]
    for image, label in zip(images, labels, strict=True):
        x, y = rows - rng.uniform(6, 9), columns - rng.uniform(6, 9)
        size, far = rng.uniform(3.5, 6), np.hypot(x, y)
        inside = (
            far < size,
            (abs(x) < size * 0.85) & (abs(y) < size * 0.85),
            (far < size) & (far > size * 0.55),
            ((abs(x) < size * 0.35) | (abs(y) < size * 0.35)) & (far < size * 1.2),
            (np.sin(x * np.pi / 2) > 0) & (far < size * 1.1),
        )[label]
        colours = rng.uniform(0, 1, (2, 3, 1, 1))
        image[:] = np.where(inside, colours[0], colours[1]) + rng.normal(0, 0.15, image.shape)
    return _data(torch.tensor(images).clamp(0, 1), torch.tensor(labels), "shapes", 5)


def _data(images: Tensor, labels: Tensor, name: str, classes: int) -> ImageData:
    """Three quarters to train on, the others to validate on."""
    order = torch.tensor(random.Random(0).sample(range(len(images)), len(images)))
    cut = 3 * len(order) // 4
    parts = [TensorDataset(images[part], labels[part]) for part in (order[:cut], order[cut:])]
    names = [str(number) for number in range(classes)]
    return ImageData.from_datasets(*parts, classes=names, name=name, mirror=False)


def _spread(values: Sequence[float]) -> str:
    return f"{percent(float(np.mean(values)))} ({percent(min(values))} to {percent(max(values))})"


if __name__ == "__main__":
    main()
