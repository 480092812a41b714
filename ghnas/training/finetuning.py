"""`ghnas.finetune`: the training of one architecture as one function."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from ghnas.architectures.architecture import Architecture
from ghnas.architectures.network import Network, kaiming
from ghnas.data import ImageData, evaluation_batches
from ghnas.data.augmentation import check_augment
from ghnas.ghn.checkpoint import check_ghn
from ghnas.ghn.model import GHN
from ghnas.scoring.evaluation import SCORE_BATCH, evaluate_one
from ghnas.spaces import Space
from ghnas.training.epochs import train_network
from ghnas.training.network_tasks import History, Material, NetworkTask, finished
from ghnas.training.recipe import PLAIN, FinetuneSettings, Recipe
from ghnas.training.saved import describe, load
from ghnas.utils.devices import pick_device
from ghnas.utils.errors import UserError
from ghnas.utils.files import write_atomically

ZERO_SHOT_IMAGES = 512
"""Validation images that the accuracy before training is measured on."""


@dataclass(frozen=True)
class TrainedNetwork:
    """What `finetune` returns.

    Args:
        network: In evaluation mode, on the CPU; takes images (B, C, H, W) that were scaled to
            [0, 1] and normalised with `mean` and `std`, and gives logits (B, classes).
        mean, std: A number for each channel.
        validation: Accuracy in [0, 1] on all validation images.
        test: The same on all test images; None if the data has none.
        test_top5: Of more than ten classes: the share of test images whose class is among the five
            likeliest; else None.
        zero_shot: Accuracy in [0, 1] with predicted weights before training, on 512 validation
            images; None without a hypernetwork.
        history: Of each epoch its number `epoch`, mean training `loss` in nats, `validation`
            accuracy in [0, 1] and `seconds`.
        path: The folder that was written, for `ghnas.load`; None if none was.

    Example:
        >>> import ghnas
        >>> data = ghnas.load_data("embedded", train_limit=64)
        >>> space = ghnas.load_space("darts").with_skeleton(cells=1, channels=2)
        >>> trained = ghnas.finetune(space.sample(seed=0), data, epochs=1)
        >>> trained.history[-1]["validation"] == trained.validation
        True
    """

    network: Network
    mean: tuple[float, ...]
    std: tuple[float, ...]
    validation: float
    test: float | None
    zero_shot: float | None
    history: History
    path: Path | None
    test_top5: float | None = None


def finetune(
    architecture: Architecture,
    data: ImageData,
    ghn: GHN | None = None,
    epochs: int = 5,
    batch_size: int = 64,
    learning_rate: float = 0.1,
    weight_decay: float = 3e-4,
    seed: int = 0,
    recipe: Recipe | None = None,
    shots: int | None = None,
    augment: str = "shift",
    device: str = "auto",
    path: str | PathLike[str] | None = None,
    report: Callable[[dict[str, float]], None] | None = None,
) -> TrainedNetwork:
    """Train one network with SGD, from the weights that a hypernetwork predicts or from scratch.

    SGD with Nesterov momentum 0.9, gradients clipped to norm 5 and a cosine learning rate;
    training images are shifted by up to a pixel, and mirrored where the data allows it. Test
    images are read once, at the end.

    Args:
        architecture: From a search or a space; it is built for the data's images and classes.
        data: Training, validation and test images.
        ghn: Predicts the first weights; its mean and std normalise the images. None: Kaiming
            initialisation, and the data's mean and std.
        epochs: Passes over the training images.
        batch_size: Images in a step.
        learning_rate: At the first step.
        weight_decay: On all parameters.
        seed: Of the images' order, their shifts, and Kaiming initialisation.
        recipe: What is added to plain SGD, such as cutout and path dropout; None: nothing.
        shots: Training images of each class; None: all.
        augment: `shift`, `crop` or `randaugment`: see `FinetuneSettings`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        path: A folder, made if need be. The state is kept in it after every epoch, and the same
            call goes on from there; `ghnas.load` reads the result. None: nothing is written.
        report: Called after each epoch with its entry of the history.

    Returns:
        The network with its accuracies.

    Raises:
        UserError: If a number is out of range, the hypernetwork does not fit, the images are too
            small, or the folder holds another training.

    Example:
        >>> import ghnas
        >>> data = ghnas.load_data("embedded", train_limit=256)  # a few, to be quick
        >>> architecture = ghnas.load_space("darts").sample(seed=0)
        >>> ghn = ghnas.load_ghn("darts-embedded")
        >>> trained = ghnas.finetune(architecture, data, ghn=ghn, epochs=1)
        >>> 0 < trained.test < 1
        True
    """
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("shots", shots)):
        if value is not None and value < 1:
            raise UserError(f"{name} must be 1 or more, not {value}")
    if learning_rate <= 0 or weight_decay < 0:
        raise UserError(
            f"learning_rate ({learning_rate}) must be above 0, weight_decay ({weight_decay}) 0 or "
            "above"
        )
    architecture = architecture.for_images(data.image_shape, data.num_classes)
    graph = architecture.graph
    if ghn is None:
        start, checks, zero_shot = "kaiming", [], None
        parameters = kaiming(graph, torch.Generator().manual_seed(seed))
    else:
        assert isinstance(architecture.space, Space)
        check_ghn(ghn, architecture.space, data)
        data, start = data.normalised_with(ghn.info.mean, ghn.info.std), "ghn"
        (predicted,) = ghn.predict_graphs([graph])
        parameters = {name: value.cpu() for name, value in predicted.items()}
        checks = evaluation_batches(
            data.validation.take(ZERO_SHOT_IMAGES), SCORE_BATCH, device="cpu", mean=data.mean,
            std=data.std,
        )  # fmt: skip
        zero_shot = evaluate_one(graph, parameters, checks).accuracy
    settings = FinetuneSettings(
        epochs,
        batch_size,
        learning_rate,
        weight_decay,
        seed,
        recipe=recipe or PLAIN,
        shots=shots,
        augment=check_augment(augment),
    )
    if shots is not None:
        data = data.few_shot(shots)
    test = data.load_test() if data.has_test else None
    material = Material(data.without_test(), test, checks, settings, pick_device(device))
    description = describe(architecture, data) | {
        "start": ghn.info.sha256 if ghn else start,
        "settings": settings.as_dict(),
        "data_fingerprint": data.fingerprint,
    }
    folder = None if path is None else Path(path)
    task = NetworkTask("network", start, graph, parameters, folder, zero_shot, description)
    if folder is not None:
        _claim(folder, description)
    if folder is not None and (result := finished(task, material)):
        network = load(folder)
    else:
        network, result = train_network(
            task, material, lambda history: report(history[-1]) if report else None
        )
    return TrainedNetwork(
        network, data.mean, data.std, result.validation, result.test, zero_shot, result.history,
        folder, result.test_top5,
    )  # fmt: skip


def _claim(folder: Path, description: dict[str, Any]) -> None:
    """Make sure that a folder holds this training or none."""
    path, content = folder / "architecture.json", json.dumps(description, indent=1)
    if path.exists() and path.read_bytes() != content.encode():
        raise UserError(
            f"{folder} holds another network, or one that was trained with other settings: choose "
            "another folder, or delete this one"
        )
    write_atomically(path, content)
