"""The second stage of a search: the best candidates trained for a moment."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from searching import finished, make_manifest, ranking

from ghnas.architectures.graph import Graph
from ghnas.architectures.network import kaiming
from ghnas.engine.manifest import ShortList
from ghnas.engine.run import SHORT_LIST, open_run
from ghnas.engine.stages.inputs import load_inputs, objective_of
from ghnas.engine.stages.short_list import (
    STARTERS,
    RefineJob,
    quality,
    short_list_job,
    train_short_list,
)
from ghnas.ghn.checkpoint import load_ghn
from ghnas.scoring.evaluation import Score
from ghnas.spaces import load_space
from ghnas.training.short import ShortTraining, train_briefly
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
    trained = {item.number for item in after[:5]}
    assert set(before[:STARTERS]) < trained
    assert [item.number for item in after[5:]] == [n for n in before if n not in trained]
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


def test_a_predictor_chooses_and_says_how_far_it_is_to_be_trusted(tmp_path: Path) -> None:
    """The same whatever the number of processes, and when interrupted at any training."""
    whole = finished(tmp_path, budget=60)
    best = [item.number for item in whole.ranked()][:STARTERS]
    train_short_list(whole, make_job(steps=2), 20, ignore)
    trained = whole.short_trainings()
    assert set(best) <= set(trained)
    assert len(trained) == 20
    order = whole.order
    assert order is not None
    assert order.trained == 20
    assert order.agreement.low <= order.agreement.value <= order.agreement.high
    after = whole.ranked()
    assert [item.number in trained for item in after] == [True] * 20 + [False] * (len(after) - 20)
    outcomes = [trained[item.number] for item in after[:20]]
    assert outcomes == sorted(outcomes, reverse=True)
    hopes = [item.expected for item in after[20:]]
    assert hopes == sorted(hopes, reverse=True)
    assert len(set(hopes)) > 1
    for stop in (3, 13):
        run = finished(tmp_path, budget=60)

        def interrupt(done: int, total: int, stop: int = stop) -> None:
            if done == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_short_list(run, make_job(steps=2, workers=2), 20, interrupt)
        assert stop <= len(run.short_trainings()) < 20
        train_short_list(run, make_job(steps=2, workers=2), 17, ignore)
        train_short_list(run, make_job(steps=2), 20, ignore)
        again = run.short_trainings()
        assert again.keys() == trained.keys()
        assert [again[key] for key in trained] == pytest.approx(list(trained.values()), rel=1e-3)
        assert [item.number for item in run.ranked()] == [item.number for item in after]


def test_what_is_learned_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where trainings favour one operation, candidates with it are chosen; a zero-shot score that
    says nothing does no harm."""
    run, asked = finished(tmp_path, budget=200), []

    def worth_of(graph: Graph) -> int:
        return sum(node.op.kind == "max_pool" for node in graph.nodes)

    def pretend(graphs: dict[int, Graph], job: RefineJob) -> Iterator[tuple[int, Any, float]]:
        for number, graph in graphs.items():
            worth = worth_of(graph)
            asked.append(worth)
            yield number, ShortTraining((5.0 - worth,) * 2, Score(0.5, 1.0)), 0.0

    monkeypatch.setattr("ghnas.engine.stages.short_list.train_all", pretend)
    train_short_list(run, make_job(), 48, ignore)
    space = SPACE.for_images((3, 8, 8), 2)
    pool = [worth_of(space.architecture(t.architecture.choices).graph) for t in run.ranked()]
    assert sum(asked[8:]) / 40 > sum(pool) / len(pool) + 1.5
    assert max(asked) == max(pool)


def test_trainings_start_from_predicted_weights(
    ghnas: Ghnas, tiny_ghn: Path, tmp_path: Path
) -> None:
    """Where the networks are those that the hypernetwork is for; a study has one kind of start."""
    options = ("--results", tmp_path)
    first = ("--ghn", tiny_ghn, "--score-images", 32, "--budget", 6, *options)
    code, out, err = ghnas("search", *first, "--train", 2, "--train-steps", 2)
    assert code == 0, err
    assert "2 steps each, from predicted weights" in out
    run = open_run(next((tmp_path / "runs").iterdir()))
    best = run.ranked(1)[0]
    graph, ghn = best.architecture.graph, load_ghn(tiny_ghn)
    inputs = load_inputs(run)
    job = short_list_job(run, objective_of(run, *inputs, CPU, 1), steps=2)
    assert job.start == "ghn"
    (weights,) = ghn.predict_graphs([graph])
    expected = train_briefly(graph, weights, job.batches, job.checks, job.settings)
    assert best.short_training == pytest.approx(quality(expected), rel=1e-3)
    again = ("search", "--resume", *options, "--train", 3)
    code, out, err = ghnas(*again, "--train-steps", 2, "--train-from", "kaiming")
    assert code == 2
    assert "trained with start ghn, not kaiming" in err
    code, out, err = ghnas(*again, "--train-steps", 2, "--train-from", "elsewhere")
    assert code == 2
    assert "ghn or kaiming, not 'elsewhere'" in err
    deeper = ("--train", 1, "--train-steps", 1, "--train-cells", 3)
    code, out, err = ghnas("search", *first, *deeper, "--train-from", "ghn")
    assert code == 2
    assert "no hypernetwork for the networks" in err
    code, out, err = ghnas("search", *first, *deeper)
    assert code == 0, err
    assert "from Kaiming initialisation" in out


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
    short = ("--train", 2, "--train-steps", 2, "--train-cells", 1)
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
