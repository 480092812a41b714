"""The second stage of a search: some candidates trained for a moment."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pretended_trainings import CPU, SPACE, make_job, plan, pretend
from searching import finished, make_manifest, ranking

from ghnas.architectures.graph import Graph
from ghnas.architectures.network import kaiming
from ghnas.engine.manifest import ShortList
from ghnas.engine.run import SHORT_LIST, open_run
from ghnas.engine.search import search
from ghnas.engine.stages.candidates import train_candidates
from ghnas.engine.stages.inputs import load_inputs, objective_of
from ghnas.engine.stages.short_list import (
    STARTERS,
    TrainingProgress,
    estimate_seconds,
    train_short_list,
)
from ghnas.engine.stages.training_jobs import TrainingJob, training_job
from ghnas.engine.stages.training_plan import TrainingPlan
from ghnas.engine.trainings import longest, quality, repeated
from ghnas.ghn.checkpoint import load_ghn
from ghnas.scoring.evaluation import Score
from ghnas.spaces import load_space
from ghnas.training.short import ShortTraining, train_briefly
from ghnas.utils.errors import UserError

Ghnas = Callable[..., tuple[int, str, str]]


def ignore(progress: TrainingProgress) -> None:
    pass


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ghnas.engine.stages.short_list.train_all", pretend)


def test_the_best_are_trained_and_come_first(tmp_path: Path) -> None:
    run, job, calls = finished(tmp_path), make_job(), []
    before = [item.number for item in run.ranked()]
    train_short_list(run, job, plan(5), lambda call: calls.append((call.done, call.total)))
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
    train_short_list(run, make_job(workers=2), plan(3), ignore)
    first = {item.number: item.short_training for item in run.ranked(3)}
    train_short_list(run, make_job(), plan(6), lambda call: calls.append((call.done, call.total)))
    assert calls[0] == (3, 6)
    assert len(run.study_beside(SHORT_LIST, "short_training", "maximize").trials) == 6
    again = {item.number: item.short_training for item in run.ranked(6)}
    assert first.items() <= again.items()
    whole = finished(tmp_path)
    train_short_list(whole, make_job(), plan(6), ignore)
    assert ranking(whole) == ranking(run)
    with pytest.raises(UserError, match="trained with steps 3, not 4"):
        train_short_list(run, make_job(), plan(6, 4), ignore)
    with pytest.raises(UserError, match="trained with skeleton"):
        train_short_list(run, replace(make_job(), space=run.space), plan(6), ignore)


@pytest.mark.usefixtures("pretended")
def test_a_predictor_chooses_and_says_how_far_it_is_to_be_trusted(tmp_path: Path) -> None:
    """The same when interrupted at any training."""
    whole = finished(tmp_path, budget=60)
    best = [item.number for item in whole.ranked()][:STARTERS]
    train_short_list(whole, make_job(), plan(20), ignore)
    trained = whole.short_trainings()
    assert set(best) <= set(trained)
    assert len(trained) == 20
    order = whole.order
    assert order is not None
    assert order.trained == 20
    assert order.agreement.low <= order.agreement.value <= order.agreement.high
    assert order.noise is None
    after = whole.ranked()
    assert [item.number in trained for item in after] == [True] * 20 + [False] * (len(after) - 20)
    outcomes = [trained[item.number] for item in after[:20]]
    assert outcomes == sorted(outcomes, reverse=True)
    assert all(item.expected is not None for item in after)
    hopes = [item.expected for item in after[20:]]
    assert hopes == sorted(hopes, reverse=True)
    assert len(set(hopes)) > 1
    for stop in (3, 13):
        run = finished(tmp_path, budget=60)

        def interrupt(progress: TrainingProgress, stop: int = stop) -> None:
            if progress.done == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_short_list(run, make_job(), plan(20), interrupt)
        assert len(run.short_trainings()) == stop
        train_short_list(run, make_job(), plan(17), ignore)
        train_short_list(run, make_job(), plan(20), ignore)
        assert run.short_trainings() == trained
        assert ranking(run) == ranking(whole)


def test_what_is_learned_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where trainings favour one operation, candidates with it are chosen; a zero-shot score that
    says nothing does no harm."""
    run, asked = finished(tmp_path, budget=200), []

    def worth_of(graph: Graph) -> int:
        return sum(node.op.kind == "max_pool" for node in graph.nodes)

    def pretended(graphs: dict[int, Graph], job: TrainingJob) -> Iterator[tuple[int, Any, float]]:
        for number, graph in graphs.items():
            worth = worth_of(graph)
            asked.append(worth)
            yield number, ShortTraining((5.0 - worth,) * 2, Score(0.5, 1.0)), 0.0

    monkeypatch.setattr("ghnas.engine.stages.short_list.train_all", pretended)
    train_short_list(run, make_job(), plan(48), ignore)
    pool = [worth_of(SPACE.architecture(t.architecture.choices).graph) for t in run.ranked()]
    assert sum(asked[8:]) / 40 > sum(pool) / len(pool) + 1.5
    assert max(asked) == max(pool)


