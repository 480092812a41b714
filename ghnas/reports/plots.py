"""Scatter plots as SVG."""

from __future__ import annotations

import io
import math
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ghnas.utils.statistics import Values

_DECADES = 3.0
"""Positive values that span more powers of ten are drawn on a logarithmic axis."""
STYLE: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "ghnas", "font.size": 9}
"""Text stays text, and equal figures are equal files."""


def scatter(x: Values, y: Values, title: str, x_label: str, y_label: str) -> str:
    """A complete SVG document with a dot for each pair.

    Args:
        x: (N,); values that are not finite are drawn at the left edge.
        y: (N,), finite.
        title: Above the plot.
        x_label: Below it.
        y_label: Beside it.
    """
    finite = x[np.isfinite(x)]
    positive = len(finite) > 0 and bool((finite > 0).all())
    if positive and math.log10(np.max(finite) / np.min(finite)) > _DECADES:
        x, x_label = np.log10(np.where(x > 0, x, np.nan)), f"log10 of {x_label}"
        finite = x[np.isfinite(x)]
    low, high = (np.min(finite), np.max(finite)) if len(finite) else (0.0, 1.0)
    edge = low - 0.04 * (high - low or 1.0)
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(np.where(np.isfinite(x), x, edge), y, s=12, alpha=0.55, color="#1b6ca8")
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(color="#dddddd")
    axes.set_axisbelow(True)
    return svg(figure)


def svg(figure: Figure) -> str:
    """A figure as a complete SVG document."""
    text = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(text, format="svg", dpi=144, metadata={"Date": None})
    return text.getvalue()
