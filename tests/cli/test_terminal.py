"""Meters on a terminal and elsewhere."""

from __future__ import annotations

import io
import itertools

from rich.console import Console

from ghnas.cli.terminal import format_clock, format_rate, meter


def shown(terminal: bool, width: int = 80) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=terminal, width=width), stream


def test_lines_come_every_tenth_and_at_the_end() -> None:
    out, stream = shown(terminal=False)
    seconds = itertools.count()
    with meter(out, "candidates", clock=lambda: next(seconds) / 50) as progress:
        for done in range(1, 1001):
            progress.update(done, 1000, "best 50.0 %")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[-1].startswith("1,000/1,000 candidates")
    assert lines[-1].endswith("best 50.0 %")


def test_lines_come_every_ten_seconds() -> None:
    out, stream = shown(terminal=False)
    seconds = itertools.count()
    with meter(out, "candidates", clock=lambda: next(seconds)) as progress:
        for done in range(1, 101):
            progress.update(done, 10_000)
    assert 5 <= len(stream.getvalue().splitlines()) <= 40


def test_rate_and_remaining_time() -> None:
    out, stream = shown(terminal=False)
    with meter(out, "candidates") as progress:
        progress.update(1000, 1000, rate=5.0)
        progress.update(1000, 1000, rate=5.0)
    assert stream.getvalue() == "1,000/1,000 candidates  5.0/s ETA 0:00:00\n"


def test_a_terminal_gets_a_bar_of_one_line() -> None:
    out, stream = shown(terminal=True)
    with meter(out, "candidates") as progress:
        progress.update(5_000, 10_000, "best 71.2 %")
        progress.line("a line that stays")
    text = stream.getvalue()
    assert "━" in text
    assert "5,000/10,000" in text
    assert "best 71.2 %" in text
    assert "a line that stays" in text


def test_rates_and_clocks() -> None:
    assert format_rate(0.05) == "3.0/min"
    assert format_rate(12.34) == "12.3/s"
    assert format_rate(1234.5) == "1,234/s"
    assert format_clock(3723) == "1:02:03"
