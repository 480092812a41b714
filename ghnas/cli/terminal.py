"""Where output goes, and progress: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import codecs
import io
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

LONGEST_SILENCE, SHORTEST_SILENCE = 10.0, 0.5
"""Seconds between two lines of progress."""
SHARE_BETWEEN_LINES = 0.1


def console(json_wanted: bool = False) -> Console:
    """The console for people: stdout, or stderr where stdout carries JSON."""
    return _Console(stderr=json_wanted, highlight=False, quiet=not speaks())


def started_by_torchrun() -> bool:
    """Whether this process is one of several that torchrun started."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def speaks() -> bool:
    """Whether this process prints: of those that torchrun started the first one does."""
    return not started_by_torchrun() or os.environ.get("RANK", "0") == "0"


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the program, where a reader such as `head` has seen enough."""
        raise BrokenPipeError


_PLAIN = {"─": "-", "┴": "+", "┐": "+", "┤": "+", "…": "~"}
"""For terminals without these characters."""


def use_plain_characters() -> None:
    """Print others in place of characters that the terminal's encoding does not have."""

    def plain(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        unknown = error.object[error.start : error.end]
        return "".join(_PLAIN.get(character, "?") for character in unknown), error.end

    codecs.register_error("ghnas.plain", plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="ghnas.plain")


def print_json(content: Any) -> None:
    """The result for programs, on stdout."""
    if speaks():
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


def say_compiling(out: Console, *loops: str) -> None:
    """Say that kernels are compiled first, where they were not on this machine.

    Args:
        out: Where to.
        loops: `execute` for what is scored, `differentiate` for what is trained.
    """
    from ghnas.executors.fused import are_compiled

    missing = [loop for loop in loops if not are_compiled(loop)]
    if missing:
        say(out, f"compiling the kernels for this machine, once: about {20 * len(missing)} s")


class Meter:
    """Shows the progress of a piece of work, and its rate.

    Args:
        out: Where to show it.
        clock: Seconds since any moment.
    """

    def __init__(self, out: Console, clock: Callable[[], float]) -> None:
        self._out, self._clock = out, clock
        self._first: tuple[float, int] | None = None

    def update(self, done: int, total: int, note: str = "", rate: float | None = None) -> None:
        """Say that `done` of `total` are finished.

        Args:
            done: Those of earlier calls of the program included.
            total: All.
            note: Behind the figures.
            rate: Units a second, lately; default: since the first update, which says what an
                earlier call had done.
        """
        now = self._clock()
        then, before = self._first = self._first or (now, done)
        if rate is None and done > before and now > then:
            rate = (done - before) / (now - then)
        pace = f"{format_rate(rate)} ETA {format_clock((total - done) / rate)}" if rate else ""
        self._show(now, done, total, pace, note)

    def line(self, text: str) -> None:
        """Print a line that stays."""
        say(self._out, text)

    def _show(self, now: float, done: int, total: int, pace: str, note: str) -> None:
        raise NotImplementedError


@contextmanager
def meter(
    out: Console, unit: str, interrupted: str = "", clock: Callable[[], float] = time.monotonic
) -> Iterator[Meter]:
    """A meter for work counted in `unit`.

    Args:
        out: Where to show it.
        unit: What is counted, in the plural.
        interrupted: What to say after Ctrl-C.
        clock: Seconds since any moment.

    Yields:
        A bar on a terminal; elsewhere lines, every 10 s or 10 % and at the end.
    """
    try:
        if not out.is_terminal:
            yield _Lines(out, unit, clock)
            return
        bar = _Bar(out, unit, clock)
        try:
            yield bar
        finally:
            bar.progress.stop()
    except KeyboardInterrupt:
        if interrupted:
            say(out, f"\ninterrupted{interrupted}")
        raise


class _Lines(Meter):
    def __init__(self, out: Console, unit: str, clock: Callable[[], float]) -> None:
        super().__init__(out, clock)
        self._unit, self._last, self._last_done = unit, clock(), 0

    def _show(self, now: float, done: int, total: int, pace: str, note: str) -> None:
        share = (done - self._last_done) / max(total, 1)
        due = SHORTEST_SILENCE if share >= SHARE_BETWEEN_LINES else LONGEST_SILENCE
        if now - self._last < due and (done < total or done == self._last_done):
            return
        self._last, self._last_done = now, done
        self.line("  ".join(filter(None, (f"{done:,}/{total:,} {self._unit}", pace, note))))


class _Bar(Meter):
    def __init__(self, out: Console, unit: str, clock: Callable[[], float]) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        super().__init__(out, clock)
        fields = ("{task.fields[count]} " + unit, "{task.fields[pace]}", "{task.fields[note]}")
        columns = [TextColumn(field, markup=False) for field in fields]
        self.progress = Progress(BarColumn(bar_width=None), *columns, console=out, expand=True)
        self._task = self.progress.add_task("", total=None, count="", pace="", note="")

    def _show(self, now: float, done: int, total: int, pace: str, note: str) -> None:
        self.progress.start()  # not before there is something to show
        count = f"{done:,}/{total:,}"
        self.progress.update(
            self._task, completed=done, total=total, count=count, pace=pace, note=note
        )


def format_rate(per_second: float) -> str:
    """As `12.3/s`, or `4.5/min` for slow work."""
    if per_second >= 1:
        return f"{per_second:,.1f}/s" if per_second < 100 else f"{per_second:,.0f}/s"
    return f"{per_second * 60:.1f}/min"


def format_clock(seconds: float) -> str:
    """As `1:02:03`."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
