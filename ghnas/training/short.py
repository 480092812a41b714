"""Short trainings: how fast architectures learn in a few SGD steps.

A zero-shot order is made in one forward pass; among its best few, a short training of each tells
more. Batch-norm uses the statistics of the batch throughout, so that nothing needs warming up
before a network is evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ghnas.architectures.graph import Graph
from ghnas.data import Batches
from ghnas.executors.base import FlatParameters
from ghnas.executors.trainable import executor_for
from ghnas.scoring.evaluation import Batch, Score, evaluate
from ghnas.training.sgd import SGDSettings, SGDTraining

SETTINGS = SGDSettings(weight_decay=0.0, warm_up=5)
"""How short trainings are done, unless said otherwise."""


@dataclass(frozen=True)
class ShortTraining:
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


def train_briefly(
    graph: Graph,
    parameters: Mapping[str, Tensor],
    batches: Batches,
    checks: Sequence[Batch],
    settings: SGDSettings = SETTINGS,
) -> ShortTraining:
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
    weights = FlatParameters.copied(graph, parameters)
    executor = executor_for(weights.flat.device.type)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        losses, _ = executor.losses([graph], [weights], images, labels)
        return losses[0]

    losses = [math.inf] * len(batches)
    training = SGDTraining([weights.flat], len(batches), settings)
    for step, value in enumerate(training.steps(loss, batches)):
        if not math.isfinite(value):
            break
        losses[step] = value
    (score,) = evaluate(executor, [graph], [weights], checks)
    return ShortTraining(tuple(losses), score)
