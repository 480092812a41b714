"""The second stage of `ghnas search`: its short list."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ghnas.cli import options
from ghnas.cli.terminal import Pace, meter, say

if TYPE_CHECKING:
    from ghnas.engine.objectives import ZeroShot
    from ghnas.engine.run import Run


SIZES = ("cells", "channels")
"""Settings of a skeleton that say how large a network is."""


def refine_shortlist(
    out: Console,
    run: Run,
    objective: ZeroShot,
    results: Path,
    count: int,
    steps: int,
    cells: int | None,
) -> None:
    """Train the best candidates for a moment, with a meter."""
    from ghnas.engine.stages.short_list import short_list_job, train_short_list
    from ghnas.reports.tables import describe_skeleton

    job = short_list_job(run, objective, steps, cells)
    skeleton = job.space.skeleton
    size = describe_skeleton({key: skeleton[key] for key in SIZES if key in skeleton})
    say(out, f"training the {count} best for {steps} steps each: {size}")
    try:
        with meter(out, "trained") as shown:
            pace = Pace()
            train_short_list(
                run, job, count,
                lambda done, total: shown.update(done, total, "", pace.rate(done)),
            )  # fmt: skip
    except KeyboardInterrupt:
        say(out, f"\ninterrupted: what was trained is kept in {run.path}")
        again = f"{run.name} --refine {count} --refine-steps {steps}"
        depth = f" --refine-cells {cells}" if cells else ""
        say(out, f"go on with: ghnas search --resume {again}{depth}{results_option(results)}")
        raise


def results_option(results: Path) -> str:
    """The option that finds the results folder again, for a command to be printed."""
    return "" if results == options.DEFAULT_RESULTS else f" --results {shlex.quote(str(results))}"
