"""Racing: the rule, what it learns, and what a search makes of it."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from searching import entries, make_manifest, ranking

from ghnas.architectures.graph import Graph
from ghnas.engine.loop import search
from ghnas.engine.runs import create_run
from ghnas.ghn.config import GHNConfig
from ghnas.ghn.model import GHN
from ghnas.scoring.evaluation import Score
from ghnas.scoring.racing import Race, Stage, bar_of, fit_stages
from ghnas.scoring.scorer import Scorer
from ghnas.spaces import load_space


def test_a_candidate_stops_when_it_can_no_longer_be_among_the_best() -> None:
    race = Race((Stage(0.1, 1.0, -0.1, 0.05), Stage(0.0, 1.0, 0.0, 0.02)), bar=0.8)
    assert race.verdict(1, 0.6, 0.5) == pytest.approx(0.65)  # 0.65 + 0.05 < 0.8
    assert race.verdict(1, 0.75, 0.5) is None  # 0.8 + 0.05 >= 0.8
    assert race.verdict(2, 0.77, 3.0) == pytest.approx(0.77)
    assert race.verdict(2, 0.79, 3.0) is None
    assert race.verdict(3, 0.0, 9.0) is None  # it has seen everything
    assert race.verdict(1, 0.9, math.inf) == 0.0


def test_what_follows_from_the_first_images_is_learned() -> None:
    rng = np.random.default_rng(0)
    accuracy, loss = rng.uniform(0.3, 0.9, 200), rng.uniform(0.5, 2.0, 200)
    early = [((a, b),) for a, b in zip(accuracy, loss, strict=True)]
    (stage,) = fit_stages(early, 0.2 + 0.5 * accuracy - 0.1 * loss)
    assert stage.intercept == pytest.approx(0.2)
    assert (stage.accuracy, stage.loss) == pytest.approx((0.5, -0.1))
    assert stage.margin == pytest.approx(0, abs=1e-9)


def test_the_margin_covers_the_errors() -> None:
    """With errors of 2 points, a margin of two of their standard deviations is 4 points."""
    rng = np.random.default_rng(0)
    accuracy = rng.uniform(0.3, 0.9, 4000)
    early = [((a, 1.0),) for a in accuracy]
    (stage,) = fit_stages(early, accuracy + rng.normal(0, 0.02, 4000), margin=2.0)
    assert stage.margin == pytest.approx(0.04, rel=0.1)


def test_the_bar_is_the_kth_best() -> None:
    assert bar_of([0.1, 0.5, 0.4, 0.3], 2) == 0.4
    assert bar_of([0.1, 0.5], 3) == 0.0


class KnownScorer:
    """Accuracies from the graph's hash; the first batch tells it nearly, the second tells all."""

    def __init__(self) -> None:
        self.images = 0

    def score(
        self,
        graphs: Sequence[Graph],
        wanted: Sequence[int] | None = None,
        race: Race | None = None,
    ) -> list[Score | None]:
        chosen = range(len(graphs)) if wanted is None else wanted
        scores: list[Score | None] = [None] * len(graphs)
        for i in chosen:
            rng = random.Random(graphs[i].hash)
            truth = rng.random()
            first = truth + rng.gauss(0, 0.02)
            expected = race.verdict(1, first, 1 - truth) if race else None
            self.images += 64 if expected is not None else 128
            scores[i] = (
                Score(truth, 1 - truth, 128, ((first, 1 - truth),))
                if expected is None
                else Score(expected, 1 - truth, 64, stopped=True)
            )
        return scores


def test_the_best_of_a_race_are_the_best_of_all(tmp_path: Path) -> None:
    settings = {"budget": 1500, "batch_size": 100}
    exact, raced = KnownScorer(), KnownScorer()
    whole = create_run(tmp_path, make_manifest(**settings))
    search(whole, exact)
    run = create_run(tmp_path, make_manifest(**settings, keep=20))
    search(run, raced)
    best = {item.record.number for item in whole.ranked(20)}
    found = {item.record.number for item in run.ranked(20)}
    assert len(best & found) >= 19
    assert raced.images < 0.75 * exact.images
    kept = {record.number: record.accuracy for record in whole.recorded()}
    for record in run.recorded():
        if record.images is None:
            assert record.accuracy == kept[record.number]
        else:
            assert record.images == 64


def test_an_interrupted_race_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    settings = {"budget": 700, "batch_size": 100, "keep": 10}
    whole = create_run(tmp_path, make_manifest(**settings))
    search(whole, KnownScorer())

    class Stopping(KnownScorer):
        left = 5

        def score(self, *arguments: object) -> list[Score | None]:  # type: ignore[override]
            Stopping.left -= 1
            if Stopping.left < 0:
                raise KeyboardInterrupt
            return super().score(*arguments)  # type: ignore[arg-type]

    run = create_run(tmp_path, make_manifest(**settings))
    with pytest.raises(KeyboardInterrupt):
        search(run, Stopping())
    assert len(run.recorded()) == 500
    search(run, KnownScorer())
    assert entries(run) == entries(whole)
    assert ranking(run) == ranking(whole)


@pytest.fixture(scope="module")
def scored() -> tuple[Scorer, list[Graph], list[Score]]:
    torch.manual_seed(0)
    batches = [
        (torch.randn(8, 3, 8, 8), torch.arange(8) % 2),
        (torch.randn(8, 3, 8, 8), torch.arange(8) % 2),
    ]
    scorer = Scorer(GHN(GHNConfig(num_classes=2)), batches, torch.device("cpu"), workers=1)
    space, rng = load_space("darts").with_skeleton(cells=1, channels=2), random.Random(0)
    graphs = [space.sample(rng).for_images((3, 8, 8), 2).graph for _ in range(12)]
    scores = [score for score in scorer.score(graphs) if score is not None]
    assert len(scores) == 12
    return scorer, graphs, scores


def test_a_scorer_without_a_race_sees_all_images(
    scored: tuple[Scorer, list[Graph], list[Score]],
) -> None:
    for score in scored[2]:
        assert (score.images, score.stopped, len(score.early)) == (16, False, 1)


def test_a_scorer_stops_those_that_the_race_stops_and_no_others(
    scored: tuple[Scorer, list[Graph], list[Score]],
) -> None:
    scorer, graphs, scores = scored
    first = sorted(score.early[0][0] for score in scores)
    race = Race((Stage(0.0, 1.0, 0.0, 0.0),), bar=first[6])
    for score, before in zip(scorer.score(graphs, race=race), scores, strict=True):
        assert score is not None
        assert score.stopped == (before.early[0][0] < first[6])
        if score.stopped:
            assert (score.images, score.accuracy) == (8, pytest.approx(before.early[0][0]))
        else:
            assert score == before
