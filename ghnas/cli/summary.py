"""What `ghnas search` says at its end."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ghnas.cli.objectives import SHORT_LIST
from ghnas.cli.terminal import meter, say
from ghnas.cli.trainings import results_option
from ghnas.utils.errors import UserError

if TYPE_CHECKING:
    from ghnas.engine.objectives import ImageObjective
    from ghnas.engine.run import Run
    from ghnas.engine.trials import Trial
    from ghnas.ghn.model import GHN
    from ghnas.spaces import Space

BEST = 10


def far_from_training(best: Sequence[Trial], ghn: GHN | None, space: Space) -> int | None:
    """How many of the best are far from what the hypernetwork was trained on, if that is known."""
    from ghnas.training.hypernetwork.distance import training_distances

    architectures = [item.architecture for item in best]
    with contextlib.suppress(UserError):  # it was trained for another space that does not ship
        if ghn and architectures:
            return sum(item.far for item in training_distances(ghn, architectures, space))
    return None


def measure_latencies(out: Console, run: Run, objective: ImageObjective) -> None:
    """Measure the best, where the search goes by a predicted latency."""
    from ghnas.engine.stages.latencies import measure_best

    if objective.latency is not None:
        with meter(out, "latencies of the best") as shown:
            measure_best(run, objective.latency, BEST, shown.update)


def summarise(
    out: Console, run: Run, best: Sequence[Trial], results: Path, far: int | None
) -> None:
    """The best candidates, where everything is, and what to do next."""
    from ghnas.reports.dashboard import annotate
    from ghnas.reports.tables import describe_order, ranking_table

    with contextlib.suppress(UserError):  # a full disk takes nothing from what was found
        annotate(run, best)
    say(out, "")
    out.print(ranking_table(run, best))
    limit = run.manifest.max_latency
    if slow := [item.name for item in best if limit and item.latency and item.latency > limit]:
        say(out, f"above --max-latency, as measured: {', '.join(slow)}")
    if far and far > len(best) / 4:  # of the training architectures themselves it is 5 %
        say(
            out,
            f"far:              {far} of these {len(best)} are far from what the hypernetwork was "
            "trained on: their scores may say little (ghnas show tells of each)",
        )
    say(out, f"everything is in {run.path}")
    say(out, f"in the browser:   ghnas dashboard{results_option(results)}")
    say(out, f"                  optuna-dashboard {shlex.quote(run.storage_url)}")
    say(out, f"as a page:        ghnas report{results_option(results)}")
    if order := run.order:
        say(out, f"trust:            {describe_order(order)}")
    if len(run.manifest.objectives) == 1 and all(item.short_training is None for item in best):
        again = f"ghnas search --resume --train {SHORT_LIST}{results_option(results)}"
        say(out, f"trained a while:  {again}")
    say(out, f"next:             ghnas finetune top-5{results_option(results)}")


def as_dict(run: Run, best: Sequence[Trial], far: int | None) -> dict[str, Any]:
    """The result for programs."""
    return {
        "run": run.name,
        "path": str(run.path),
        "storage": run.storage_url,
        "manifest": run.manifest.model_dump(mode="json"),
        "best": [item.as_dict(run.manifest.objectives) for item in best],
        "far_from_training": far,
    }
