"""Trainings of many networks at once, for a GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ghnas.architectures.graph import Graph
from ghnas.architectures.network import initialised
from ghnas.data import Batches, ImageData, random_batches
from ghnas.executors.base import Parameters
from ghnas.executors.grouped import GroupedExecutor, GroupedNetworks
from ghnas.executors.stacked import StackedParameters, rows_of
from ghnas.executors.trainable import PlainNetwork
from ghnas.scoring.evaluation import Batch, evaluate
from ghnas.training.sgd import SGDSettings, SGDTraining
from ghnas.training.short import SETTINGS, ShortTraining

DEFAULTS = SGDSettings()
POPULATION = 32
"""Networks that train together: what they compute on the way is kept for the gradients."""


def train_together(
    graphs: Sequence[Graph],
    parameters: Sequence[Parameters],
    batches: Batches,
    checks: Sequence[Batch],
    settings: SGDSettings = SETTINGS,
) -> list[ShortTraining]:
    """Train many networks at once, as `ghnas.training.short.train_briefly` trains each.

    Nothing is read back before the end. Gradients are clipped for each network by itself.

    Args:
        graphs: The architectures.
        parameters: Weights to start from; they are not changed.
        batches: As in `train_briefly`, the same for all.
        checks: As in `train_briefly`.
        settings: How to train.
    """
    executor, rows = GroupedExecutor(), rows_of(graphs)
    tensors = [item.requires_grad_() for item in StackedParameters.of(parameters, rows).tensors]
    weights = StackedParameters(tensors, rows, range(len(graphs)))
    device = tensors[0].device
    owners = [torch.tensor([index for index, _ in own], device=device) for own in rows]
    training = SGDTraining(tensors, len(batches), settings)
    finite = torch.ones(len(graphs), dtype=torch.bool, device=device)
    history = []
    for images, labels in batches:
        losses, _ = executor.losses(graphs, weights, images, labels)
        finite &= losses.detach().isfinite()
        history.append(losses.detach().where(finite, math.inf))
        training.optimizer.zero_grad()
        losses.sum().backward()
        _clip_each(tensors, owners, finite, settings.gradient_clip)
        before = [item.detach().clone() for item in tensors]
        training.update()
        with torch.no_grad():  # a network whose loss is not finite stays as it was
            for item, old, owner in zip(tensors, before, owners, strict=True):
                item.copy_(item.where(_along(finite[owner], item), old))
    scores = evaluate(executor, graphs, weights, checks)
    curves = torch.stack(history, dim=1).tolist() if history else [[] for _ in graphs]
    return [ShortTraining(tuple(c), score) for c, score in zip(curves, scores, strict=True)]


def train_together_from_scratch(
    graphs: Sequence[Graph],
    data: ImageData,
    steps: int,
    seed: int,
    device: torch.device,
    batch_size: int = 64,
    shift: int = 1,
    settings: SGDSettings = DEFAULTS,
) -> GroupedNetworks:
    """Networks trained from Kaiming initialisation, as `ghnas.training.sgd.train_from_scratch`
    trains each; all see the same images.

    Args:
        graphs: The architectures.
        data: Its training images are read.
        steps: Updates in all.
        seed: Of initialisation, of the images' order and of their shifts.
        device: Where to compute.
        batch_size: Images in a step.
        shift: Most pixels by which an image is moved each way.
        settings: How to train.
    """
    networks = [initialised(graph, seed).to(device) for graph in graphs]
    population = GroupedNetworks(networks)
    trainings = [SGDTraining(PlainNetwork(item).parameters, steps, settings) for item in networks]
    batches = random_batches(
        data.train, batch_size, seed=seed, device=device, mean=data.mean, std=data.std,
        mirror=data.mirror, shift=shift,
    )  # fmt: skip
    for _, batch in zip(range(steps), batches, strict=False):
        follow(trainings, population.losses(*batch))
    return population


def follow(trainings: Sequence[SGDTraining], losses: Tensor) -> list[float]:
    """One update of each network whose loss is finite, along the gradients that it has.

    Args:
        trainings: Of the networks.
        losses: Of each, (networks,).

    Returns:
        The losses.
    """
    values: list[float] = losses.tolist()
    for training, value in zip(trainings, values, strict=True):
        if math.isfinite(value):
            training.follow()
    return values


def _clip_each(
    tensors: Sequence[Tensor], owners: Sequence[Tensor], finite: Tensor, largest: float
) -> None:
    """Clip the norm of each network's gradient; without one where its loss is not finite."""
    squares = torch.zeros(len(finite), device=finite.device)
    for item, owner in zip(tensors, owners, strict=True):
        assert item.grad is not None
        item.grad = item.grad.where(_along(finite[owner], item), 0.0)
        squares.index_add_(0, owner, item.grad.flatten(1).square().sum(1))
    scale = (largest / (squares.sqrt() + 1e-6)).clamp(max=1)
    for item, owner in zip(tensors, owners, strict=True):
        assert item.grad is not None
        item.grad *= _along(scale[owner], item)


def _along(values: Tensor, like: Tensor) -> Tensor:
    """(rows,) -> (rows, 1, ...), to be used with a tensor of rows."""
    return values.view(-1, *[1] * (like.dim() - 1))
