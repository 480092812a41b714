"""Networks to train, and what is kept of each in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from ghnas.architectures.graph import Graph
from ghnas.data import ImageData, LabelledImages
from ghnas.scoring.evaluation import Batch
from ghnas.training.recipe import FinetuneSettings
from ghnas.utils.files import read_json, write_atomically

STATE = "state.pt"
"""The file of a training that is not finished."""
History = list[dict[str, float]]
"""Epoch, mean loss, validation accuracy and seconds of each epoch."""


@dataclass(frozen=True)
class NetworkTask:
    """One network to train.

    Args:
        name: Of the candidate.
        start: `ghn`, `kaiming` or `trained`.
        graph: The architecture.
        parameters: Weights to start from.
        folder: Where state, weights and history are kept; None: nowhere.
        zero_shot: Accuracy with predicted weights on the scoring images; None: unknown.
        architecture: What `ghnas.load` needs to build the network again.
        origin: Digest of the trained weights that it starts from; None: it starts from none.
    """

    name: str
    start: str
    graph: Graph
    parameters: dict[str, Tensor]
    folder: Path | None
    zero_shot: float | None
    architecture: dict[str, Any]
    origin: str | None = None


@dataclass(frozen=True)
class Trained:
    """A trained network: accuracies in [0, 1], seconds of training.

    Args:
        validation: On all validation images.
        test: On all test images; None if there are none.
        seconds: Of training and validation.
        steps_saved: For a baseline: SGD steps until it was as good as the predicted weights;
            None if it never was.
        history: Of each epoch.
        test_top5: Share of the test images whose class is among the five likeliest; None where
            there are ten classes or fewer, or no test images.
    """

    validation: float
    test: float | None
    seconds: float
    steps_saved: int | None
    history: History
    test_top5: float | None = None


_TRAINED = TypeAdapter(Trained)


@dataclass(frozen=True)
class Material:
    """What every training reads.

    Args:
        data: Training and validation images, and the mean and std that normalise all images.
        test: Test images, for the final figure; None: there are none.
        checks: The batches that candidates were scored on.
        settings: How to train.
        device: Where.
    """

    data: ImageData
    test: LabelledImages | None
    checks: Sequence[Batch]
    settings: FinetuneSettings
    device: torch.device


def identity(task: NetworkTask, material: Material) -> dict[str, Any]:
    """What must agree for a training to go on, or to count as finished."""
    settings = material.settings.as_dict()
    del settings["baseline"]
    same = {"settings": settings, "start": task.start, "data": material.data.fingerprint}
    return same if task.origin is None else same | {"origin": task.origin}


def finished(task: NetworkTask, material: Material) -> Trained | None:
    """The result of a training that ended earlier."""
    if task.folder is None:
        return None
    try:
        content = read_json(task.folder / "history.json")
        if content["identity"] != identity(task, material):
            return None
        _TRAINED.validate_python(content["result"])
        return Trained(**content["result"])  # in which an epoch's number stays an integer
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_state(task: NetworkTask) -> bytes | None:
    """The state that an earlier call kept of a training that is not finished."""
    path = task.folder and task.folder / STATE
    return path.read_bytes() if path and path.exists() else None


def keep(task: NetworkTask, files: Mapping[str, bytes]) -> None:
    """Write what a training gives; its history is the last, for it says that all is there."""
    if task.folder is None:
        return
    for name, content in files.items():
        write_atomically(task.folder / name, content)
    if STATE not in files:
        (task.folder / STATE).unlink(missing_ok=True)
