"""Batches of normalised images, for training and for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Protocol

import numpy as np
import torch

from ghnas.data.augmentation import Crops
from ghnas.data.dataset import ImageData, LabelledImages, mixed_order

Batch = tuple[torch.Tensor, torch.Tensor]


class Batches(Protocol):
    """Batches that can be counted, and gone through more than once; a list is one."""

    def __len__(self) -> int:
        """Their number."""

    def __iter__(self) -> Iterator[Batch]:
        """From the first one."""


@dataclass(frozen=True)
class RandomBatches:
    """The first batches of `random_batches`, made each time they are gone through: trainings of
    many epochs need no more memory than the images.

    Args:
        data: Its training images, normalised with its mean and std, mirrored where it says so.
        batch_size: Images of each.
        steps: Their number.
        seed: Of order, shifts and mirroring.
        device: Where they are made.
        shift: Most pixels by which an image is moved each way.
    """

    data: ImageData
    batch_size: int
    steps: int
    seed: int
    device: torch.device | str
    shift: int = 1

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        data = self.data
        batches = random_batches(
            data.train, self.batch_size, seed=self.seed, device=self.device,
            mean=data.mean, std=data.std, mirror=data.mirror, shift=self.shift,
        )  # fmt: skip
        return islice(batches, self.steps)


def random_batches(
    split: LabelledImages,
    batch_size: int,
    *,
    seed: int,
    device: torch.device | str,
    mean: Sequence[float],
    std: Sequence[float],
    mirror: bool = False,
    shift: int = 0,
    start_step: int = 0,
    crops: Crops | None = None,
) -> Iterator[Batch]:
    """Endless training batches: images float32 (B, C, H, W) in channels_last, labels int64 (B,).

    Every epoch is shuffled anew and its incomplete last batch left out; a split smaller than
    batch_size gives batches of all its images. mirror: turn half of the images left-right.
    shift: move each image by up to so many pixels each way, repeating its edge.
    crops: random crops instead, see `ghnas.data.augmentation.Crops`.
    A batch depends on seed and step alone, not on the device or on the batches before it:
    start_step goes on where an interrupted training stopped.
    Raises ValueError for an empty split, or a batch_size, shift or start_step out of range.
    """
    if batch_size < 1 or shift < 0 or start_step < 0:
        raise ValueError("batch_size must be 1 or more, shift and start_step 0 or more")
    if len(split) == 0:
        raise ValueError("cannot draw batches from an empty split")
    split, normalise = split.to(device), _normaliser(mean, std, device)
    batch_size = min(batch_size, len(split))
    steps_per_epoch = len(split) // batch_size

    def chosen() -> Iterator[torch.Tensor]:
        order, order_epoch = torch.empty(0, dtype=torch.int64), -1
        for step in count(start_step):
            epoch, place = divmod(step, steps_per_epoch)
            if epoch != order_epoch:
                order = torch.randperm(len(split), generator=_generator(seed, 0, epoch))
                order, order_epoch = order.to(split.labels.device), epoch
            yield order[place * batch_size : (place + 1) * batch_size]

    def batches() -> Iterator[Batch]:
        for step, (read, labels) in zip(count(start_step), split.read(chosen()), strict=False):
            images = read.to(device)
            if mirror or shift:
                images = _moved(images, mirror, shift, _generator(seed, 1, step))
            yield normalise(images), labels.to(device)

    def cropped(crops: Crops) -> Iterator[Batch]:
        steps = zip(count(start_step), chosen(), strict=False)
        for images, labels in split.read_cropped(steps, crops):
            yield normalise(images.to(device)), labels.to(device)

    return cropped(crops) if crops else batches()


def evaluation_batches(
    split: LabelledImages,
    batch_size: int,
    *,
    device: torch.device | str,
    mean: Sequence[float],
    std: Sequence[float],
) -> list[Batch]:
    """All images once, in a fixed order: float32 (B, C, H, W) in channels_last, int64 (B,).

    Every batch has the split's class shares as nearly as can be, and the batches' sizes, at most
    batch_size, differ by one at most: networks that normalise by the statistics of a batch score
    at chance on one that is sorted by class, and badly on a small remainder.
    """
    return list(each_once(split, batch_size, device=device, mean=mean, std=std))


def each_once(
    split: LabelledImages,
    batch_size: int,
    *,
    device: torch.device | str,
    mean: Sequence[float],
    std: Sequence[float],
) -> Iterator[Batch]:
    """The batches of `evaluation_batches` one after the other, for splits of any size."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
    order = torch.from_numpy(mixed_order(split.labels.cpu().numpy())).to(split.labels.device)
    normalise = _normaliser(mean, std, device)
    parts = order.tensor_split(-(-len(order) // batch_size)) if len(order) else ()
    for images, labels in split.read(parts):
        yield normalise(images.to(device)), labels.to(device)


def _normaliser(
    mean: Sequence[float], std: Sequence[float], device: torch.device | str
) -> Callable[[torch.Tensor], torch.Tensor]:
    """uint8 images (B, C, H, W) -> (images / 255 - mean) / std, float32 in channels_last."""
    middle, spread = (torch.tensor(values, dtype=torch.float64) for values in (mean, std))
    scale = (1 / (255 * spread)).float().view(1, -1, 1, 1).to(device)
    offset = (middle / spread).float().view(1, -1, 1, 1).to(device)

    def normalise(images: torch.Tensor) -> torch.Tensor:
        return images.to(torch.float32, memory_format=torch.channels_last) * scale - offset

    return normalise


def _generator(seed: int, stream: int, step: int) -> torch.Generator:
    """A CPU generator for one epoch or step: the numbers are the same whatever the device."""
    state = np.random.SeedSequence([seed % 2**64, stream, step]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)


def _moved(images: torch.Tensor, mirror: bool, shift: int, random: torch.Generator) -> torch.Tensor:
    """Each image shifted and perhaps mirrored: one gather of uint8 (B, C, H, W)."""
    device, (count, channels, height, width) = images.device, images.shape
    across, down = torch.randint(-shift, shift + 1, (2, count, 1), generator=random).to(device)
    rows = (torch.arange(height, device=device) + down).clamp(0, height - 1)
    columns = (torch.arange(width, device=device) + across).clamp(0, width - 1)
    if mirror:
        turned = (torch.rand(count, 1, generator=random) < 0.5).to(device)
        columns = torch.where(turned, width - 1 - columns, columns)
    image = torch.arange(count, device=device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=device).view(1, -1, 1, 1)
    return images[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