def test_a_second_training_tells_the_noise(tmp_path: Path) -> None:
    """Of real trainings: with other images and initial weights the loss is another one."""
    run, job = finished(tmp_path), make_job()
    train_short_list(run, job, plan(16, repeats=3), ignore)
    pairs = repeated(run.trainings())
    assert len(pairs) == 3
    assert all(first != second for first, second in pairs)
    assert len(run.short_trainings()) == 16
    order = run.order
    assert order is not None
    assert order.noise is not None
    assert order.noise.repeated == 3
    assert order.noise.deviation.value > 0
    assert order.noise.ceiling.low <= order.noise.ceiling.value <= 1
    assert order.combined is not None
    assert order.combined.keys() == run.short_trainings().keys()
    (twice,) = (item for item in run.trainings() if item.repeat and item.trial == pair_of(run))
    graph = SPACE.architecture(run.read()[twice.trial].architecture.choices).graph
    other = job.of(3, repeat=1)
    parameters = kaiming(graph, torch.Generator().manual_seed(other.seed))
    trained = train_briefly(graph, parameters, other.batches, other.checks, other.settings)
    assert twice.outcome == pytest.approx(quality(trained), rel=1e-3)


def pair_of(run: Any) -> int:
    """A candidate that was trained twice."""
    return next(item.trial for item in run.trainings() if item.repeat)


@pytest.mark.usefixtures("pretended")
def test_the_best_are_trained_longer(tmp_path: Path) -> None:
    """A third of them three times as long, a sixth of all six times; they come first."""
    run = finished(tmp_path, budget=40)
    train_short_list(run, make_job(), plan(18, 2, 6, 12), ignore)
    firsts = run.short_trainings()
    by_length = {
        steps: {r.trial: r.outcome for r in run.trainings() if r.steps == steps}
        for steps in (2, 6, 12)
    }
    assert [len(found) for found in by_length.values()] == [18, 6, 3]
    assert by_length[2] == firsts
    for shorter, longer in ((2, 6), (6, 12)):
        best = sorted(by_length[shorter].values(), reverse=True)[: len(by_length[longer])]
        assert sorted((by_length[shorter][n] for n in by_length[longer]), reverse=True) == best
    ranked = run.ranked()
    assert [item.trained_steps for item in ranked[:18]] == [12] * 3 + [6] * 3 + [2] * 12
    for place in (slice(0, 3), slice(3, 6), slice(6, 18)):
        outcomes = [item.short_training for item in ranked[place]]
        assert outcomes == sorted(outcomes, reverse=True)
    known = longest(run.trainings())
    assert {item.number: (item.trained_steps, item.short_training) for item in ranked[:18]} == known
    # a run whose candidates had the first length goes on with the others
    other = finished(tmp_path, budget=40)
    train_short_list(other, make_job(), plan(18, 2), ignore)
    train_short_list(other, make_job(), plan(18, 2, 6, 12), ignore)
    assert ranking(other) == ranking(run)


@pytest.mark.usefixtures("pretended")
def test_as_many_as_fit_in_a_time(tmp_path: Path) -> None:
    """Half a second each, three of them twice, and longer ones: the same as by their number."""
    run, job = finished(tmp_path, budget=60), make_job()
    timed = TrainingPlan(None, (2, 4), seconds=20)
    train_short_list(run, job, timed, ignore)
    count = len(run.short_trainings())
    spent = sum(item.seconds for item in run.trainings())
    assert spent <= 20 < spent + 2
    whole = finished(tmp_path, budget=60)
    train_short_list(whole, job, TrainingPlan(count, (2, 4)), ignore)
    assert ranking(whole) == ranking(run)
    # interrupted in a batch, it comes to the same number
    other = finished(tmp_path, budget=60)

    def interrupt(progress: TrainingProgress) -> None:
        if progress.done == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_short_list(other, job, timed, interrupt)
    train_short_list(other, job, timed, ignore)
    assert ranking(other) == ranking(run)
    # twice the time adds to what there is
    train_short_list(other, job, TrainingPlan(None, (2, 4), seconds=30), ignore)
    assert run.short_trainings().items() < other.short_trainings().items()


