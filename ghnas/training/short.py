"""Short trainings: how far architectures come in a few SGD steps, from predicted or random weights.

A zero-shot order is made in one forward pass; among its best few, a short training of each tells
more. Batch-norm uses the statistics of the batch throughout, so that nothing needs warming up
before a network is evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ghnas.architectures.graph import Graph
from ghnas.architectures.network import forward
from ghnas.scoring.evaluation import Batch, Score, evaluate_one
from ghnas.training.networks import cosine


@dataclass(frozen=True)
class RefineSettings:
    """How to train for a short time: SGD with Nesterov momentum, linear warm-up, cosine rate.

    Args:
        learning_rate: After the warm-up.
        warm_up: Steps until the full rate is reached.
        momentum: Of SGD.
        weight_decay: On all parameters.
        gradient_clip: Largest norm of the gradient.
    """

    learning_rate: float = 0.1
    warm_up: int = 5
    momentum: float = 0.9
    weight_decay: float = 0.0
    gradient_clip: float = 5.0


@dataclass(frozen=True)
class Refined:
    """What a short training tells.

    Args:
        losses: Training loss in nats at every step, before its update; infinite from the step on
            at which it was not finite.
        score: On the evaluation batches after the last step.
    """

    losses: tuple[float, ...]
    score: Score

    def summed_loss(self, begin: float = 0.5) -> float:
        """The mean training loss from a share of the steps on: lower is faster.

        The sum of training losses as an estimate of final accuracy is TSE (Ru, Lyle, Schut,
        Fil, van der Wilk and Gal, "Speedy Performance Estimation for Neural Architecture
        Search", NeurIPS 2021, section 3); leaving out the first part is its TSE-E.

        Args:
            begin: In [0, 1): the share of the steps to leave out.
        """
        kept = self.losses[int(begin * len(self.losses)) :]
        return sum(kept) / len(kept) if kept else math.inf


def refine_one(
    graph: Graph,
    parameters: Mapping[str, Tensor],
    batches: Sequence[Batch],
    checks: Sequence[Batch],
    settings: RefineSettings,
) -> Refined:
    """Train one network for one step a batch, then evaluate it.

    Args:
        graph: The architecture.
        parameters: Weights to start from; they are not changed.
        batches: Training images (B, C, H, W) and labels (B,), in the order of the steps.
        checks: Images and labels to evaluate on.
        settings: How to train.

    Returns:
        Losses and score; a network whose loss is not finite trains no further.
    """
    weights = {name: _leaf(value) for name, value in parameters.items()}
    leaves = list(weights.values())
    optimizer = torch.optim.SGD(
        leaves,
        settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        weight_decay=settings.weight_decay,
    )
    losses = [math.inf] * len(batches)
    for step, (images, labels) in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step, len(batches))
        loss = F.cross_entropy(forward(graph, weights, images), labels)
        if not torch.isfinite(loss):
            break
        losses[step] = float(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(leaves, settings.gradient_clip)
        optimizer.step()
    trained = {name: value.detach() for name, value in weights.items()}
    return Refined(tuple(losses), evaluate_one(graph, trained, checks))


def _leaf(value: Tensor) -> Tensor:
    layout = torch.channels_last if value.dim() == 4 else torch.contiguous_format
    return value.detach().clone(memory_format=layout).requires_grad_()


def learning_rate(settings: RefineSettings, step: int, steps: int) -> float:
    """The rate at a step, counted from 0: a linear warm-up times half a cosine."""
    warm = min(1.0, (step + 1) / max(settings.warm_up, 1))
    return settings.learning_rate * warm * cosine(step / steps)
