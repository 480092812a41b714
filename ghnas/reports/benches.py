"""Samplers on a table of accuracies: table, sentences, plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from math import isnan
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table as RichTable

from ghnas.engine.bench import Curve
from ghnas.reports.numbers import format_estimate
from ghnas.reports.plots import svg
from ghnas.reports.tables import Column, table
from ghnas.utils.files import write_atomically


def bench_table(curves: Sequence[Curve]) -> RichTable:
    """What each method loses; below it the interval."""
    marks = curves[0].marks
    rows = []
    for curve in curves:
        cells = []
        for estimate in curve.estimates:
            value, low, high = (f"{x:.2f}" for x in astuple(estimate))
            cells.append(value if isnan(estimate.low) else f"{value}\n{low} {high}")
        rows.append((curve.method, *cells))
    return table("Regret by trainings", (Column("method", wrap=True), *map(str, marks)), rows)


def write_bench(folder: Path, curves: Sequence[Curve], notes: Sequence[str]) -> None:
    """Write `bench.md` and `regret.svg` into a folder.

    Raises:
        OSError: If the folder cannot be written.
    """
    write_atomically(folder / "regret.svg", regret_plot(curves))
    write_atomically(folder / "bench.md", as_markdown(curves, notes))


def as_markdown(curves: Sequence[Curve], notes: Sequence[str]) -> str:
    """The regret with its intervals, and how many searches found the best.

    Args:
        curves: Of all methods.
        notes: Sentences below the tables.
    """
    marks = curves[0].marks
    regrets = [(c.method, *map(format_estimate, c.estimates)) for c in curves]
    found = [(c.method, *(f"{n} of {len(c.regret)}" for n in c.found)) for c in curves]
    lines = [
        "# Samplers on a table of accuracies",
        "",
        "Regret, in points, after so many trainings:",
    ]
    lines += ["", *_table(marks, regrets), "", "Searches that found the table's best:", ""]
    lines += [*_table(marks, found), "", *(f"- {note}" for note in notes), ""]
    return "\n".join([*lines, "![regret by trainings](regret.svg)"]) + "\n"


def _table(marks: Sequence[int], rows: Sequence[Sequence[str]]) -> list[str]:
    head = f"| method | {' | '.join(map(str, marks))} |"
    return [head, "|" + " --- |" * (len(marks) + 1), *(f"| {' | '.join(row)} |" for row in rows)]


def regret_plot(curves: Sequence[Curve]) -> str:
    """An SVG document: regret by trainings, a line and its interval for each method."""
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for curve in curves:
        values, low, high = zip(*map(astuple, curve.estimates), strict=True)
        [line] = axes.plot(curve.marks, values, marker="o", markersize=3, label=curve.method)
        axes.fill_between(curve.marks, low, high, color=line.get_color(), alpha=0.15)
    axes.set_xscale("log", base=2)
    axes.set_xticks(curves[0].marks, list(map(str, curves[0].marks)))
    axes.set(xlabel="trainings", ylabel="accuracy below the best (points)", ylim=(0, None))
    axes.grid(color="#dddddd")
    axes.set_axisbelow(True)
    axes.legend()
    return svg(figure)