@pytest.mark.usefixtures("pretended")
def test_the_cost_is_known_before_and_the_rest_meanwhile(tmp_path: Path) -> None:
    run, job, calls = finished(tmp_path, budget=40), make_job(), []
    plan_ = plan(18, 2, 6, repeats=3)
    count, seconds = estimate_seconds(run, job, plan_)
    assert count == 18
    assert seconds > 0
    train_short_list(run, job, plan_, calls.append)
    assert {call.total for call in calls} == {18 + 3 + 6}
    assert [call.done for call in calls][-1] == 27
    assert calls[0].eta is None
    assert calls[-1].eta == 0
    assert {call.doing for call in calls} == {"", "again", "6 steps"}
    # nothing is left of it; twice as many would cost as much again, by what was measured
    assert estimate_seconds(run, job, plan_) == (18, 0)
    more = plan(36, 2, 6, repeats=3)
    count, seconds = estimate_seconds(run, job, more)
    assert seconds == pytest.approx((more.all_steps(36) - plan_.all_steps(18)) * 0.25)


def test_trainings_are_kept_in_a_folder() -> None:
    space = load_space("nasbench201")
    study = search(space, lambda architecture: -architecture.flops, budget=2)
    with pytest.raises(UserError, match="are kept in a run"):
        train_candidates(study, Any, 2)  # type: ignore[arg-type]


def test_lengths_ascend() -> None:
    for steps in ((), (3, 1), (2, 2), (0,)):
        with pytest.raises(UserError, match="must ascend"):
            TrainingPlan(4, steps)
    with pytest.raises(UserError, match="not both"):
        TrainingPlan(4, (1,), seconds=3.0)


def test_trainings_start_from_predicted_weights(
    ghnas: Ghnas, tiny_ghn: Path, tmp_path: Path
) -> None:
    """Where the networks are those that the hypernetwork is for; a study has one kind of start."""
    options = ("--results", tmp_path)
    first = ("--ghn", tiny_ghn, "--score-images", 32, "--budget", 6, *options)
    code, out, err = ghnas("search", *first, "--train", 2, "--train-steps", 2)
    assert code == 0, err
    assert "2 steps each, from predicted weights" in out
    assert "this takes about" in out
    run = open_run(next((tmp_path / "runs").iterdir()))
    best = run.ranked(1)[0]
    graph, ghn = best.architecture.graph, load_ghn(tiny_ghn)
    inputs = load_inputs(run)
    job = training_job(run, objective_of(run, *inputs, CPU, 1), steps=2)
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
    train_short_list(run, make_job(), plan(2, 3, 6), ignore)
    trials = {
        (trial.user_attrs["trial"], trial.user_attrs["steps"]): trial
        for trial in run.study_beside(SHORT_LIST, "short_training", "maximize").trials
    }
    assert len(trials) == 3
    for item in run.ranked(2):
        trial = trials[item.number, item.trained_steps or 0]
        assert run.space.architecture(trial.params) == item.architecture
        assert list(trial.intermediate_values) == list(range(1, (item.trained_steps or 0) + 1))
        assert trial.value == item.short_training
        assert 0 <= trial.user_attrs["accuracy"] <= 1


def test_several_objectives_have_no_short_list(tmp_path: Path) -> None:
    run = finished(tmp_path, objectives=("accuracy", "params"))
    with pytest.raises(UserError, match="accuracy,params are several"):
        train_short_list(run, make_job(), plan(2), ignore)
    with pytest.raises(UserError, match="accuracy,params are several"):  # before anything is spent
        make_manifest(objectives=("accuracy", "params"), short_list=ShortList(count=2))


def test_search_with_a_short_list(ghnas: Ghnas, tiny_ghn: Path, tmp_path: Path) -> None:
    options = ("--ghn", tiny_ghn, "--score-images", 32, "--results", tmp_path, "--json")
    short = ("--train", 3, "--train-steps", "2,6", "--train-cells", 1)
    code, out, err = ghnas("search", "--budget", 6, *short, *options)
    assert code == 0, err
    best = json.loads(out)["best"]
    assert [item["trained_steps"] for item in best] == [6, 2, 2, None, None, None]
    assert [item["short_training"] is None for item in best] == [False] * 3 + [True] * 3
    assert "the best 1 again for 6 steps: 4 trainings in all" in err
    assert "4/4 trained" in err
    code, out, err = ghnas("search", "--resume", "--refine", 4, "--results", tmp_path)
    assert code == 0, err
    assert "6/6 trained" in out
    assert "loss" in out
    code, out, err = ghnas("search", "--resume", "--train", 0, "--results", tmp_path)
    assert code == 0, err
    assert "trained " not in out
    code, out, err = ghnas("search", "--resume", "--time", "0.1s", "--results", tmp_path)
    assert code == 0, err
    assert "6/6 trained" in out
    for wrong, said in (
        (("--train", 2, "--time", "2m"), "give one of them"),
        (("--time", "soon"), "such as 90s"),
        (("--train-epochs", "3,1"), "several that ascend"),
        (("--train-epochs", "1,x"), "whole number"),
    ):
        code, out, err = ghnas("search", "--resume", *wrong, "--results", tmp_path)
        assert code == 2
        assert said in err
