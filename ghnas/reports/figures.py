"""Figures of a run's report, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from ghnas.reports.plots import svg
from ghnas.utils.statistics import Values

Flags = npt.NDArray[np.bool_]
WIDTH = 5.2
"""Inches; small, so that letters are large enough at the width of a phone."""
OUTLIERS, FEW = 0.02, 50
"""Share of the candidates that may lie below a figure, and the fewest of which some may."""
BLUE, ORANGE, GREY = "#1b6ca8", "#d35400", "#8a949e"
Curves = Sequence[tuple[str, Values, Values]]
"""Name, x (N,) and y (N,) of each."""


def best_so_far(values: Values, label: str) -> str:
    """Every candidate in the order of asking, and the best until then.

    Args:
        values: (candidates,), higher is better; NaN where scoring failed.
        label: What they are, with their unit.
    """
    figure, axes = _axes(f"Best so far: {label}", "candidates", label)
    numbers = np.arange(1.0, len(values) + 1.0)
    _cloud(axes, numbers, values)
    filled = np.where(np.isfinite(values), values, -np.inf)
    axes.step(numbers, np.maximum.accumulate(filled), where="post", color=BLUE)
    return _svg(figure)


def against_size(sizes: Values, values: Values, front: Flags, size_label: str, label: str) -> str:
    """Quality against size, the Pareto front connected.

    Args:
        sizes: (candidates,).
        values: (candidates,), higher is better.
        front: (candidates,), whether nothing is smaller and as good.
        size_label: What the sizes are.
        label: What the values are.
    """
    figure, axes = _axes(f"{label} against {size_label}", size_label, label)
    _cloud(axes, sizes, values)
    chosen = np.flatnonzero(front)
    chosen = chosen[np.argsort(sizes[chosen])]
    axes.plot(sizes[chosen], values[chosen], "o-", ms=4, color=ORANGE, label="Pareto front")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.legend(frameon=False)
    return _svg(figure)


def bars(shares: Mapping[str, float], title: str, label: str) -> str:
    """Horizontal bars, the longest above.

    Args:
        shares: Name and length of each.
        title: Above.
        label: Of the lengths.
    """
    names = sorted(shares, key=lambda name: shares[name])
    figure = Figure(figsize=(WIDTH, 1.0 + 0.22 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(names, [shares[name] for name in names], color=BLUE)
    axes.set(title=title, xlabel=label)
    axes.grid(color="#e4e4e4", axis="x")
    axes.set_axisbelow(True)
    return _svg(figure)


def pairs(first: Mapping[str, float], second: Mapping[str, float], names: tuple[str, str]) -> str:
    """Two bars for each name, such as the best candidates beside all.

    Args:
        first: Share in [0, 1] of each, drawn in colour.
        second: The same of what it is compared with.
        names: Of the two, for the legend.
    """
    order = sorted(second, key=lambda name: first[name] - second[name])
    figure = Figure(figsize=(WIDTH, 1.2 + 0.34 * len(order)), layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(order))
    for offset, shares, name, colour in (
        (0.2, first, names[0], BLUE),
        (-0.2, second, names[1], "#c3ccd4"),
    ):
        lengths = [100 * shares[item] for item in order]
        axes.barh(places + offset, lengths, height=0.38, color=colour, label=name)
    axes.set_yticks(places, order)
    axes.set(title="Operations", xlabel="% of all choices")
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    axes.set_axisbelow(True)
    axes.grid(color="#e4e4e4", axis="x")
    return _svg(figure)


def curves(lines: Curves, title: str, x_label: str, y_label: str, legend: int = 10) -> str:
    """A line for each network.

    Args:
        lines: Best first.
        title: Above.
        x_label: Below.
        y_label: Beside.
        legend: Most names; more lines are drawn grey behind, without one.
    """
    figure, axes = _axes(title, x_label, y_label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for _, x, y in reversed(lines[legend:]):
        axes.plot(x, y, color=GREY, alpha=0.4, lw=0.8)
    for name, x, y in lines[:legend]:
        axes.plot(x, y, lw=1.4, label=name)
    axes.legend(frameon=False, fontsize=7)
    return _svg(figure)


def _cloud(axes: Axes, x: Values, y: Values) -> None:
    """A dot for each pair, the smaller the more there are, as pixels, for a small file.

    Those far below all others are not shown but counted.
    """
    size = float(np.clip(3000 / len(x), 3, 14))
    axes.scatter(x, y, s=size, alpha=0.45, color=GREY, linewidths=0, rasterized=True)
    finite = y[np.isfinite(y)]
    if len(finite) < FEW:
        return
    low, high = np.quantile(finite, OUTLIERS), finite.max()
    bottom = low - 0.3 * (high - low)
    below = int((finite < bottom).sum())
    if below:  # a few bad ones would press all others into a line
        axes.set_ylim(bottom, high + 0.1 * (high - low))
        text = f"{below} more below"
        axes.annotate(text, (0.98, 0.03), xycoords="axes fraction", ha="right", color="#5b6670")


def _axes(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(color="#e4e4e4")
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure) -> str:
    """The `<svg>` element, which takes the width that it is given."""
    content = svg(figure)
    return content[content.index("<svg") :]
