"""Evaluation of networks with given weights, batch after batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ghnas.architectures.graph import Graph
from ghnas.executors.base import Executor, Parameters
from ghnas.executors.module import ModuleExecutor
from ghnas.scoring.racing import Early, Race

Batch = tuple[Tensor, Tensor]
"""Normalised images (B, C, H, W) and labels (B,)."""


SCORE_BATCH = 64
"""Images that batch-norm sees at a time: as many as in a hypernetwork's training."""


@dataclass(frozen=True)
class Score:
    """How an architecture does on the given images.

    Args:
        accuracy: In [0, 1]; 0 if the network's output is not finite. What is to be expected of
            all images, if the candidate was stopped earlier.
        loss: Mean cross-entropy in nats, over the images that it saw.
        images: How many these are; 0 if they were not counted.
        early: Accuracy and loss after each batch but the last, of those scored on everything.
        stopped: Whether a race was over for it before the last image.
        components: Of the composite score, if they were asked for.
    """

    accuracy: float
    loss: float
    images: int = 0
    early: Early = ()
    stopped: bool = False
    components: Components | None = None


@dataclass(frozen=True)
class Components:
    """The components of the composite score of an architecture; higher is better.

    Args:
        fit: Minus the zero-shot loss, in nats.
        separability: Log-determinant of the kernel of the images' ReLU codes (naswot, Mellor et
            al., ICML 2021, section 3) with predicted weights.
        size: Natural logarithm of the number of parameters.
    """

    fit: float
    separability: float
    size: float


Measure = Callable[[Graph, Parameters, Batch, Score], Components]
"""Finds the components for a graph, its predicted weights, the first batch and its score."""


@torch.no_grad()
def evaluate(
    executor: Executor,
    graphs: Sequence[Graph],
    weights: Sequence[Parameters],
    batches: Sequence[Batch],
    race: Race | None = None,
) -> list[Score]:
    """Score networks with given weights, each for as long as it is in the race.

    Args:
        executor: Runs them.
        graphs: The architectures.
        weights: The parameters of each.
        batches: Images and labels on the executor's device; batch-norm sees a batch at a time.
        race: When to stop before the last batch; default: never.

    Returns:
        A score for each network.
    """
    tallies = [[_Tally(0, 0, 0.0)] for _ in graphs]
    scores: dict[int, Score] = {}
    running = list(range(len(graphs)))
    for number, (images, labels) in enumerate(batches, start=1):
        logits = executor.run([graphs[i] for i in running], [weights[i] for i in running], images)
        for i, (right, loss) in zip(running, _measure(logits, labels), strict=True):
            before = tallies[i][-1]
            tally = _Tally(before.images + len(labels), before.right + right, before.loss + loss)
            tallies[i].append(tally)
            expected = race.verdict(number, tally.accuracy, tally.mean_loss) if race else None
            if expected is not None:
                scores[i] = Score(expected, tally.mean_loss, tally.images, stopped=True)
        running = [i for i in running if i not in scores]
        if not running:
            break
    for i in running:
        *earlier, last = tallies[i][1:]
        early = tuple((tally.accuracy, tally.mean_loss) for tally in earlier)
        scores[i] = Score(last.accuracy, last.mean_loss, last.images, early)
    return [scores[i] for i in range(len(graphs))]


def evaluate_one(graph: Graph, weights: Parameters, batches: Sequence[Batch]) -> Score:
    """Score one network with given weights, with PyTorch's own operations."""
    return evaluate(ModuleExecutor(), [graph], [weights], batches)[0]


class _Tally(NamedTuple):
    """Counts over the images that a network has seen: how many, how many right, sum of losses."""

    images: int
    right: int
    loss: float

    @property
    def accuracy(self) -> float:
        """0 if an output was not finite."""
        return self.right / self.images if self.loss < float("inf") else 0.0

    @property
    def mean_loss(self) -> float:
        """In nats."""
        return self.loss / self.images


def _measure(logits: Tensor, labels: Tensor) -> list[tuple[int, float]]:
    """(networks, B, classes), (B,) -> right answers and summed loss of each network.

    The loss is infinite where a logit is not finite.
    """
    right = (logits.argmax(dim=2) == labels).sum(dim=1)
    flat = F.cross_entropy(
        logits.float().flatten(0, 1), labels.repeat(len(logits)), reduction="none"
    )
    loss = flat.view(len(logits), -1).double().sum(dim=1)
    finite = torch.isfinite(logits).all(dim=2).all(dim=1)
    loss = torch.where(finite, loss, torch.full_like(loss, float("inf")))
    return list(zip(right.tolist(), loss.tolist(), strict=True))
