"""Where output goes, and progress: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console

LONGEST_SILENCE, SHORTEST_SILENCE = 10.0, 0.5
"""Seconds between two lines of progress."""
SHARE_BETWEEN_LINES = 0.1


def console(json_wanted: bool = False) -> Console:
    """The console for people: stdout, or stderr where stdout carries JSON."""
    return Console(stderr=json_wanted, highlight=False)


def print_json(content: Any) -> None:
    """The result for programs, on stdout."""
    print(as_json(content))


def as_json(content: Any) -> str:
    """The same as text."""
    return json.dumps(_without_nan(content), indent=2, default=str)


def _without_nan(content: Any) -> Any:
    """JSON has no word for what is not a number: null stands for it."""
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def say(out: Console, text: str) -> None:
    """Print text as it is: no markup, no wrapping, so that commands and paths can be copied."""
    out.print(text, markup=False, soft_wrap=True)


class Meter(Protocol):
    """Shows the progress of a piece of work."""

    def update(self, done: int, total: int, note: str = "", rate: float | None = None) -> None:
        """Say that `done` of `total` are finished, lately `rate` of them a second."""

    def line(self, text: str) -> None:
        """Print a line that stays."""


@contextmanager
def meter(out: Console, unit: str, clock: Callable[[], float] = time.monotonic) -> Iterator[Meter]:
    """A meter for work counted in `unit`.

    Args:
        out: Where to show it.
        unit: What is counted, in the plural.
        clock: Seconds since any moment.

    Yields:
        A bar on a terminal; elsewhere lines, every 10 s or 10 % and at the end.
    """
    if not out.is_terminal:
        yield _Lines(out, unit, clock)
        return
    bar = _Bar(out, unit)
    try:
        yield bar
    finally:
        bar.progress.stop()


class Pace:
    """The rate of work that began when this object was made.

    Args:
        clock: Seconds since any moment.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, int] | None = None

    def rate(self, done: int) -> float | None:
        """Units a second since the first call, which says what an earlier session had done."""
        now = self._clock()
        if self._first is None:
            self._first = (now, done)
        then, before = self._first
        return (done - before) / (now - then) if done > before and now > then else None


def _describe_pace(left: int, rate: float | None) -> str:
    return f"{format_rate(rate)} ETA {format_clock(left / rate)}" if rate else ""


class _Lines:
    def __init__(self, out: Console, unit: str, clock: Callable[[], float]) -> None:
        self._out, self._unit, self._clock = out, unit, clock
        self._last, self._last_done = clock(), 0

    def update(self, done: int, total: int, note: str = "", rate: float | None = None) -> None:
        now = self._clock()
        share = (done - self._last_done) / max(total, 1)
        due = SHORTEST_SILENCE if share >= SHARE_BETWEEN_LINES else LONGEST_SILENCE
        if now - self._last < due and (done < total or done == self._last_done):
            return
        self._last, self._last_done = now, done
        parts = (f"{done:,}/{total:,} {self._unit}", _describe_pace(total - done, rate), note)
        self.line("  ".join(part for part in parts if part))

    def line(self, text: str) -> None:
        say(self._out, text)


class _Bar:
    def __init__(self, out: Console, unit: str) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self.progress = Progress(
            BarColumn(bar_width=None),
            TextColumn("{task.fields[count]} " + unit, markup=False),
            TextColumn("{task.fields[pace]}", markup=False),
            TextColumn("{task.fields[note]}", markup=False),
            console=out,
            expand=True,
        )
        self._task = self.progress.add_task("", total=None, count="", pace="", note="")

    def update(self, done: int, total: int, note: str = "", rate: float | None = None) -> None:
        self.progress.start()  # not before there is something to show
        self.progress.update(
            self._task,
            completed=done,
            total=total,
            count=f"{done:,}/{total:,}",
            pace=_describe_pace(total - done, rate),
            note=note,
        )

    def line(self, text: str) -> None:
        say(self.progress.console, text)


def format_rate(per_second: float) -> str:
    """As `12.3/s`, or `4.5/min` for slow work."""
    if per_second >= 1:
        return f"{per_second:,.1f}/s" if per_second < 100 else f"{per_second:,.0f}/s"
    return f"{per_second * 60:.1f}/min"


def format_clock(seconds: float) -> str:
    """As `1:02:03`."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
