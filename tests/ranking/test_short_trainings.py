"""Short trainings in a ranking: each is done once, on images as they are said to be."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from searching import save_untrained

from ghnas.architectures.network import kaiming
from ghnas.data import evaluation_batches, load_data, random_batches
from ghnas.ghn.checkpoint import load_ghn, save_ghn
from ghnas.ranking import scores
from ghnas.spaces import load_space
from ghnas.training.short import ShortTraining, train_briefly

Ghnas = Callable[..., tuple[int, str, str]]
RANK = ("rank", "--space", "nasbench201", "--cells", 1, "--channels", 4, "--workers", 1)


@pytest.fixture
def five(tmp_path: Path) -> Path:
    """Five architectures of NAS-Bench-201 with accuracies."""
    space = load_space("nasbench201")
    rows = [(str(space.sample(seed)), 0.5 + seed / 100) for seed in range(5)]
    path = tmp_path / "five.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("architecture", "accuracy"), *rows])
    return path


@pytest.fixture
def other_ghn(tmp_path: Path) -> Path:
    """For 8 x 8 images, normalised in another way than by their own mean and deviation."""
    path = tmp_path / "other.safetensors"
    small = load_space("nasbench201").with_skeleton(cells=1, channels=4)
    save_untrained(path, small, load_data(image_size=8))
    ghn = load_ghn(path)
    ghn.info = replace(ghn.info, mean=(0.1, 0.2, 0.3), std=(0.9, 0.8, 0.7))
    save_ghn(path, ghn)
    return path


def scores_in(folder: Path) -> dict[tuple[str, str], float]:
    with (folder / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {(row["method"], row["architecture"]): float(row["score"]) for row in rows}


def test_short_trainings_of_as_many_steps_are_one(
    ghnas: Ghnas, five: Path, other_ghn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []

    def counted(graph: Any, parameters: Any, batches: Any, checks: Any) -> ShortTraining:
        lengths.append(len(batches))
        return train_briefly(graph, parameters, batches, checks)

    monkeypatch.setattr(scores, "train_briefly", counted)
    common = (*RANK, "--truth", five, "--ghn", other_ghn, "--score-images", 128)
    pairs = (("steps-3", "tse-3"), ("ghn-steps-3", "ghn-tse-3"))
    for number, names in enumerate((*pairs, ("tse-3",), ("steps-3", "tse-2"))):
        output = ("--methods", ",".join(names), "--output", tmp_path / str(number))
        code, _, err = ghnas(*common, *output)
        assert code == 0, err
    assert sorted(lengths) == [2] * 5 + [3] * 20
    together, alone, apart = (scores_in(tmp_path / str(number)) for number in (0, 2, 3))
    assert alone.items() <= together.items()
    kept = {key: value for key, value in apart.items() if key[0] == "steps-3"}
    assert kept.items() <= together.items()


def test_rank_says_at_what_size_it_trains(
    ghnas: Ghnas, five: Path, other_ghn: Path, tmp_path: Path
) -> None:
    common = (*RANK, "--truth", five, "--methods", "tse-1", "--output")
    code, out, err = ghnas(*common, tmp_path / "without")
    assert code == 0, err
    assert "at 16x16 pixels: the data's own size" in out
    code, out, err = ghnas(*common, tmp_path / "asked", "--image-size", 12)
    assert code == 0, err
    assert "at 12x12 pixels: as asked for" in out
    common = (*RANK, "--truth", five, "--methods", "tse-1,ghn-loss", "--output")
    code, out, err = ghnas(*common, tmp_path / "with", "--ghn", other_ghn)
    assert code == 0, err
    assert "at 8x8 pixels: as the hypernetwork was trained" in out
    for folder, size in (("without", "16x16"), ("with", "8x8")):
        text = (tmp_path / folder / "ranking.md").read_text()
        assert f"short trainings: 1 cells, 4 channels; {size}; 64 images a step" in text


def test_short_trainings_see_images_as_the_hypernetwork_does(
    ghnas: Ghnas, five: Path, other_ghn: Path, tmp_path: Path
) -> None:
    """As in a search with a short list: one mean and deviation for all methods."""

    names = ("--methods", "tse-1,ghn-loss", "--seed", 3)
    common = (*RANK, "--truth", five, "--ghn", other_ghn, "--score-images", 64)
    code, _, err = ghnas(*common, *names, "--output", tmp_path / "out")
    assert code == 0, err
    found, info = scores_in(tmp_path / "out"), load_ghn(other_ghn).info
    data = load_data(image_size=8).normalised_with(info.mean, info.std)
    look = {"device": "cpu", "mean": data.mean, "std": data.std}
    batch = next(random_batches(data.train, 64, seed=3, mirror=data.mirror, shift=1, **look))
    checks = evaluation_batches(data.validation.take(64), 64, **look)
    space = load_space("nasbench201").with_skeleton(cells=1, channels=4)
    for seed in range(5):
        architecture = space.sample(seed)
        graph = architecture.for_images((3, 8, 8), 10).graph
        initial = kaiming(graph, torch.Generator().manual_seed(3))
        expected = -train_briefly(graph, initial, [batch], checks).summed_loss()
        assert found["tse-1", str(architecture)] == pytest.approx(expected, rel=1e-4)
