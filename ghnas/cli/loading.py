"""From what the command line says to spaces, images and hypernetworks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ghnas.cli.terminal import meter

if TYPE_CHECKING:
    import torch

    from ghnas.data import DataSet
    from ghnas.ghn.checkpoint import GHNInfo
    from ghnas.ghn.model import GHN
    from ghnas.scoring import Measure, Scorer
    from ghnas.space import Space

READY_MADE = ("embedded", "digitscapes", "cifar10")


def load_skeleton(name: str, cells: int | None, channels: int | None) -> Space:
    """A space with the skeleton settings that were given.

    Raises:
        UserError: If there is no such space, or it has no such setting.
    """
    from ghnas.space import load_space

    space = load_space(name)
    changes = {"cells": cells, "channels": channels}
    given = {key: value for key, value in changes.items() if value is not None}
    return space.with_skeleton(**given) if given else space


def data_source(spec: str) -> str:
    """What a run remembers of `--data`: a folder by its full path, so that it is found again."""
    folder = Path(spec).expanduser()
    return str(folder.resolve()) if spec not in READY_MADE and folder.is_dir() else spec


def load_images(out: Console, spec: str, image_size: int | None) -> DataSet:
    """A data set, with a meter while many files are read.

    Raises:
        UserError: If it cannot be found, read or used.
    """
    from ghnas.data import load_data

    with meter(out, "images") as shown:
        return load_data(spec, image_size=image_size, progress=shown.update)


@dataclass(frozen=True)
class Prepared:
    """What a search computes with."""

    space: Space
    data: DataSet
    ghn: GHN
    info: GHNInfo
    ghn_path: Path

    def scorer(
        self,
        score_images: int,
        score_batch: int,
        device: torch.device,
        measure: Measure | None = None,
    ) -> Scorer:
        """Scores candidates on so many validation images, mixed by class, a batch at a time."""
        from ghnas.data import evaluation_batches
        from ghnas.scoring import Scorer

        batches = evaluation_batches(
            self.data.validation.take(score_images),
            score_batch,
            device=device,
            mean=self.info.mean or self.data.mean,
            std=self.info.std or self.data.std,
        )
        return Scorer(self.ghn, batches, device, measure=measure)


def prepare(out: Console, space: Space, space_name: str, data: str, ghn: Path | None) -> Prepared:
    """Load the data set and the hypernetwork of a search, and make sure that they fit.

    Args:
        out: Where to show progress.
        space: The search space.
        space_name: What the user called it: a name or a file.
        data: The data set's name or folder.
        ghn: The hypernetwork's file; None takes the one that ships.

    Raises:
        UserError: If something is missing, damaged or does not fit, with what to do.
    """
    from ghnas.ghn.checkpoint import check_ghn, find_ghn, load_ghn, train_command

    train = train_command(space_name, data)
    if ghn is None:
        images = load_images(out, data, None)
        path = find_ghn(space.name, images.name, train)
        model, info = load_ghn(path)
    else:
        path = ghn
        model, info = load_ghn(path)
        images = load_images(out, data, info.image_shape[-1] if info.image_shape else None)
    check_ghn(info, space, images, train)
    return Prepared(space, images, model, info, path)
