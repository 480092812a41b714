"""Augmentation of training images by torchvision's transforms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch

from ghnas.utils.errors import UserError

Augment = Literal["shift", "crop", "randaugment"]
"""Images moved by a pixel, random resized crops, or crops with RandAugment."""
RANDAUGMENT_OPERATIONS = 2
"""On an image, as its authors found best for ResNet-50 on ImageNet."""


def check_augment(name: str) -> Augment:
    """The name of an augmentation.

    Raises:
        UserError: If it is none.
    """
    known: dict[str, Augment] = {item: item for item in get_args(Augment)}
    if name not in known:
        raise UserError(f"unknown augmentation {name!r}: use {', '.join(known)}")
    return known[name]


@dataclass(frozen=True)
class Crops:
    """Random resized crops (Szegedy et al., CVPR 2015) and RandAugment (Cubuk et al., NeurIPS
    2020), as `torchvision.transforms.v2` has them.

    Args:
        seed: A step's crops depend on seed and step alone.
        mirror: Turn half of the images left-right.
        operations: Of RandAugment on each image; 0: it is left out.
    """

    seed: int
    mirror: bool
    operations: int = 0

    def of(self, images: Iterable[Any], size: int, step: int) -> list[torch.Tensor]:
        """Crops of a step's images, PIL images or uint8 tensors (C, H, W), in their order: uint8
        (C, size, size)."""
        from torchvision.transforms import v2

        parts = [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(0.5 * self.mirror)]
        if self.operations:
            parts.append(v2.RandAugment(self.operations))
        transform = v2.Compose([*parts, v2.PILToTensor()])
        state = np.random.SeedSequence([self.seed % 2**64, 2, step]).generate_state(1, np.uint64)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(state[0]) >> 1)
            return [transform(image) for image in images]


def crops_of(augment: Augment, seed: int, mirror: bool) -> Crops | None:
    """The random crops that an augmentation asks for; None if it asks for none.

    Args:
        augment: Its name.
        seed, mirror: As in `Crops`; mirrored where the data allows it.
    """
    if augment == "shift":
        return None
    return Crops(seed, mirror, RANDAUGMENT_OPERATIONS if augment == "randaugment" else 0)
