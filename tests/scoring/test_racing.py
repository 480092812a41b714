"""Racing: the rule, what it learns, and what a search makes of it."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch

from ghnas.architectures.graph import Graph
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
