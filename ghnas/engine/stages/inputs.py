"""The hypernetwork and the images that a zero-shot run was started with, found again."""

from __future__ import annotations

from pathlib import Path

import torch

from ghnas.data import ImageData, load_data
from ghnas.data.decoding import Progress
from ghnas.engine.objectives import ZeroShot
from ghnas.engine.run import Run
from ghnas.ghn.checkpoint import find_ghn, load_ghn
from ghnas.ghn.model import GHN
from ghnas.utils.errors import UserError


def load_inputs(run: Run, progress: Progress | None = None) -> tuple[GHN, ImageData]:
    """The hypernetwork and the data set of a run.

    Args:
        run: A zero-shot run.
        progress: Called with the images read so far and their number.

    Raises:
        UserError: If the run is none, or one of the two is missing or has changed.
    """
    sources = run.manifest.sources
    if sources.data is None or sources.ghn is None:
        raise UserError(
            f"run {run.name} does not know where its images and its hypernetwork are: it was not "
            "started by `ghnas search`; use ghnas.search and ghnas.finetune in Python"
        )
    data = load_data(sources.data, image_size=run.manifest.image_shape[-1], progress=progress)
    path = Path(sources.ghn)
    if not path.exists():  # the package may have moved since
        path = find_ghn(run.space.name, data.name)
    ghn = load_ghn(path)
    run.check_inputs(ghn_sha256=ghn.info.sha256, data_fingerprint=data.fingerprint)
    return ghn, data


def zero_shot(
    run: Run, ghn: GHN, data: ImageData, device: torch.device, workers: int | None = None
) -> ZeroShot:
    """The objective that a run was started with; the arguments are those of `ZeroShot`."""
    settings = run.manifest.objective
    return ZeroShot(
        ghn,
        data,
        objectives=run.manifest.objectives,
        images=settings["images"],
        batch_size=settings["batch_size"],
        keep=settings["keep"],
        device=device,
        workers=workers,
    )
