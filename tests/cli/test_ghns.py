"""Which hypernetwork a search takes or adapts, `ghnas ghns`, and `ghnas train --from`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from searching import OWN_SPACE, save_untrained, write_own_task

from ghnas.data import load_data
from ghnas.ghn.checkpoint import load_ghn, save_ghn
from ghnas.ghn.config import GHNInfo
from ghnas.ghn.model import GHN
from ghnas.spaces import load_space
from ghnas.training.hypernetwork import cached as cached_module
from ghnas.training.hypernetwork.adaptation import Adaptation
from ghnas.training.hypernetwork.loop import TrainProgress

Ghnas = Callable[..., tuple[int, str, str]]
SMALL = ("--score-images", 8, "--budget", 4)


class FakeTraining:
    """In place of the training: notes what it is asked for, and writes random weights."""

    def __init__(self) -> None:
        self.jobs: list[Adaptation] = []
        self.near_chance = False

    def __call__(self, job: Adaptation, report: Callable[[TrainProgress], None]) -> GHNInfo:
        self.jobs.append(job)
        report(TrainProgress(1, 2, 0.5, 0.5, 0.6, 1.0, 1.0, 1e-3))
        about = job.about | {
            "held_out": 0.6, "chance": 0.5, "near_chance": self.near_chance,
            "seconds": job.seconds, "steps_done": 2,
        }  # fmt: skip
        torch.manual_seed(0)
        ghn = GHN(job.config)
        ghn.info = GHNInfo(
            space=job.space.name,
            skeleton=dict(job.space.skeleton),
            data=job.data.name,
            fingerprint=job.data.fingerprint,
            classes=job.data.classes,
            image_shape=tuple(job.data.image_shape),
            mean=job.data.mean,
            std=job.data.std,
            training={"steps": 2, "adaptation": about, "history": [{"step": 0, "held_out": 0.5}]},
        )
        save_ghn(job.output, ghn)
        return ghn.info


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> FakeTraining:
    fake = FakeTraining()
    monkeypatch.setattr(cached_module, "adapt_file", fake)
    return fake


@pytest.fixture
def mine(tmp_path: Path) -> tuple[object, ...]:
    """A space and images of the user's own, small."""
    return write_own_task(tmp_path, (8, 8), 60)


def test_one_command_for_ones_own_space_and_images(
    ghnas: Ghnas, mine: tuple[object, ...], tmp_path: Path, training: FakeTraining, cache: Path
) -> None:
    results = ("--results", tmp_path / "results")
    search = ("search", *mine, *SMALL, *results)
    code, out, err = ghnas(*search)
    assert code == 0, err
    line = next(line for line in out.splitlines() if line.startswith("adapting"))
    assert re.match(
        r"adapting general-\w+ \(every space on \w+\) to space mine and 2 classes at 8x8 pixels: "
        "about 5 min 00 s, once",
        line,
    )
    assert "zero-shot accuracy 60.0 % after 2 steps, 50.0 % before, chance 50.0 %" in out
    (job,) = training.jobs
    assert job.seconds == 300
    assert job.head_steps > 0
    assert job.config.num_classes == 2

    code, out, err = ghnas(*search, "--json")
    assert code == 0, err
    assert len(training.jobs) == 1, "the second time it is there"
    assert "adapted before" in err
    manifest, path = json.loads(out)["manifest"], Path(json.loads(out)["path"])
    (kept,) = (cache / "hypernetworks").glob("*.safetensors")
    assert manifest["objective"]["ghn_sha256"] == load_ghn(kept).info.sha256
    assert manifest["sources"]["ghn"] == str(kept)

    code, out, err = ghnas("ghns", "remove", kept.stem)
    assert code == 0, err
    assert not kept.exists()
    # the run has a copy
    code, out, err = ghnas("search", "--resume", path.name, *results)
    assert code == 0, err
    train = ("finetune", "top-1", "--run", path, "--epochs", 1, "--batch-size", 16)
    code, out, err = ghnas(*train, "--json", *results)
    assert code == 0, err
    assert json.loads(out)[0]["zero_shot"] is not None


