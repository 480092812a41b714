"""The predictor: it orders what it has not seen, says how well, and is written without pickle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ghnas.architectures.architecture import Architecture
from ghnas.scoring.predictor import Predictor, load_predictor
from ghnas.spaces import load_space
from ghnas.utils.errors import UserError
from ghnas.utils.statistics import spearman

SPACE = load_space("nasbench201")
KNOWN = [SPACE.sample(seed) for seed in range(60)]
OTHERS = [SPACE.sample(seed) for seed in range(1000, 1100)]


def accuracy(item: Architecture) -> float:
    operations = list(item.choices.values())
    return operations.count("nor_conv_3x3") - 0.5 * operations.count("avg_pool_3x3")


TRUTH = np.array([accuracy(item) for item in OTHERS])


def fitted(**changes: object) -> Predictor:
    given = {"accuracies": [accuracy(item) for item in KNOWN]} | changes
    return Predictor(SPACE, KNOWN, **given)


def test_it_orders_what_it_has_not_seen() -> None:
    predictor = fitted()
    assert spearman(predictor.predict(OTHERS).mean, TRUTH) > 0.9
    agreement = predictor.agreement()
    assert 0.8 < agreement.low < agreement.value < agreement.high <= 1


def test_it_says_that_noise_cannot_be_predicted() -> None:
    noise = np.random.default_rng(0).normal(size=len(KNOWN))
    agreement = fitted(accuracies=noise).agreement()
    assert agreement.low < 0 < agreement.high


def test_labels_are_ranks() -> None:
    stretched = [np.exp(3 * accuracy(item)) for item in KNOWN]
    first, second = (f.predict(OTHERS) for f in (fitted(), fitted(accuracies=stretched)))
    assert np.array_equal(first.mean, second.mean)


def test_it_is_less_sure_of_what_it_has_not_seen() -> None:
    predictor = fitted()
    known, others = predictor.predict(KNOWN), predictor.predict(OTHERS)
    assert known.deviation.mean() < 0.7 * others.deviation.mean()


def test_scores_are_features() -> None:
    rng = np.random.default_rng(1)
    noise, unseen = rng.normal(size=(60, 1)), rng.normal(size=(100, 1))
    predictor = fitted(accuracies=noise[:, 0], scores=noise)
    assert spearman(predictor.predict(OTHERS, unseen).mean, unseen[:, 0]) > 0.5
    lowest = np.full((100, 1), -np.inf)
    assert np.isfinite(predictor.predict(OTHERS, lowest).mean).all()
    with pytest.raises(ValueError, match="features"):
        predictor.predict(OTHERS)


@pytest.mark.parametrize("scores", [None, np.arange(60.0).reshape(60, 1)])
def test_it_is_loaded_as_it_was_saved(tmp_path: Path, scores: np.ndarray | None) -> None:
    path, seen = tmp_path / "predictor.json", None if scores is None else np.ones((100, 1))
    predictor = fitted(scores=scores, seed=3)
    predictor.save(path)
    loaded = load_predictor(path, SPACE.with_skeleton(cells=1))
    for before, after in zip(
        predictor.predict(OTHERS, seen), loaded.predict(OTHERS, seen), strict=True
    ):
        assert np.array_equal(before, after)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"space": "darts"}, "is a predictor for space 'darts', not 'nasbench201'"),
        ({"features": ["flops"]}, "was fitted on other features"),
        ({"accuracies": None}, "is no predictor that can be read"),
        ({"accuracies": [0.5] * 9}, "can be read: there are 9 accuracies of"),
        ({"accuracies": [float("nan")] * len(KNOWN)}, "an accuracy is no finite number"),
        ({"scores": [0.5] * (len(KNOWN) + 1)}, "is no predictor that can be read"),
        ({"seed": -1}, "the seed must be from 0"),
        ({"format": "1"}, "is no predictor that can be read"),
        ({"architectures": ["|x~0|"]}, "is no predictor|not an architecture"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    path = tmp_path / "predictor.json"
    fitted().save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=sentence):
        load_predictor(path, SPACE)


def test_too_few_to_fit_on() -> None:
    with pytest.raises(UserError, match="3 trained architectures are too few"):
        Predictor(SPACE, KNOWN[:3], [1.0, 2.0, 3.0])
