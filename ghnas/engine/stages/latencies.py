"""The best candidates of a run, measured."""

from __future__ import annotations

import json

from ghnas.engine.run import LATENCIES, Run
from ghnas.engine.storage import writing
from ghnas.scoring.latency import LatencyTable, Report, measure
from ghnas.utils.files import write_atomically


def measure_best(run: Run, table: LatencyTable, count: int, report: Report | None = None) -> None:
    """Measure the latency of the best candidates that have none, and keep it in the run's folder.

    Args:
        run: Of a search with a table of latencies.
        table: That one; its networks were measured in the same way.
        count: How many of the best.
        report: Called with the measurements done and their number.

    Raises:
        UserError: If the folder cannot be written.
    """
    known = run.latencies
    left = [item for item in run.ranked(count) if item.number not in known]
    seconds = measure([item.architecture.graph for item in left], table.setting, report)
    known |= {item.number: value for item, value in zip(left, seconds, strict=True)}
    with writing(run.path / LATENCIES):
        write_atomically(run.path / LATENCIES, json.dumps(known))
