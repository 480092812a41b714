"""A cheap search for tests: tiny networks, and an objective that looks at the hash alone."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from ghnas.architectures.architecture import Architecture
from ghnas.data import ImageData
from ghnas.engine.loop import HASH_LENGTH
from ghnas.engine.manifest import Manifest, Sources
from ghnas.engine.objectives import ZERO_SHOT, Outcome
from ghnas.engine.run import Run, create_run
from ghnas.engine.runs import new_run_folder
from ghnas.engine.search import new_manifest, search_run
from ghnas.engine.trials import Trial
from ghnas.ghn.checkpoint import save_ghn
from ghnas.ghn.config import GHNConfig, GHNInfo
from ghnas.ghn.model import GHN
from ghnas.spaces import Space, load_space

OWN_SPACE = """
name: mine
family: stages
skeleton:
  stem: {block: conv_bn_act, kernel: 3, width: 8}
stages:
  - {block: residual, depth: [1, 2], width: [8, 12], kernel: [3, 5]}
"""


def write_own_task(folder: Path, size: tuple[int, int], each: int) -> tuple[object, ...]:
    """Write a space and a folder of images of two classes, as a user has them.

    Args:
        folder: Where.
        size: (width, height) of the images.
        each: Images of a class.

    Returns:
        The options that name both.
    """
    for label in range(2):
        place = folder / "pets" / f"class{label}"
        place.mkdir(parents=True)
        for number in range(each):
            Image.new("RGB", size, (99 * label, 3 * number, 0)).save(place / f"{number}.png")
    (folder / "mine.yaml").write_text(OWN_SPACE)
    return ("--space", folder / "mine.yaml", "--data", folder / "pets")


class FakeObjective:
    """Accuracy from the hash of the graph; every evaluation is a line in `log`.

    Args:
        log: A file, for counting across processes.
        seconds: What evaluating an architecture takes.
        names: Of the values.
    """

    batch_size: int | None = None
    in_background = True

    def __init__(
        self,
        log: Path | None = None,
        seconds: float = 0.0,
        names: Sequence[str] = ("accuracy",),
    ) -> None:
        self.log = log
        self.seconds = seconds
        self.names = tuple(names)
        self.directions = tuple(ZERO_SHOT[name] for name in names)
        self.calls: list[tuple[list[str], list[int]]] = []
        """Of each call the hashes of the candidates, and the wanted ones."""

    def space_for(self, space: Space) -> Space:
        return space

    def describe(self) -> dict[str, Any]:
        return {"ghn_sha256": "a" * 64, "data_fingerprint": "d" * 64, "data": "fake"}

    def prepare(self, space: Space, report: Any) -> None:
        pass

    def evaluate(
        self,
        candidates: Sequence[Architecture],
        wanted: Sequence[int],
        earlier: Sequence[Trial],
        share: float,
    ) -> list[Outcome | None]:
        hashes = [item.hash[:HASH_LENGTH] for item in candidates]
        self.calls.append((hashes, list(wanted)))
        outcomes: list[Outcome | None] = [None] * len(candidates)
        for i in wanted:
            time.sleep(self.seconds)
            if self.log is not None:
                with self.log.open("ab", buffering=0) as file:
                    os.write(file.fileno(), f"{hashes[i]}\n".encode())
            # what was predicted together has a say, as it may in a real scorer
            noise = int(hashes[0][:4], 16) / 16**9
            accuracy = int(hashes[i][:4], 16) / 16**4 + noise
            values = {
                "accuracy": accuracy,
                "params": float(candidates[i].parameters),
                "flops": float(candidates[i].flops),
            }
            outcomes[i] = Outcome(tuple(values[name] for name in self.names), accuracy)
        return outcomes

    def ahead(self, batch_size: int) -> int:
        return 1

    def cancel(self) -> None:
        pass

    def close(self) -> None:
        pass

    @property
    def scored(self) -> int:
        """Architectures evaluated by this object."""
        return sum(len(wanted) for _, wanted in self.calls)


def make_manifest(space_name: str = "darts", **changes: Any) -> Manifest:
    """A manifest for a small search; `changes` as in `new_manifest`, and `objectives`."""
    skeleton = {"cells": 1, "channels": 2} if space_name == "darts" else {}
    space = load_space(space_name).with_skeleton(**skeleton).for_images((3, 8, 8), 2)
    names = changes.pop("objectives", ("accuracy",))
    settings: dict[str, Any] = {
        "budget": 20,
        "batch_size": 8,
        "sources": Sources(data="embedded", ghn="ghn.safetensors"),
        "space_name": space_name,
    }
    manifest = new_manifest(space, FakeObjective(names=names), **(settings | changes))
    return manifest.model_copy(update={"classes": ("cat", "dog")})


def make_run(results: Path, space_name: str = "darts", **changes: Any) -> Run:
    """A new run in a results folder; `changes` as in `make_manifest`."""
    manifest = make_manifest(space_name, **changes)
    return create_run(new_run_folder(results, Path(space_name).stem, manifest.sampler), manifest)


def go_on(run: Run, objective: Any = None, report: Any = None) -> None:
    """Search in a run until its budget is recorded."""
    search_run(run, objective or FakeObjective(names=run.manifest.objectives), report)


def finished(results: Path, space_name: str = "darts", **changes: Any) -> Run:
    """A run that was searched to its end."""
    run = make_run(results, space_name, **changes)
    go_on(run)
    return run


def ranking(run: Run) -> list[tuple[Any, ...]]:
    """What two equal searches must agree in, to the last digit."""
    return [
        (item.rank, item.number, item.accuracy, str(item.architecture), item.front)
        for item in run.ranked()
    ]


def entries(run: Run) -> list[Trial]:
    """All trials but for their times."""
    return [replace(trial, seconds=0.0) for trial in run.read()]


def save_untrained(path: Path, space: Space, data: ImageData) -> Path:
    """Write a small hypernetwork with random weights for a space and a data set."""
    config = GHNConfig(num_classes=data.num_classes, hid=8)
    info = GHNInfo(
        space=space.name,
        skeleton=dict(space.skeleton),
        data=data.name,
        fingerprint=data.fingerprint,
        classes=data.classes,
        image_shape=data.image_shape,
        mean=data.mean,
        std=data.std,
    )
    save_ghn(path, GHN(config, info))
    return path


DARTS_V2 = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
    "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), "
    "('dil_conv_3x3', 2)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), "
    "('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=range(2, 6))"
)
"""The genotype that the second-order DARTS search found."""
