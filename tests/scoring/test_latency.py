"""Latencies: measured, predicted from a table of operations, kept, asked of a search."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

import ghnas as library
from ghnas.architectures.graph import Graph
from ghnas.data import load_data
from ghnas.ghn.checkpoint import load_ghn
from ghnas.scoring.latency import LatencyTable, Setting, fit_table, latency_table, measure
from ghnas.spaces import load_space
from ghnas.utils.errors import UserError

Ghnas = Callable[..., tuple[int, str, str]]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of 12 networks, each measured twice."""
    monkeypatch.setitem(latency_table.__kwdefaults__, "networks", 12)
    monkeypatch.setattr("ghnas.scoring.latency.ROUNDS", 2)


def graphs(space: str, count: int) -> list[Graph]:
    rng = random.Random(0)
    return [load_space(space).sample(rng).graph for _ in range(count)]


def invented(graph: Graph) -> float:
    """Microseconds a call, and nanoseconds a FLOP: what a table can say exactly."""
    return 1e-6 * len(graph.nodes) + 1e-9 * graph.flops


def by_flops(space: str) -> LatencyTable:
    known = graphs(space, 40)
    return fit_table(known, [invented(graph) for graph in known], Setting())


def test_a_table_finds_times_that_are_sums_over_operations() -> None:
    table = by_flops("mobile")
    assert table.error < 0.01
    assert table.agreement > 0.99
    for graph in graphs("mobile", 60)[40:]:
        assert table.predict(graph) == pytest.approx(invented(graph), rel=0.02)
    assert min(table.seconds.values()) >= 0


def test_measured_times_are_positive_and_larger_for_much_larger_networks() -> None:
    darts = load_space("darts").for_images((3, 16, 16), 10)
    small = darts.with_skeleton(cells=2, channels=4).sample(0).graph
    large = darts.with_skeleton(cells=8, channels=48).sample(0).graph
    counted: list[tuple[int, int]] = []
    first, second = measure([small, large], Setting(batch=8), lambda *done: counted.append(done))
    assert 0 < first < second
    assert counted[-1][0] == counted[-1][1] == len(counted)


@pytest.mark.usefixtures("few")
def test_a_table_is_kept_and_read_again(tmp_path: Path) -> None:
    space, path = load_space("nasbench201").for_images((3, 8, 8), 10), tmp_path / "latency.json"
    made = latency_table(space, networks=12, device="cpu", path=path)
    assert latency_table(space, device="cpu", path=path) == made
    with pytest.raises(UserError, match=r"batch 1, cpu, 1 thread, .*not for batch 2"):
        latency_table(space, batch=2, device="cpu", path=path)
    path.write_text("{}")
    with pytest.raises(UserError, match="no table of latencies"):
        latency_table(space, device="cpu", path=path)
    with pytest.raises(UserError, match="12 networks, not 3"):
        latency_table(space, networks=3)


def test_a_search_in_python_keeps_within_a_latency(tmp_path: Path) -> None:
    space, table = load_space("darts"), by_flops("darts")
    ghn, data = load_ghn("darts-embedded"), load_data("embedded")
    objective = library.ZeroShot(
        ghn, data, objectives=("accuracy", "latency"), images=16, workers=1, latency=table
    )
    space = objective.space_for(space)
    limit = sorted(table.predict(space.sample(seed).graph) for seed in range(9))[4]
    study = library.search(space, objective, budget=4, max_latency=limit, path=tmp_path / "run")
    for trial, item in zip(study.trials, study.ranked(), strict=False):
        assert trial.values[1] <= limit
        graph = item.architecture.for_images(data.image_shape, 10).graph
        assert item.values[1] == pytest.approx(table.predict(graph))


def test_a_search_needs_a_table() -> None:
    ghn, data = load_ghn("darts-embedded"), load_data("embedded")
    with pytest.raises(UserError, match="needs a table of latencies"):
        library.ZeroShot(ghn, data, objectives=("accuracy", "latency"))
    objective = library.ZeroShot(ghn, data, workers=1)
    with pytest.raises(UserError, match="needs a table of latencies"):
        library.search(load_space("darts"), objective, budget=4, max_latency=0.01)


# ---------------------------------------------------------------- the command


@pytest.mark.usefixtures("few")
def test_a_search_predicts_measures_and_goes_on(
    ghnas: Ghnas, tiny_ghn: Path, tmp_path: Path
) -> None:
    common = ("--ghn", tiny_ghn, "--score-images", 16, "--results", tmp_path, "--device", "cpu")
    small = ("--budget", 4, "--cells", 2, "--channels", 4)
    code, out, err = ghnas(
        "search", "--objective", "accuracy,latency", "--max-latency", "1s", *small, *common
    )
    assert code == 0, err
    assert "12 networks measured (batch 1, cpu, 1 thread, processor time)" in out.replace("\n", " ")
    code, out, err = ghnas("search", "--resume", "--results", tmp_path, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["manifest"]["objective"]["latency"]["networks"] == 12
    assert found["manifest"]["max_latency"] == 1
    for item in found["best"]:
        assert 0 < item["latency"] < 1
        assert 0 < item["measured_latency"] < 1
    code, out, _ = ghnas("show", "top-1", "--results", tmp_path, "--output", tmp_path)
    assert "latency as measured" in out.replace("\n", " ")
    code, _, err = ghnas("search", "--resume", "--results", tmp_path, "--max-latency", "2s")
    assert code == 2
    assert "--max-latency 1.0, not 2.0" in err.replace("\n", " ")


@pytest.mark.usefixtures("few")
def test_latencies_that_no_candidate_meets(ghnas: Ghnas, tiny_ghn: Path, tmp_path: Path) -> None:
    common = ("--ghn", tiny_ghn, "--results", tmp_path, "--device", "cpu")
    code, _, err = ghnas("search", "--cells", 2, "--max-latency", "1us", *common)
    assert code == 2
    assert "raise --max-latency" in err.replace("\n", " ")
    for wrong in ("5", "0ms", "fast", "-1ms"):
        code, _, err = ghnas("search", f"--max-latency={wrong}", *common)
        assert code == 2
        assert "must be a time such as 5ms" in err.replace("\n", " ")
    code, _, err = ghnas("search", "--latency-batch", 4, *common)
    assert code == 2
    assert "--latency-batch needs --max-latency" in err.replace("\n", " ")
    assert not (tmp_path / "runs").exists()
