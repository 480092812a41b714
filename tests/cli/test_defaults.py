"""What a search takes from the space and from the hypernetwork, unless it is told otherwise."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from searching import save_untrained

from ghnas.cli.objectives import default_objective
from ghnas.data import load_data
from ghnas.spaces import load_space, parse_space, read_space_file
from ghnas.utils.errors import UserError

Ghnas = Callable[..., tuple[int, str, str]]
SMALL = {"channels": 4, "cells": 1, "stages": 2}


@pytest.fixture(scope="module")
def small_ghn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For a small skeleton of nasbench201 on 8 x 8 images."""
    path = tmp_path_factory.mktemp("ghn") / "small.safetensors"
    space = load_space("nasbench201").with_skeleton(**SMALL)
    return save_untrained(path, space, load_data("embedded", image_size=8))


def test_skeleton_images_and_objective(ghnas: Ghnas, small_ghn: Path, tmp_path: Path) -> None:
    options = ("--budget", 6, "--score-images", 32, "--results", tmp_path, "--json")
    code, out, err = ghnas("search", "--space", "nasbench201", "--ghn", small_ghn, *options)
    assert code == 0, err
    manifest = json.loads(out)["manifest"]
    assert manifest["skeleton"] == SMALL
    assert manifest["image_shape"] == [3, 8, 8]
    assert manifest["objectives"] == ["composite"]
    assert all(item["composite"] is not None for item in json.loads(out)["best"])
    assert "200/200 for comparison" in err

    code, out, err = ghnas("show", "top-1", "--results", tmp_path)
    assert code == 0, err
    assert "composite" in out.splitlines()[0]

    told = ("--cells", 2, "--objective", "accuracy")
    code, out, err = ghnas("search", "--space", "nasbench201", "--ghn", small_ghn, *told, *options)
    assert code == 0, err
    manifest = json.loads(out)["manifest"]
    assert manifest["skeleton"] == SMALL | {"cells": 2}
    assert manifest["objectives"] == ["accuracy"]
    assert all("composite" not in item for item in json.loads(out)["best"])


@pytest.mark.parametrize(
    ("space", "data", "expected"),
    [
        ("darts", "cifar10", "predicted"),
        ("darts", "embedded", "accuracy"),
        ("nasbench201", "cifar10", "composite"),
    ],
)
def test_the_objective_follows_from_what_ships(space: str, data: str, expected: str) -> None:
    assert default_objective(load_space(space), data) == expected


def test_rank_by_a_predictor_that_does_not_ship(ghnas: Ghnas, tmp_path: Path) -> None:
    with (tmp_path / "truth.csv").open("w", newline="") as file:
        rows = [(load_space("darts").sample(seed), 0.5 + seed / 10) for seed in range(3)]
        csv.writer(file).writerows([("architecture", "accuracy"), *rows])
    code, _, err = ghnas(
        *("rank", "--truth", tmp_path / "truth.csv", "--methods", "predicted"),
        *("--output", tmp_path / "out"),
    )
    assert code == 2
    assert "no predictor ships for space 'darts' and data 'digitscapes'" in err


def test_a_file_of_ones_own_says_itself_what_it_is(
    ghnas: Ghnas, small_ghn: Path, tmp_path: Path
) -> None:
    text = read_space_file("nasbench201").replace("cells: 5 ", "cells: 1 ")
    (tmp_path / "mine.yaml").write_text(text.replace("objective: composite", "objective: accuracy"))
    code, out, err = ghnas(
        *("search", "--space", tmp_path / "mine.yaml", "--ghn", small_ghn, "--budget", 4),
        *("--score-images", 32, "--results", tmp_path, "--json"),
    )
    assert code == 0, err
    manifest = json.loads(out)["manifest"]
    assert manifest["skeleton"] == dict(load_space("nasbench201").skeleton) | {"cells": 1}
    assert manifest["objectives"] == ["accuracy"]
    assert "note: the hypernetwork was trained for channels 4, stages 2" in err


def test_an_unknown_objective_of_a_space() -> None:
    text = read_space_file("darts") + "\nobjective: speed\n"
    with pytest.raises(UserError, match=r"mine\.yaml: key 'objective': .*'accuracy'"):
        parse_space(text, "mine.yaml")


def test_objectives_of_a_space_have_earlier_names() -> None:
    text = read_space_file("nasbench201").replace("objective: composite", "objective: consensus")
    assert parse_space(text, "mine.yaml").objective == "composite"


def test_rank_takes_skeleton_and_images_from_the_hypernetwork(
    ghnas: Ghnas, small_ghn: Path, tmp_path: Path
) -> None:
    space = load_space("nasbench201")
    edges = [space.choices[0].options[i % 5] for i in range(6)]
    names = []
    for shift in range(5):
        values = edges[shift:] + edges[:shift]
        pairs = zip(space.choices, values, strict=True)
        names.append(str(space.architecture({choice.name: value for choice, value in pairs})))
    lines = [f"{name},{0.5 + i / 10}" for i, name in enumerate(names)]
    (tmp_path / "truth.csv").write_text("\n".join(["architecture,accuracy", *lines]))
    rank = ("rank", "--truth", tmp_path / "truth.csv", "--space", "nasbench201", "--json")
    options = ("--score-images", 32, "--workers", 1, "--methods", "params,ghn-loss")
    code, out, err = ghnas(*rank, "--ghn", small_ghn, *options, "--output", tmp_path / "out")
    assert code == 0, err
    content = json.loads(out)
    assert content["image_size"] == 8
    assert content["proxy_skeleton"] == SMALL

    # nothing ships for this space and the embedded images: without --methods it is left out
    more = ("--methods", "default,tse-1", "--output", tmp_path / "two")
    code, out, err = ghnas(*rank, "--image-size", 8, "--cells", 1, "--channels", 4, *more)
    assert code == 0, err
    assert "no trained GHN ships" in err
    found = {item["method"] for item in json.loads(out)["methods"]}
    assert {"params", "naswot", "vote", "tse-1"} <= found
    assert not found & {"ghn-accuracy", "ghn-loss", "composite"}
