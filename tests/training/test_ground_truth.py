"""Ground truth: equal seeds give equal files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ghnas.data import ImageData, load_data
from ghnas.spaces import load_space
from ghnas.training.ground_truth import (
    GroundTruthJob,
    accuracies_by_seed,
    draw_architectures,
    make_ground_truth,
    train_populations,
    train_side_by_side,
)
from ghnas.training.sgd import SGDSettings
from ghnas.utils.processes import LocalPool
from ghnas.utils.tables import read_rows


@pytest.fixture(scope="module")
def data() -> ImageData:
    full = load_data()
    return replace(full, train=full.train.take(160), validation=full.validation.take(100))


def job(output: Path, data: ImageData, workers: int, count: int = 4) -> GroundTruthJob:
    space = load_space("darts").with_skeleton(cells=1, channels=4)
    names = draw_architectures(space, data.image_shape, data.num_classes, count, seed=0)
    return GroundTruthJob(
        space, data.without_test(), None, names, 2, "seed 0", output, LocalPool(workers), steps=3,
        batch_size=32,
    )  # fmt: skip


def content(path: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_rows(path)]


def test_a_file_does_not_depend_on_the_number_of_workers(tmp_path: Path, data: ImageData) -> None:
    """Nor on an interruption, nor on the order in which trainings end."""
    one, three, parts = (tmp_path / f"{name}.csv" for name in ("one", "three", "parts"))
    for path, workers in ((one, 1), (three, 3)):
        rows = make_ground_truth(job(path, data, workers), lambda progress: None)
        assert len(rows) == 8
    make_ground_truth(job(parts, data, 3, count=2), lambda progress: None)
    make_ground_truth(job(parts, data, 2), lambda progress: None)
    assert content(one) == content(three) == content(parts)
    accuracies = accuracies_by_seed(read_rows(one), "validation_accuracy")[1]
    assert accuracies.std() > 0


def test_trainings_as_a_population_are_those_of_each(tmp_path: Path, data: ImageData) -> None:
    """As on a GPU, here on a CPU."""
    one = job(tmp_path / "one.csv", data.without_test(), 1, count=3)
    one = replace(one, test=data.load_test().take(100), steps=6, sgd=SGDSettings(0.02))
    missing = [(name, seed) for name in one.architectures for seed in (1, 2)]
    alone = {(row["architecture"], row["seed"]): row for row in train_side_by_side(one, missing)}
    together = list(train_populations(one, missing))
    assert len(together) == len(alone) == 6
    for row in together:
        expected = alone[row["architecture"], row["seed"]]
        for column in ("validation_accuracy", "test_accuracy"):
            assert row[column] == pytest.approx(expected[column], abs=0.021)
        assert row["parameters"] == expected["parameters"]
