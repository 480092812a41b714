"""Short trainings of many networks at once, for a GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ghnas.architectures.graph import Graph
from ghnas.executors.base import Parameters
from ghnas.executors.grouped import GroupedExecutor
from ghnas.executors.stacked import StackedParameters, rows_of
from ghnas.scoring.evaluation import Batch, evaluate
from ghnas.training.sgd import SGDSettings, SGDTraining
from ghnas.training.short import SETTINGS, ShortTraining

POPULATION = 32
"""Networks that train together: what they compute on the way is kept for the gradients."""


def train_together(
    graphs: Sequence[Graph],
    parameters: Sequence[Parameters],
    batches: Sequence[Batch],
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
