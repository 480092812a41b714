"""The objective that a run was started with, its images and hypernetwork found again."""

from __future__ import annotations

from pathlib import Path

import torch

from ghnas.data import ImageData, load_data
from ghnas.data.dataset import Progress
from ghnas.engine.objectives import ProxyScore, ZeroShot
from ghnas.engine.run import MANIFEST, Run
from ghnas.engine.storage import writing
from ghnas.ghn.checkpoint import find_ghn, load_ghn
from ghnas.ghn.model import GHN
from ghnas.utils.errors import UserError
from ghnas.utils.files import write_atomically
from ghnas.utils.processes import Pool

KEPT_GHN = "ghn.safetensors"
"""A copy of the hypernetwork, where its file belongs to a cache from which it may be removed."""


def keep_ghn(run: Run, path: Path) -> None:
    """Put a copy of a hypernetwork's file into the folder of a run that was started with it."""
    with writing(run.path):
        write_atomically(run.path / KEPT_GHN, path.read_bytes())


def load_run_ghn(run: Run, data: str) -> GHN | None:
    """The hypernetwork of a run, None if it uses none.

    Args:
        run: Of `ghnas search`.
        data: The name of its data set.

    Raises:
        UserError: If it is missing.
    """
    if not run.manifest.uses_ghn or run.manifest.sources.ghn is None:
        return None
    kept = run.path / KEPT_GHN
    path = kept if kept.is_file() else Path(run.manifest.sources.ghn)
    if not path.exists():  # the package may have moved since
        path = find_ghn(run.space.name, data)
    return load_ghn(path)


def load_inputs(run: Run, progress: Progress | None = None) -> tuple[GHN | None, ImageData]:
    """The hypernetwork of a run, None if it uses none, and its data set.

    Args:
        run: Of `ghnas search`.
        progress: Called with the images read so far and their number.

    Raises:
        UserError: If the run is none, or one of the two is missing or has changed.
    """
    sources, uses_ghn = run.manifest.sources, run.manifest.uses_ghn
    if sources.data is None or (uses_ghn and sources.ghn is None):
        raise UserError(
            f"run {run.name} does not know where its images and its hypernetwork are: it was not "
            "started by `ghnas search`; use ghnas.search and ghnas.finetune in Python"
        )
    data = load_data(sources.data, image_size=run.manifest.image_shape[-1], progress=progress)
    ghn = load_run_ghn(run, data.name)
    run.check_inputs(ghn_sha256=ghn.info.sha256 if ghn else "", data_fingerprint=data.fingerprint)
    return ghn, data


def objective_of(
    run: Run,
    ghn: GHN | None,
    data: ImageData,
    device: torch.device,
    workers: int | None = None,
    pool: Pool | None = None,
) -> ZeroShot | ProxyScore:
    """The objective that a run was started with.

    Args:
        run: Of `ghnas search`.
        ghn, data: Of `load_inputs`.
        device, workers, pool: As in `ZeroShot`.
    """
    names, settings = run.manifest.objectives, run.manifest.objective
    for key in ("images", "proxy_seed") if ghn is None else ("images", "batch_size", "keep"):
        if key not in settings:
            raise UserError(f"{run.path / MANIFEST}: damaged, key 'objective' has no {key}")
    if ghn is None:
        return ProxyScore(
            data,
            objectives=names,
            images=settings["images"],
            seed=settings["proxy_seed"],
            device=device,
            workers=workers,
            pool=pool,
            latency=run.manifest.latency,
        )
    return ZeroShot(
        ghn,
        data,
        objectives=names,
        images=settings["images"],
        batch_size=settings["batch_size"],
        keep=settings["keep"],
        device=device,
        workers=workers,
        pool=pool,
        latency=run.manifest.latency,
    )
