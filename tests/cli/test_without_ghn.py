"""A search without a hypernetwork, from the first score to the trained network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from searching import write_own_task

import ghnas as package

Ghnas = Callable[..., tuple[int, str, str]]


@pytest.fixture
def options(tmp_path: Path) -> tuple[object, ...]:
    """A space and images of the user's own; images are larger than networks see them."""
    return write_own_task(tmp_path, (70, 90), 80)


def test_ones_own_space_and_images(
    ghnas: Ghnas, options: tuple[object, ...], tmp_path: Path
) -> None:
    results = ("--results", tmp_path / "results")
    search = ("search", *options, "--adapt", 0, "--score-images", 8, "--budget", 6)
    code, out, err = ghnas(*search, *results, "--json")
    assert code == 0, err
    (note,) = (line for line in err.splitlines() if "no hypernetwork ships" in line)
    assert "ordered by naswot, a training-free proxy, at 32x32 pixels" in note
    assert "--train 32" in note
    assert f"`ghnas train --space {options[1]} --data {options[3]}`" in note
    found = json.loads(out)
    manifest = found["manifest"]
    assert manifest["objectives"] == ["naswot"]
    assert manifest["sources"] == {"data": str(options[3]), "ghn": None}
    scores = [item["naswot"] for item in found["best"]]
    assert scores == sorted(scores, reverse=True)
    assert f"best {scores[0]:.4g}" in err

    resume = ("search", "--resume", "--ghn", "none", "--objective", "naswot")
    code, out, err = ghnas(*resume, "--train", 2, "--train-steps", 1, *results)
    assert code == 0, err
    assert "2/2 trained" in out
    assert "loss" in out
    code, _, err = ghnas("search", "--resume", "--ghn", "darts-embedded", *results)
    assert code == 2
    assert "was started with --ghn none" in err

    code, out, err = ghnas("runs", *results)
    assert code == 0, err
    assert f"{scores[0]:.4g}" in out
    code, out, err = ghnas("show", "top-1", *results)
    assert code == 0, err
    assert ": naswot " in out.splitlines()[0]
    assert "zero-shot" not in out

    train = ("finetune", "top-1", "--epochs", 1, "--batch-size", 16, *results)
    code, _, err = ghnas(*train, "--baseline")
    assert code == 2
    assert err.count("\n") == 1
    assert "leave --baseline out" in err
    code, out, err = ghnas(*train)
    assert code == 0, err
    assert "from Kaiming initialisation, for the run has no hypernetwork" in out
    assert "Trained from Kaiming initialisation" in out
    assert "zero-shot" not in out
    code, out, err = ghnas(*train, "--json")
    (trained,) = json.loads(out)
    assert trained["zero_shot"] is None
    assert trained["baseline"] is None
    network = package.load(trained["path"])
    assert network(torch.zeros(3, 3, 32, 32)).shape == (3, 2)


def test_any_space_that_ships(ghnas: Ghnas, options: tuple[object, ...], tmp_path: Path) -> None:
    code, out, err = ghnas(
        *("search", "--space", "mobile", "--data", options[3], "--adapt", 0, "--budget", 4),
        *("--score-images", 8, "--train", 1, "--train-steps", 1),
        *("--results", tmp_path / "results", "--json"),
    )
    assert code == 0, err
    assert "no hypernetwork ships for space mobile and data" in err
    assert [item["short_training"] is None for item in json.loads(out)["best"]] == [False] + [
        True
    ] * 3


def test_none_although_one_ships(ghnas: Ghnas, tmp_path: Path) -> None:
    size = ("--cells", 1, "--channels", 2)
    code, out, err = ghnas(
        *("search", "--ghn", "none", "--objective", "params,synflow", "--budget", 6, *size),
        *("--score-images", 4, "--results", tmp_path, "--json"),
    )
    assert code == 0, err
    assert "no hypernetwork: candidates are ordered by synflow" in err
    assert "--train" not in err
    best = json.loads(out)["best"]
    assert [item["params"] for item in best] == [item["parameters"] for item in best]