def test_mistakes_are_found_before_it_takes_minutes(
    ghnas: Ghnas, mine: tuple[object, ...], training: FakeTraining
) -> None:
    wrong = [("--max-params", 1), ("--objective", "beauty"), ("--sampler", "none")]
    wrong.append(("--objective", "accuracy,params", "--train", 2))
    for options in wrong:
        code, _, err = ghnas("search", *mine, *SMALL, *options)
        assert code == 2
        assert err.count("\n") == 1
    assert not training.jobs


def test_what_changes_is_adapted_to_anew(
    ghnas: Ghnas, mine: tuple[object, ...], tmp_path: Path, training: FakeTraining
) -> None:
    search = ("search", *mine, *SMALL, "--results", tmp_path / "results")

    def adaptations() -> int:
        code, _, err = ghnas(*search)
        assert code == 0, err
        return len(training.jobs)

    assert [adaptations(), adaptations()] == [1, 1]
    (tmp_path / "mine.yaml").write_text(OWN_SPACE.replace("[8, 12]", "[8, 16]"))
    assert [adaptations(), adaptations()] == [2, 2]
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "pets" / "class0" / "7.png")
    assert [adaptations(), adaptations()] == [3, 3]
    assert training.jobs[2].about["base"]["name"].startswith("mine-pets-"), "the nearest by now"
    # a longer time is a wish to train again, the same one is not
    search = (*search, "--adapt", "10m")
    assert [adaptations(), adaptations()] == [4, 4]
    assert training.jobs[-1].seconds == 600


def test_near_chance_it_is_not_used(
    ghnas: Ghnas, mine: tuple[object, ...], tmp_path: Path, training: FakeTraining
) -> None:
    training.near_chance = True
    for adaptations in (1, 1):  # nor is it tried again
        code, out, err = ghnas("search", *mine, *SMALL, "--results", tmp_path, "--json")
        assert code == 0, err
        assert "stayed near chance (zero-shot accuracy 60.0 %, chance 50.0 %" in err
        assert "ordered by naswot" in err
        assert json.loads(out)["manifest"]["sources"]["ghn"] is None
        assert len(training.jobs) == adaptations


def test_without_adapting(
    ghnas: Ghnas, mine: tuple[object, ...], tmp_path: Path, training: FakeTraining
) -> None:
    for wish in (("--adapt", 0), ("--ghn", "none"), ("--objective", "naswot")):
        code, out, err = ghnas("search", *mine, *SMALL, *wish, "--results", tmp_path, "--json")
        assert code == 0, err
        assert json.loads(out)["manifest"]["objectives"] == ["naswot"]
    assert not training.jobs


