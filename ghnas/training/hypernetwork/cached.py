"""Adapted hypernetworks that are kept in the user's cache, each made once."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ghnas.ghn.checkpoint import load_ghn
from ghnas.ghn.library import KnownGHN, Task, cached_for, place_for, prune, shipped
from ghnas.training.hypernetwork.adaptation import adapt_file, adaptation
from ghnas.training.hypernetwork.course import UNKNOWN
from ghnas.training.hypernetwork.loop import TrainProgress
from ghnas.utils.files import locked_in_turn


def adapt_cached(
    task: Task,
    base: KnownGHN,
    device: torch.device,
    report: Callable[[TrainProgress], None],
    waiting: Callable[[], None],
    *,
    seconds: float | None = None,
    steps: int = UNKNOWN,
    workers: int | None = None,
) -> KnownGHN:
    """Adapt a hypernetwork to a task and keep the result in the user's cache.

    An interrupted adaptation goes on where its state was last saved. Of two processes with the same
    task the second waits for the first and takes its result.

    Args:
        task: What to adapt to.
        base: What to start from.
        device: Where.
        report: As in `adapt_file`.
        waiting: Called once if another process is at it.
        seconds: To train for; None: for so many `steps`.
        steps: As said.
        workers: As in `adapt`.

    Raises:
        UserError: As `adapt_file`.
    """
    path = place_for(task, base)
    with locked_in_turn(path.with_name(path.name + ".lock"), waiting):
        found = cached_for(task, shipped(), seconds or 0.0)
        if found is not None:
            return found
        about = {"name": base.name, "sha256": base.sha256, "where": base.where}
        job = adaptation(
            base.path,
            load_ghn(base.path),
            task.space,
            task.data,
            path,
            device=device,
            seconds=seconds,
            steps=steps,
            workers=workers,
            about={"task": task.fingerprint, "base": about},
        )
        info = adapt_file(job, report)
        prune(keep=path)
    return KnownGHN(path.stem, path, "cache", info)
