"""Detection with a backbone of predicted weights, against Kaiming initialisation (the transfer row
of the GHN-2 paper, table 6, at our scale).

The detector is torchvision's FCOS on a ResNet-18 with a feature pyramid, trained with the losses of
torchvision on scenes that are generated here. The learning rate of each start is the best on the
validation scenes with a seed of its own; the figures are of other seeds, on test scenes.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from common import percent, write_table
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.detection import FCOS
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import box_iou
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.transforms.functional import pil_to_tensor

from ghnas import load_ghn
from ghnas.ghn.conditioning import condition
from ghnas.ghn.model import GHN

SIZE = 64
"""Pixels of a scene each way."""
SHAPES = ("ellipse", "rectangle", "triangle", "cross")
RATES = (0.003, 0.01, 0.03, 0.1)
BATCH = 8
OVERLAP = 0.5
"""Least IoU of a detection with what it finds."""
Boxes = dict[str, Tensor]
"""`boxes` (N, 4) as x0, y0, x1, y1 in pixels, and `labels` (N,) from 0 on."""


@dataclass(frozen=True)
class Scenes:
    """Images (3, SIZE, SIZE) in [0, 1] and what is on each."""

    images: list[Tensor]
    targets: list[Boxes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ghns", nargs="+", default=["general-cifar10", "general-embedded"])
    parser.add_argument("--train", type=int, default=400, help="scenes")
    parser.add_argument(
        "--held-out", type=int, default=200, help="scenes to choose on, and to test"
    )
    parser.add_argument("--steps", default="40,100", help="where accuracy is measured")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    train, chosen_on, test = (
        make_scenes(count, name)
        for count, name in (
            (options.train, "train"),
            (options.held_out, "validation"),
            (options.held_out, "test"),
        )
    )
    checks = [int(step) for step in options.steps.split(",")]
    starts: dict[str, GHN | None] = {"Kaiming initialisation": None}
    starts |= {name: load_ghn(name) for name in options.ghns}
    rows = []
    for name, ghn in starts.items():
        tried = {rate: run(ghn, train, chosen_on, rate, 0, checks)[-1] for rate in RATES}
        rate = max(tried, key=lambda item: tried[item])
        found = np.array(
            [run(ghn, train, test, rate, seed, checks) for seed in range(1, options.seeds + 1)]
        )
        both = zip(found.mean(axis=0), found.std(axis=0, ddof=1), strict=True)
        rows.append((name, f"{rate:g}", *(f"{percent(m)} +- {percent(s)}" for m, s in both)))
        print(*rows[-1], {r: round(v, 3) for r, v in tried.items()}, file=sys.stderr, flush=True)
    write_table(
        "transfer",
        "Detection: a backbone with predicted weights, against Kaiming initialisation",
        ("backbone", "rate", *(f"mAP@50 after {step} steps" for step in checks)),
        rows,
        [
            f"FCOS of torchvision on a ResNet-18 with a pyramid of 64 channels; {options.train} "
            f"generated scenes of {SIZE}x{SIZE} pixels with one to three shapes of "
            f"{len(SHAPES)} classes on a textured ground, batch {BATCH}, SGD with momentum and a "
            f"cosine rate; mean and standard deviation of {options.seeds} seeds on "
            f"{options.held_out} test scenes. Rates tried: {', '.join(map(str, RATES))} (seed 0, "
            f"{options.held_out} validation scenes). The ResNet-18 has its weights predicted and, "
            "as they are tiled, noise 3e-5 added (`ghnas predict --noise`); the pyramid and the "
            "heads start from torchvision's own initialisation in every row. Images are normalised "
            "as those of the hypernetwork were; without one, as torchvision does by default."
        ],
    )


def make_scenes(count: int, part: str) -> Scenes:
    """Scenes with one to three shapes; the same for the same count and part."""
    made = [_scene(random.Random(f"{part}:{number}")) for number in range(count)]
    return Scenes([image for image, _ in made], [target for _, target in made])


def _scene(rng: random.Random) -> tuple[Tensor, Boxes]:
    """Shapes that do not overlap, on smooth patches of colour, with some lines in between."""
    patches = Image.new("RGB", (5, 5))
    patches.putdata([_colour(rng, 0, 150) for _ in range(25)])
    image = patches.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(3):
        ends = [rng.randrange(SIZE) for _ in range(4)]
        draw.line(ends, fill=_colour(rng, 0, 255))
    boxes: list[tuple[int, int, int, int]] = []
    labels = []
    for _ in range(rng.randint(1, 3)):
        width, height = rng.randint(12, 28), rng.randint(12, 28)
        left, top = rng.randint(1, SIZE - width - 2), rng.randint(1, SIZE - height - 2)
        box = (left, top, left + width, top + height)
        if any(_meet(box, other) for other in boxes):
            continue
        label = rng.randrange(len(SHAPES))
        _draw(draw, SHAPES[label], box, _colour(rng, 90, 255))
        boxes.append(box)
        labels.append(label)
    tensor = pil_to_tensor(image).float() / 255
    tensor += 0.03 * torch.randn(tensor.shape, generator=_generator(rng.randrange(2**31)))
    target = {"boxes": torch.tensor(boxes, dtype=torch.float), "labels": torch.tensor(labels)}
    return tensor.clamp(0, 1), target


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _colour(rng: random.Random, low: int, high: int) -> tuple[int, int, int]:
    return rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)


def _meet(one: Sequence[int], other: Sequence[int]) -> bool:
    apart = one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]
    return not apart


def _draw(
    draw: ImageDraw.ImageDraw,
    shape: str,
    box: tuple[int, int, int, int],
    colour: tuple[int, int, int],
) -> None:
    left, top, right, bottom = box
    middle, centre = (left + right) // 2, (top + bottom) // 2
    if shape == "ellipse":
        draw.ellipse(box, fill=colour)
    elif shape == "rectangle":
        draw.rectangle(box, fill=colour)
    elif shape == "triangle":
        draw.polygon([(left, bottom), (right, bottom), (middle, top)], fill=colour)
    else:
        across, down = (right - left) // 6, (bottom - top) // 6
        draw.rectangle((left, centre - down, right, centre + down), fill=colour)
        draw.rectangle((middle - across, top, middle + across, bottom), fill=colour)


def make_detector(ghn: GHN | None, seed: int) -> nn.Module:
    """An FCOS; with a hypernetwork its ResNet-18 has predicted weights, else Kaiming's."""
    torch.manual_seed(seed)
    body = resnet18(weights=None)  # from He's initialisation
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    if ghn is not None:
        predicted = condition(ghn.predict(body, (3, SIZE, SIZE), keep_head=True), seed=seed)
        body.load_state_dict(predicted, strict=False)
        mean, std = list(ghn.info.mean), list(ghn.info.std)
    pyramid = BackboneWithFPN(
        body,
        {"layer2": "0", "layer3": "1", "layer4": "2"},
        [128, 256, 512],
        out_channels=64,
        extra_blocks=LastLevelP6P7(64, 64),
    )
    return FCOS(
        pyramid, len(SHAPES), min_size=SIZE, max_size=SIZE, image_mean=mean, image_std=std,
        score_thresh=0.05, detections_per_img=20,
    )  # fmt: skip


