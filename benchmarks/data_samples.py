"""Draw samples of a data set: a row for each class, in results/data_samples.png.

    python benchmarks/data_samples.py [--data embedded] [--columns 16]

Only train images are shown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import torch

from ghnas.data import ImageData, load_data

matplotlib.use("Agg")
import matplotlib.pyplot as plt

RESULTS = Path(__file__).parents[1] / "results"


def sample_grid(data: ImageData, columns: int) -> torch.Tensor:
    """The first train images of each class side by side: uint8 (classes * H, columns * W, C)."""
    channels, height, width = data.image_shape
    rows = []
    for label in range(data.num_classes):
        images = data.train.images[data.train.labels == label][:columns]
        row = torch.full((columns, channels, height, width), 255, dtype=torch.uint8)
        row[: len(images)] = images
        rows.append(row.permute(2, 0, 3, 1).reshape(height, columns * width, channels))
    return torch.cat(rows)


def draw(data: ImageData, columns: int, path: Path) -> None:
    grid = sample_grid(data, columns).numpy()
    _, height, width = data.image_shape
    figure, axes = plt.subplots(figsize=(0.6 * columns + 1.2, 0.6 * data.num_classes + 0.6))
    axes.imshow(grid, interpolation="nearest")
    middles = [height * (label + 0.5) - 0.5 for label in range(data.num_classes)]
    axes.set_yticks(middles, data.classes)
    axes.set_xticks([])
    axes.set_title(f"{data.name}: {len(data.train):,} train images of {width} x {height} pixels")
    axes.tick_params(length=0)
    axes.set_frame_on(False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw samples of a data set.")
    parser.add_argument("--data", default="embedded")
    parser.add_argument("--columns", type=int, default=16)
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "data_samples.png"
    draw(load_data(options.data), options.columns, path)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
