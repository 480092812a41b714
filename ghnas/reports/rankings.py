"""A comparison of rankings as files: a table, the scores, a plot of each method."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from ghnas.ranking.comparison import FIGURES, Comparison
from ghnas.reports.plots import scatter
from ghnas.utils.files import write_atomically
from ghnas.utils.statistics import Estimate


def as_markdown(comparison: Comparison, notes: Sequence[str]) -> str:
    """The table with every figure and its interval, and the plots.

    Args:
        comparison: The rankings.
        notes: Sentences below the table.
    """
    lines = ["# Rankings against trained accuracy", ""]
    lines.append("| method | " + " | ".join(FIGURES.values()) + " | seconds |")
    lines.append("|" + " --- |" * (len(FIGURES) + 2))
    for ranking in comparison.rankings:
        cells = [_cell(name, ranking.figures[name]) for name in FIGURES]
        lines.append(f"| {ranking.method} | {' | '.join(cells)} | {ranking.seconds:.3f} |")
    lines += ["", *(f"- {note}" for note in notes), ""]
    lines += [f"![{r.method}](plots/{r.method}.svg)" for r in comparison.rankings]
    return "\n".join(lines) + "\n"


def _cell(name: str, estimate: Estimate) -> str:
    if estimate.value != estimate.value:
        return "-"
    scale, unit = (100, " %") if name.startswith("regret") else (1, "")
    value, low, high = (f"{scale * x:.2f}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{value}{unit} ({low} to {high})"


def write_comparison(folder: Path, comparison: Comparison, notes: Sequence[str]) -> None:
    """Write `ranking.md`, `ranking.csv` and a plot for each method into a folder.

    Raises:
        OSError: If the folder cannot be written.
    """
    truth = comparison.truth
    write_atomically(folder / "ranking.md", as_markdown(comparison, notes))
    head = ["architecture", truth.column, *(r.method for r in comparison.rankings)]
    columns = [truth.architectures, truth.mean, *(r.scores for r in comparison.rankings)]
    write_atomically(folder / "ranking.csv", _as_csv([head, *zip(*columns, strict=True)]))
    for ranking in comparison.rankings:
        spearman = ranking.figures["spearman"].value
        title = f"{ranking.method}: Spearman {spearman:.2f}"
        svg = scatter(ranking.scores, 100 * truth.mean, title, "score", "trained accuracy (%)")
        write_atomically(folder / "plots" / f"{ranking.method}.svg", svg)


def _as_csv(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
