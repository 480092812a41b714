"""The composite score: hand-worked sums, invariance, disconnected architectures."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ghnas.executors.grouped import GroupedExecutor
from ghnas.executors.module import ModuleExecutor
from ghnas.ghn.config import GHNConfig
from ghnas.ghn.model import GHN
from ghnas.scoring.composite import COMPONENTS, Reference, Scale, measure, reference_for
from ghnas.scoring.evaluation import Components, evaluate_one
from ghnas.scoring.scorer import Scorer
from ghnas.spaces import load_space

SPACE = load_space("nasbench201").with_skeleton(channels=4, cells=1)
SHAPE, CPU = (3, 8, 8), torch.device("cpu")
finite = st.floats(-100, 100)
components = st.builds(Components, finite, finite, finite)


def batches(count: int, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Two classes that differ in brightness."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for _ in range(count):
        labels = torch.arange(16) % 2
        noise = torch.randn(16, *SHAPE, generator=generator)
        result.append((noise + labels.view(-1, 1, 1, 1), labels))
    return result


def graphs(count: int) -> list:
    rng = random.Random(0)
    return [SPACE.sample(rng).for_images(SHAPE, 2).graph for _ in range(count)]


def test_a_score_is_the_sum_in_units_of_spread() -> None:
    reference = Reference({"fit": Scale(1, 2), "separability": Scale(10, 5), "size": Scale(0, 0)})
    item = Components(fit=2, separability=20, size=7)
    assert reference.score(item) == pytest.approx(1 / 2 + 10 / 5)
    assert Reference({"fit": Scale(1, 2)}).score(item) == pytest.approx(1 / 2)
    assert reference.score(Components(-math.inf, 20, 7)) == -math.inf


@given(st.lists(components, min_size=4, max_size=12), st.floats(0.1, 10), finite)
def test_units_do_not_matter(items: list[Components], factor: float, offset: float) -> None:
    """Another unit for a part, or another zero, changes no score."""
    others = [
        Components(item.fit * factor + offset, item.separability, item.size) for item in items
    ]
    first, second = Reference.of(items), Reference.of(others)
    if min(scale.spread for scale in first.scales.values()) < 1e-3:
        return
    for one, other in zip(items, others, strict=True):
        expected = pytest.approx(first.score(one), rel=1e-4, abs=1e-4)
        assert second.score(other) == expected


def test_disconnected_architectures_come_last() -> None:
    nothing = {choice.name: "none" for choice in SPACE.choices}
    candidates = [*graphs(6), SPACE.build(nothing, SHAPE, 2)]
    ghn = GHN(GHNConfig(num_classes=2, hid=8)).eval()
    weights = ghn.predict_graphs(candidates)
    pairs = zip(candidates, weights, strict=True)
    zero_shot = [evaluate_one(*pair, batches(2)) for pair in pairs]
    components = measure(ModuleExecutor(), candidates, weights, batches(2)[0], zero_shot)
    together = measure(GroupedExecutor(), candidates, weights, batches(2)[0], zero_shot)
    assert together == components
    found = list(zip(components, zero_shot, strict=True))
    reference = Reference.of([item for item, _ in found])
    scores = [reference.score(item) for item, _ in found]
    assert scores[-1] == -math.inf
    assert all(math.isfinite(score) for score in scores[:-1])
    for graph, (item, score) in zip(candidates[:-1], found, strict=False):
        assert item.fit == -score.loss
        assert item.size == pytest.approx(math.log(graph.parameter_count))
    with pytest.raises(ValueError, match="no architecture"):
        Reference.of([found[-1][0]])


def test_the_reference_of_a_space_repeats_by_seed() -> None:
    torch.manual_seed(0)
    ghn = GHN(GHNConfig(num_classes=2, hid=8)).eval()
    scorer = Scorer(ghn, batches(1), CPU, workers=1, measure=measure)
    first, again, other = (
        reference_for(SPACE, scorer, SHAPE, count=12, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again != other
    assert set(first.scales) == set(COMPONENTS)


def test_parts_are_the_fields() -> None:
    assert set(COMPONENTS) == set(Components.__dataclass_fields__)