def run(
    ghn: GHN | None, train: Scenes, held_out: Scenes, rate: float, seed: int, checks: Sequence[int]
) -> list[float]:
    """Train a detector; mean average precision on held-out scenes after so many steps each."""
    began, detector = time.monotonic(), make_detector(ghn, seed)
    rng, order, result = random.Random(seed), list(range(len(train.images))), []
    optimizer = torch.optim.SGD(detector.parameters(), rate, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, checks[-1])
    detector.train()
    for step in range(1, checks[-1] + 1):
        batch = rng.sample(order, BATCH)
        losses = detector([train.images[i] for i in batch], [train.targets[i] for i in batch])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(detector.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if step in checks:
            result.append(mean_average_precision(detector, held_out))
    spent = time.monotonic() - began
    print(f"rate {rate:g} seed {seed}: {result} in {spent:.0f} s", file=sys.stderr, flush=True)
    return result


@torch.no_grad()
def mean_average_precision(detector: nn.Module, scenes: Scenes) -> float:
    """Mean over the classes of the area under the curve of precision and recall, a detection being
    right where its IoU with an object of its class that no better one found is `OVERLAP`."""
    detector.eval()
    found: list[Boxes] = []
    for first in range(0, len(scenes.images), 50):
        found += detector(scenes.images[first : first + 50])
    detector.train()
    return float(
        np.mean([_average_precision(found, scenes.targets, label) for label in range(len(SHAPES))])
    )


def _average_precision(found: Sequence[Boxes], targets: Sequence[Boxes], label: int) -> float:
    scores, right, there = [], [], 0
    for detection, target in zip(found, targets, strict=True):
        objects = target["boxes"][target["labels"] == label]
        there += len(objects)
        own = detection["labels"] == label
        free = torch.ones(len(objects), dtype=torch.bool)
        order = detection["scores"][own].argsort(descending=True)
        overlaps = box_iou(detection["boxes"][own][order], objects)
        for row, score in zip(overlaps, detection["scores"][own][order].tolist(), strict=True):
            match = (row * free).max(dim=0) if len(objects) else None
            hit = match is not None and float(match.values) >= OVERLAP
            if hit:
                free[match.indices] = False
            scores.append(score)
            right.append(hit)
    hits = np.array(right, dtype=float)[np.argsort(-np.array(scores), kind="stable")].cumsum()
    if not there or not len(hits):
        return 0.0
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(hits, prepend=0.0) * envelope).sum() / there)


if __name__ == "__main__":
    main()
