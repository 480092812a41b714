"""Scatter plots as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

import numpy as np

from ghnas.utils.statistics import Values

_WIDTH, _HEIGHT = 420, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 34, 48
_STYLE = "font-family:Helvetica,Arial,sans-serif;font-size:12px"
_DECADES = 3.0
"""Positive values that span more powers of ten are drawn on a logarithmic axis."""


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
    logarithmic = (
        len(finite) > 0
        and bool((finite > 0).all())
        and math.log10(np.max(finite) / np.min(finite)) > _DECADES
    )
    if logarithmic:
        x, x_label = np.log10(np.where(x > 0, x, np.nan)), f"log10 of {x_label}"
    across = _Axis(x[np.isfinite(x)], _LEFT, _WIDTH - _RIGHT)
    up = _Axis(y, _HEIGHT - _BOTTOM, _TOP)
    parts = [_text(_WIDTH / 2, 20, title, "middle", "font-weight:bold")]
    for value, label in across.ticks:
        place, base = across.place(value), _HEIGHT - _BOTTOM
        parts.append(_line(place, _TOP, place, base))
        parts.append(_text(place, base + 16, label, "middle"))
    for value, label in up.ticks:
        place = up.place(value)
        parts.append(_line(_LEFT, place, _WIDTH - _RIGHT, place))
        parts.append(_text(_LEFT - 6, place + 4, label, "end"))
    dots = []
    for a, b in zip(x, y, strict=True):
        column = across.place(a) if np.isfinite(a) else _LEFT
        dots.append(f'<circle cx="{column:.1f}" cy="{up.place(b):.1f}" r="2.4"/>')
    middle = (_HEIGHT - _BOTTOM + _TOP) / 2
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, x_label, "middle"))
    parts.append(
        f'<g transform="translate(14,{middle:.0f}) rotate(-90)">'
        f"{_text(0, 0, y_label, 'middle')}</g>"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" style="{_STYLE}">'
        f'<rect width="100%" height="100%" fill="white"/>'
        f'{"".join(parts)}<g fill="#1b6ca8" fill-opacity="0.55">{"".join(dots)}</g></svg>\n'
    )


class _Axis:
    """From values to pixels, with a margin, and round ticks."""

    def __init__(self, values: Values, start: float, end: float) -> None:
        low, high = (float(np.min(values)), float(np.max(values))) if len(values) else (0.0, 1.0)
        if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
            low, high = low - 0.5, high + 0.5
        margin = 0.04 * (high - low)
        self.low, self.high = low - margin, high + margin
        self.start, self.end = start, end

    def place(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    @property
    def ticks(self) -> Sequence[tuple[float, str]]:
        """Four to eight multiples of 1, 2 or 5 times a power of ten."""
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [(i * step, f"{i * step:.6g}") for i in range(first, last + 1)]


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def _text(x: float, y: float, text: str, anchor: str, style: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="{style}">'
        f"{escape(text)}</text>"
    )