def test_a_general_one_is_used_as_it_is_or_adapted(
    ghnas: Ghnas, tmp_path: Path, training: FakeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_untrained(tmp_path / "any.safetensors", load_space("darts"), load_data())
    ghn = load_ghn(path)
    ghn.info = replace(ghn.info, space="general", skeleton={})
    save_ghn(path, ghn)
    monkeypatch.setattr("ghnas.ghn.library.list_ghns", lambda: {"general-embedded": path})
    search = ("search", "--space", "mobile", *SMALL, "--results", tmp_path, "--json")
    code, out, err = ghnas(*search, "--adapt", 0)
    assert code == 0, err
    assert "hypernetwork general-embedded, not adapted to space mobile" in err
    assert json.loads(out)["manifest"]["objectives"] == ["accuracy"]
    assert not training.jobs
    code, out, err = ghnas(*search, "--adapt", "90s")
    assert code == 0, err
    assert "adapting general-embedded (every space on digitscapes) to space mobile" in err
    (job,) = training.jobs
    assert (job.seconds, job.head_steps) == (90, 0)


def test_the_one_that_ships_is_taken_as_ever(
    ghnas: Ghnas, tmp_path: Path, training: FakeTraining
) -> None:
    code, out, err = ghnas("search", *SMALL, "--results", tmp_path, "--json")
    assert code == 0, err
    assert "adapt" not in err
    source = json.loads(out)["manifest"]["sources"]["ghn"]
    assert source.endswith("darts-digitscapes.safetensors")
    size = ("--cells", 1, "--channels", 4)  # it is at chance for networks of another size
    code, out, err = ghnas("search", *SMALL, *size, "--results", tmp_path, "--json")
    assert code == 0, err
    assert training.jobs[0].space.skeleton["channels"] == 4
    assert training.jobs[0].head_steps == 0
    pixels = ("--image-size", 8, *size, "--cells", 5, "--channels", 8)
    code, out, err = ghnas("search", *SMALL, *pixels, "--results", tmp_path, "--json")
    assert code == 0, err
    assert training.jobs[1].data.image_shape == (3, 8, 8)


def test_one_that_is_given_can_be_adapted(
    ghnas: Ghnas, mine: tuple[object, ...], tmp_path: Path, tiny_ghn: Path, training: FakeTraining
) -> None:
    search = ("search", *mine, *SMALL, "--ghn", tiny_ghn, "--results", tmp_path)
    code, _, err = ghnas(*search)
    assert code == 2
    assert "the GHN is for space 'darts', not 'mine'" in err
    assert f"ghnas train --space {mine[1]}" in err, "as the user wrote it"
    code, out, err = ghnas(*search, "--adapt", "1m")
    assert code == 0, err
    assert "adapting tiny (darts on digitscapes) to space mine" in out
    assert training.jobs[0].start == tiny_ghn


@pytest.mark.parametrize("time", ["", "5", "soon", "-1m", "5 days", "nan", "1e3s"])
def test_what_is_no_time(ghnas: Ghnas, time: str) -> None:
    code, _, err = ghnas("search", f"--adapt={time}")
    assert code == 2
    said = "must be a time such as 90s, 30m or 1h30m, or 0" if time else "has an empty value"
    assert f"--adapt {said}" in err


def test_a_run_keeps_its_hypernetwork(ghnas: Ghnas, finished: Path) -> None:
    code, _, err = ghnas("search", "--resume", "--adapt", "5m", "--results", finished)
    assert code == 2
    assert "leave --adapt out" in err


def test_the_list(
    ghnas: Ghnas, tiny_ghn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.safetensors").write_bytes(tiny_ghn.read_bytes())
    monkeypatch.chdir(tmp_path)
    code, out, err = ghnas("ghns")
    assert code == 0, err
    assert "darts-embedded" in out
    assert "80.7 %" in out
    code, out, err = ghnas("ghns", "--json")
    found: dict[str, dict[str, Any]] = {item["name"]: item for item in json.loads(out)}
    assert found["own"]["where"] == "here"
    assert found["own"]["bytes"] == tiny_ghn.stat().st_size
    assert (
        found["nasbench201-cifar10"] | {"where": "shipped", "steps": 5000}
        == found["nasbench201-cifar10"]
    )
    for wrong in (("remove",), ("remove", "darts-embedded"), ("remove", "none"), ("list",)):
        code, _, err = ghnas("ghns", *wrong)
        assert code == 2
        assert err.count("\n") == 1
    code, out, err = ghnas("ghns", "remove", "own", "--json")
    assert code == 0, err
    assert json.loads(out) == {"removed": "own.safetensors"}
    assert not (tmp_path / "own.safetensors").exists()


def test_training_from_any_other(
    ghnas: Ghnas, mine: tuple[object, ...], tmp_path: Path, tiny_ghn: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Of another space, by name or file; it is built as the one that it starts from."""
    output, few = ("--output", tmp_path / "new.safetensors"), ("--steps", 1, "--meta-batch", 1)
    monkeypatch.setattr("ghnas.ghn.library.list_ghns", lambda: {"tiny": tiny_ghn})
    for start in ("shipped", "tiny", tiny_ghn):
        code, out, err = ghnas("train", *mine, *few, "--from", start, *output)
        assert code == 0, err
        found = load_ghn(output[1])
        assert (found.config.hid, found.config.num_classes) == (8, 2)
        assert found.info.training["start"]["sha256"] == load_ghn(tiny_ghn).info.sha256
        assert f"--space {mine[1]}" in out
    code, _, err = ghnas("train", *mine, "--from", "general", *output)
    assert code == 2
    assert "no general hypernetwork ships" in err
