"""Numbers for people."""

from __future__ import annotations

import math
from dataclasses import astuple

from ghnas.utils.statistics import Estimate

FLOPS_NOTE = "FLOPs: multiply-adds x 2, one image"


def format_count(value: float) -> str:
    """As `1.23M`, `45.6k` or `789`: three significant digits."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit * 0.9995:
            scaled = value / limit
            digits = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
            return f"{scaled:.{digits}f}{unit}"
    return f"{value:.0f}"


def format_latency(seconds: float) -> str:
    """As `4.00 ms`, `12.3 ms` or `1,234 ms`."""
    milliseconds = 1000 * seconds
    digits = 2 if milliseconds < 9.995 else 1 if milliseconds < 99.95 else 0
    return f"{milliseconds:,.{digits}f} ms"


def format_percent(share: float | None) -> str:
    """As `63.2 %`; a dash for nothing."""
    return "-" if share is None or share != share else f"{100 * share:.1f} %"


def format_seconds(seconds: float) -> str:
    """As `850 ms`, `12.3 s`, `4 min 05 s` or `2 h 03 min`."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def format_estimate(estimate: Estimate, scale: float = 1.0, unit: str = "") -> str:
    """As `0.87 (0.75 to 0.93)`; a dash where it is not defined."""
    if math.isnan(estimate.value):
        return "-"
    value, low, high = (f"{scale * x:.2f}" for x in astuple(estimate))
    return f"{value}{unit}" if math.isnan(estimate.low) else f"{value}{unit} ({low} to {high})"


def format_best(best: float | None, is_accuracy: bool) -> str:
    """The best value of a search: an accuracy in per cent, another one as it is."""
    return format_percent(best) if best is None or is_accuracy else f"{best:.4g}"
