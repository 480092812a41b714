"""`ghnas report`: what a run found, as a page to read and to send on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from ghnas.cli import options
from ghnas.cli.terminal import console, print_json, say
from ghnas.utils.errors import UserError

EXAMPLE = "Example: ghnas report -o report.html"


def report(
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="A run's name or folder.", show_default="the latest"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The .html file to write.",
            show_default="report.html in the run's folder",
        ),
    ] = None,
    results: options.Results = options.DEFAULT_RESULTS,
    json: options.Json = False,
) -> None:
    """Write a report of a run: one HTML file that opens offline.

    Shows the best candidates with their cells, how the search went, quality against size, which
    choices matter, short trainings and fine-tuning, and the command that repeats it.
    """
    from ghnas.engine.runs import find_run
    from ghnas.reports.run_report import report as make_report
    from ghnas.utils.files import write_atomically

    if output is not None and output.suffix not in (".html", ".htm"):
        raise UserError(f"--output must end in .html, not {output.name!r}")
    found = find_run(results, run)
    path = output or found.path / "report.html"
    write_atomically(path, make_report(found))
    if json:
        print_json({"run": found.name, "output": str(path)})
        return
    say(console(), f"wrote {path} ({decimal(path.stat().st_size)})")
