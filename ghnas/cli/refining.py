"""The second stage of `ghnas search`: its short list."""

from __future__ import annotations

import shlex
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ghnas.cli import options
from ghnas.cli.terminal import Pace, meter, say

if TYPE_CHECKING:
    import torch

    from ghnas.cli.loading import Prepared
    from ghnas.engine.runs import Run


SIZES = ("cells", "channels")
"""Settings of a skeleton that say how large a network is."""


def refine_shortlist(
    out: Console,
    run: Run,
    prepared: Prepared,
    device: torch.device,
    results: Path,
    count: int,
    steps: int,
    cells: int | None,
) -> None:
    """Train the best candidates for a moment, with a meter."""
    from ghnas.data import random_batches
    from ghnas.engine.short_list import BATCH, RefineJob, refine_best
    from ghnas.reports.tables import describe_skeleton
    from ghnas.spaces import parse_space
    from ghnas.utils.devices import cores

    manifest, data, space = run.manifest, prepared.data, run.space
    cells = cells or parse_space(manifest.space_text, manifest.space).skeleton.get("cells")
    if isinstance(cells, int):
        space = space.with_skeleton(cells=cells)
    batches = random_batches(
        data.train, BATCH, seed=manifest.seed, device=device, mean=data.mean, std=data.std,
        mirror=data.mirror, shift=1,
    )  # fmt: skip
    checks = prepared.batches(manifest.score_images, manifest.score_batch, device)
    job = RefineJob(space, list(islice(batches, steps)), checks, device, cores(), manifest.seed)
    size = describe_skeleton({key: space.skeleton[key] for key in SIZES if key in space.skeleton})
    say(out, f"training the {count} best for {steps} steps each: {size}")
    try:
        with meter(out, "trained") as shown:
            pace = Pace()
            refine_best(
                run, job, count,
                lambda done, total: shown.update(done, total, "", pace.rate(done)),
            )  # fmt: skip
    except KeyboardInterrupt:
        say(out, f"\ninterrupted: what was trained is kept in {run.path}")
        again = f"{run.name} --refine {count} --refine-steps {steps}"
        depth = f" --refine-cells {cells}" if isinstance(cells, int) else ""
        say(out, f"go on with: ghnas search --resume {again}{depth}{results_option(results)}")
        raise


def results_option(results: Path) -> str:
    """The option that finds the results folder again, for a command to be printed."""
    return "" if results == options.DEFAULT_RESULTS else f" --results {shlex.quote(str(results))}"
