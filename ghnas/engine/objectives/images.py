"""What objectives have in common that score candidates on images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ghnas.architectures.architecture import Architecture
from ghnas.data import ImageData, evaluation_batches
from ghnas.engine.objectives.base import Objective
from ghnas.engine.trials import SIZES, Direction, Directions
from ghnas.ghn.model import GHN
from ghnas.scoring.evaluation import SCORE_BATCH, Batch
from ghnas.scoring.latency import LatencyTable
from ghnas.spaces import Space
from ghnas.utils.devices import cores, pick_device
from ghnas.utils.errors import UserError
from ghnas.utils.processes import LocalPool, Pool

SCORE_IMAGES = 512
"""Validation images that a network is scored on."""
SIZE_OBJECTIVES: Mapping[str, Direction] = dict.fromkeys(SIZES, "minimize")


class ImageObjective(Objective):
    """Scores batches of candidates on images; later stages of a run train on the same ones.

    Args:
        data: With the mean and std that its images are normalised with.
        names: Of the values.
        known: Directions by name.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        latency: What predicts how long a network takes; see `ghnas.latency_table`.
        workers: Processes on a CPU; default: one for each core.
        pool: Whose workers are used on a CPU, in place of this machine's processes.

    Raises:
        UserError: If there is no table of latencies for that objective, or a GPU is asked for with
            a pool.
    """

    ghn: GHN | None = None
    """Predicts weights, if there is one."""
    batch_size: int | None = None
    in_background = True
    images_at_a_time = SCORE_BATCH
    """Validation images that batch-norm sees together."""

    def __init__(
        self,
        data: ImageData,
        names: tuple[str, ...],
        known: Mapping[str, Direction],
        device: str | torch.device = "auto",
        workers: int | None = None,
        latency: LatencyTable | None = None,
        pool: Pool | None = None,
    ) -> None:
        if "latency" in names and latency is None:
            raise UserError(
                "objective 'latency' needs a table of latencies: give the objective "
                "latency=ghnas.latency_table(space)"
            )
        self.data = data
        self.names = names
        self.directions: Directions = tuple(known[name] for name in names)
        if pool is not None and device == "auto":
            device = "cpu"
        self.device = pick_device(device) if isinstance(device, str) else device
        if pool is not None and self.device.type != "cpu":
            raise UserError(f"the workers of a pool compute on CPUs, not on {self.device}")
        self.pool: Pool = pool or LocalPool(workers or cores())
        self.latency = latency

    def space_for(self, space: Space) -> Space:
        """The space for the data set's images."""
        return space.for_images(self.data.image_shape, self.data.num_classes)

    def describe(self) -> dict[str, Any]:
        known = {"data": self.data.name, "data_fingerprint": self.data.fingerprint}
        return known | ({"latency": self.latency.as_dict()} if self.latency else {})

    def _sizes(self, architecture: Architecture) -> dict[str, float]:
        """The values that need no images."""
        found = {"params": float(architecture.parameters), "flops": float(architecture.flops)}
        if "latency" in self.names and self.latency is not None:
            found["latency"] = self.latency.predict(architecture.graph)
        return found

    def batches(self, images: int = SCORE_IMAGES) -> list[Batch]:
        """Validation images, mixed by class and normalised; at most so many."""
        data = self.data
        return evaluation_batches(
            data.validation.take(images), self.images_at_a_time, device=self.device,
            mean=data.mean, std=data.std,
        )  # fmt: skip


def check_names(
    names: Sequence[str], known: Mapping[str, Direction], quality: str, example: str
) -> tuple[str, ...]:
    """The names of objectives, if they are known, different, and one is a quality.

    Args:
        names: What was asked for.
        known: All there are.
        quality: What must be among them, in words.
        example: One that it may be.

    Raises:
        UserError: Naming the objective that is wrong, and the known ones.
    """
    for name in names:
        if name not in known:
            raise UserError(f"unknown objective {name!r}; known are {', '.join(known)}")
        if names.count(name) > 1:
            raise UserError(f"objective {name!r} is named twice")
    if all(name in SIZES for name in names):
        raise UserError(
            f"the objectives must include {quality}, for example {example},params "
            "(the smallest architecture is not worth a search)"
        )
    return tuple(names)
