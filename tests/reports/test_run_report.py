"""The report of a run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghnas.engine.manifest import ShortList
from ghnas.engine.runs import find_run
from ghnas.reports import figures
from ghnas.reports.commands import search_command
from ghnas.reports.run_report import choice_shares, pareto_front, report
from ghnas.utils.errors import UserError

Ghnas = Callable[..., tuple[int, str, str]]


class Links(HTMLParser):
    """Collects what a page would load, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.text: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [
            value or "" for key, value in attrs if key in ("src", "href", "xlink:href", "data")
        ]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_a_page_that_loads_nothing_from_elsewhere(finished: Path) -> None:
    run = find_run(finished)
    page = Links()
    page.feed(report(run))
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert "script" not in page.tags
    text = " ".join(page.text)
    for item in run.ranked(10):
        assert item.name in text
    assert page.tags.count("svg") >= 6  # three candidates, the search, two sizes
    assert shlex.join(["--budget", "24"]) in text


def test_names_are_text_not_markup(finished: Path, tmp_path: Path) -> None:
    run = find_run(finished)
    run.manifest = run.manifest.model_copy(update={"space": "<script>alert(1)</script>"})
    assert "<script" not in report(run)


def test_the_command_starts_the_same_search(ghnas: Ghnas, finished: Path) -> None:
    """A search that goes on takes the options that it was started with, and no others."""
    run = find_run(finished)
    words = shlex.split(search_command(run.manifest))
    assert words[:3] == ["ghnas", "search", "--space"]
    again = ("--resume", "--results", finished)
    code, _, err = ghnas(*words[1:], *again)
    assert code == 0, err
    assert ghnas(*words[1:], "--channels", 9, *again)[0] == 2


def test_the_command_asks_for_the_same_trainings(finished: Path) -> None:
    asked = ShortList(count=8, epochs=(1, 3), cells=4, start="kaiming", mutate=True)
    manifest = find_run(finished).manifest.model_copy(update={"short_list": asked})
    wanted = "--train 8 --train-epochs 1,3 --train-cells 4 --train-from kaiming --mutate"
    assert search_command(manifest).endswith(wanted)


def test_the_command_has_limits_and_the_database(finished: Path) -> None:
    given_in = {"max_latency": 0.0025, "storage": "sqlite:///nas.db", "seed": 0}
    text = search_command(find_run(finished).manifest.model_copy(update=given_in))
    assert "--max-latency 2.5ms" in text
    assert "--storage sqlite:///nas.db" in text
    assert "--seed 0" in text
    assert "--join" not in text


def test_a_run_without_candidates(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = find_run(finished)
    monkeypatch.setattr(type(run), "ranked", lambda self, limit=None: [])
    with pytest.raises(UserError, match="no scored candidate"):
        report(run)


pairs = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30)


@given(pairs)
def test_pareto_front_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    sizes, values = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    front = pareto_front(sizes, values)
    for index, (size, value) in enumerate(points):
        beaten = any(s <= size and v >= value and (s, v) != (size, value) for s, v in points)
        earlier = [other for other in points[:index] if other == (size, value)]
        assert front[index] == (not beaten and not earlier)


def test_shares_of_the_variance_by_hand() -> None:
    """The first choice decides by 2, the second by 1; both are balanced."""
    candidates = [{"a": a, "b": b, "c": "same"} for a in "xy" for b in "uv"]
    values = np.array([0.0, 1.0, 2.0, 3.0])  # variance 1.25: 1 of a, 0.25 of b
    shares = choice_shares(candidates, values)
    assert shares == pytest.approx({"a": 0.8, "b": 0.2, "c": 0.0})
    assert choice_shares(candidates, np.ones(4)) == {}


def test_a_few_bad_candidates_do_not_press_the_others_together() -> None:
    values = np.concatenate([np.linspace(80, 90, 197), [12.0, 15.0, 20.0]])
    drawn = figures.best_so_far(values, "accuracy, %")
    assert "3 more below" in drawn
    assert ">20<" not in drawn  # no such tick
    assert "more below" not in figures.best_so_far(values[:197], "accuracy, %")


def test_figures_are_the_same_each_time(finished: Path) -> None:
    run = find_run(finished)
    first, second = report(run), report(run)
    assert re.sub(r"\s+", " ", first) == re.sub(r"\s+", " ", second)
