"""A comparison of rankings: tables, sentences, the scores, a plot of each method."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from math import isnan
from pathlib import Path

from rich.table import Table

from ghnas.ranking.comparison import FIGURES, Comparison
from ghnas.ranking.methods import STEP_IMAGES, ScoreJob, describe_size, steps_of
from ghnas.reports.numbers import format_estimate
from ghnas.reports.plots import scatter
from ghnas.reports.tables import table
from ghnas.utils.files import write_atomically

COLUMNS = {
    "spearman": "Spear-\nman",
    "kendall": "Ken-\ndall",
    "spearman_best_tenth": "in best\ntenth",
    "regret_1": "lost,\nfirst",
    "regret_5": "lost,\nof 5",
}
"""The figures that a terminal of 80 columns has room for."""


def comparison_table(comparison: Comparison) -> Table:
    """The main figures; below each but Kendall's its interval."""
    rows = []
    for ranking in comparison.rankings:
        cells = []
        for name in COLUMNS:
            estimate = ranking.figures[name]
            scale, digits = (100, 1) if name.startswith("regret") else (1, 2)
            value, low, high = (f"{scale * x:.{digits}f}" for x in astuple(estimate))
            figures = value if name == "kendall" else f"{value}\n{low} {high}"
            cells.append("-" if isnan(estimate.value) else figures)
        rows.append((ranking.method, *cells, f"{ranking.seconds:.3f}"))
    columns = ("method", *COLUMNS.values(), "s")
    return table("Rankings against trained accuracy", columns, rows)


def describe_comparison(comparison: Comparison, job: ScoreJob, split: str) -> list[str]:
    """Sentences on how the figures were made.

    Args:
        comparison: The rankings.
        job: What was scored.
        split: Which part of the architectures.
    """
    truth, settings = comparison.truth, job.settings()
    size = settings["image_size"]
    trained = f"{describe_size(job.space.skeleton)}; {size}x{size}; {STEP_IMAGES} images a step"
    notes = [
        f"{len(truth.architectures):,} architectures of {settings['space']}, part {split}, seed "
        f"{job.seed}; {settings['data']} at {size}x{size}; against {truth.column}, mean of "
        f"{len(truth.by_seed)}",
        f"proxies: {describe_size(settings['proxy_skeleton'])}; {job.proxy_images} training "
        f"images, Kaiming initialisation, seed {job.seed}",
        *([f"short trainings: {trained}"] if any(map(steps_of, job.methods)) else []),
        *([f"hypernetwork: {job.ghn_name}"] if job.ghn_name else []),
        "95 % intervals: percentile bootstrap over architectures, 1,000 samples",
        "lost: accuracy in points below the best one here; seconds: a candidate on one core",
    ]
    if comparison.ceiling is not None:
        agreement = format_estimate(comparison.ceiling)
        notes.append(f"ceiling: the seeds of the trainings agree with Spearman {agreement}")
    return notes + [f"left out: {name} {reason}" for name, reason in comparison.left_out.items()]


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
        cells = [
            format_estimate(ranking.figures[name], *((100, " %") if "regret" in name else ()))
            for name in FIGURES
        ]
        lines.append(f"| {ranking.method} | {' | '.join(cells)} | {ranking.seconds:.3f} |")
    lines += ["", *(f"- {note}" for note in notes), ""]
    lines += [f"![{r.method}](plots/{r.method}.svg)" for r in comparison.rankings]
    return "\n".join(lines) + "\n"


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
