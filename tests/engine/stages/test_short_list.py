"""The second stage of a search: the best candidates trained for a moment."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from searching import finished, make_manifest, ranking

from ghnas.architectures.network import kaiming
from ghnas.engine.manifest import ShortList
from ghnas.engine.run import SHORT_LIST
from ghnas.engine.stages.short_list import RefineJob, quality, train_short_list
from ghnas.spaces import load_space
from ghnas.training.short import train_briefly
from ghnas.utils.errors import UserError

Ghnas = Callable[..., tuple[int, str, str]]
CPU = torch.device("cpu")
SPACE = load_space("darts").with_skeleton(cells=2, channels=2)
"""Deeper than the searches here, which have one cell."""


def make_job(steps: int = 3, workers: int = 1) -> RefineJob:
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(8, 3, 8, 8, generator=generator), torch.randint(2, (8,), generator=generator))
        for _ in range(steps)
    ]
    return RefineJob(SPACE, batches, batches[:1], CPU, workers)


def ignore(done: int, total: int) -> None:
    pass


def test_the_best_are_trained_and_come_first(tmp_path: Path) -> None:
    run, job, calls = finished(tmp_path), make_job(), []
    before = [item.number for item in run.ranked()]
    train_short_list(run, job, 5, lambda *call: calls.append(call))
    assert calls == [(done, 5) for done in range(6)]
    after = run.ranked()
    assert sorted(item.number for item in after[:5]) == sorted(before[:5])
    assert [item.number for item in after[5:]] == before[5:]
    found = [item.short_training for item in after[:5]]
    assert found == sorted(found, reverse=True, key=lambda value: value or -1000.0)
    assert all(item.short_training is None for item in after[5:])
    for item in after[:5]:
        graph = SPACE.build(dict(item.architecture.choices), (3, 8, 8), 2)
        assert graph.parameter_count > item.parameters
        parameters = kaiming(graph, torch.Generator().manual_seed(job.seed))
        refined = train_briefly(graph, parameters, job.batches, job.checks, job.settings)
        assert item.short_training == pytest.approx(quality(refined), rel=1e-3)
        assert item.short_training == pytest.approx(-sum(refined.losses[1:]) / 2, rel=1e-3)


def test_what_was_trained_is_not_trained_again(tmp_path: Path) -> None:
    run, calls = finished(tmp_path), []
    train_short_list(run, make_job(workers=2), 3, ignore)
    first = {item.number: item.short_training for item in run.ranked(3)}
    train_short_list(run, make_job(workers=1), 6, lambda *call: calls.append(call))
    assert calls[0] == (3, 6)
    assert len(run.study_beside(SHORT_LIST, "short_training", "maximize").trials) == 6
    again = {item.number: item.short_training for item in run.ranked(6)}
    assert first.items() <= again.items()
    whole = finished(tmp_path)
    train_short_list(whole, make_job(workers=1), 6, ignore)
    assert ranking(whole) == ranking(run)
    with pytest.raises(UserError, match="trained with steps 3, not 4"):
        train_short_list(run, make_job(steps=4), 6, ignore)
    with pytest.raises(UserError, match="trained with skeleton"):
        train_short_list(run, replace(make_job(), space=run.space), 6, ignore)


def test_the_record_shows_candidate_and_curve(tmp_path: Path) -> None:
    run = finished(tmp_path)
    train_short_list(run, make_job(), 2, ignore)
    trials = {
        trial.user_attrs["trial"]: trial
        for trial in run.study_beside(SHORT_LIST, "short_training", "maximize").trials
    }
    for item in run.ranked(2):
        trial = trials[item.number]
        assert run.space.architecture(trial.params) == item.architecture
        assert list(trial.intermediate_values) == [1, 2, 3]
        assert trial.value == item.short_training
        assert 0 <= trial.user_attrs["accuracy"] <= 1


def test_several_objectives_have_no_short_list(tmp_path: Path) -> None:
    run = finished(tmp_path, objectives=("accuracy", "params"))
    with pytest.raises(UserError, match="accuracy,params are several"):
        train_short_list(run, make_job(), 2, ignore)
    with pytest.raises(UserError, match="accuracy,params are several"):  # before anything is spent
        make_manifest(objectives=("accuracy", "params"), short_list=ShortList(count=2))


def test_search_with_a_short_list(ghnas: Ghnas, tiny_ghn: Path, tmp_path: Path) -> None:
    options = ("--ghn", tiny_ghn, "--score-images", 32, "--results", tmp_path, "--json")
    short = ("--refine", 2, "--refine-steps", 2, "--refine-cells", 1)
    code, out, err = ghnas("search", "--budget", 6, *short, *options)
    assert code == 0, err
    best = json.loads(out)["best"]
    assert [item["short_training"] is None for item in best] == [
        False,
        False,
        True,
        True,
        True,
        True,
    ]
    assert "2/2 trained" in err
    code, out, err = ghnas("search", "--resume", "--refine", 3, "--results", tmp_path)
    assert code == 0, err
    assert "3/3 trained" in out
    assert "loss" in out
