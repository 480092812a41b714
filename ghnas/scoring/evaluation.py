"""Evaluation of networks with given weights, batch after batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ghnas.architectures.graph import Graph
from ghnas.executors.base import Executor, Parameters
from ghnas.executors.module import ModuleExecutor
from ghnas.executors.stacked import take
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


Measure = Callable[
    [Executor, Sequence[Graph], Sequence[Parameters], Batch, Sequence[Score]], list[Components]
]
"""Finds the components of networks with predicted weights: the executor that scored them, graphs,
weights, the first batch and their scores."""


@torch.no_grad()
def evaluate(
    executor: Executor,
    graphs: Sequence[Graph],
    weights: Sequence[Parameters],
    batches: Sequence[Batch],
    race: Race | None = None,
    rungs: Sequence[int] | None = None,
) -> list[Score]:
    """Score networks with given weights, each for as long as it is in the race.

    Args:
        executor: Runs them.
        graphs: The architectures.
        weights: The parameters of each.
        batches: Images and labels on the executor's device; batch-norm sees a batch at a time.
        race: When to stop before the last batch; default: never.
        rungs: Numbers of batches after which a candidate may stop; default: after each. What lies
            between two rungs runs in one pass.

    Returns:
        A score for each network.
    """
    tallies = [[_Tally(0, 0, 0.0)] for _ in graphs]
    scores: dict[int, Score] = {}
    running = list(range(len(graphs)))
    for begin, end in passes([len(labels) for _, labels in batches], race, rungs):
        images, labels = map(_joined, zip(*batches[begin:end], strict=True))
        own = take(weights, running)
        logits = executor.run([graphs[i] for i in running], own, images, end - begin)
        size = len(labels) // (end - begin)
        for i, measured in zip(running, _measure(logits, labels, size), strict=True):
            for right, loss in measured:
                seen, known, total = tallies[i][-1]
                tallies[i].append(_Tally(seen + size, known + right, total + loss))
            last = tallies[i][-1]
            expected = race.verdict(end, last.accuracy, last.mean_loss) if race else None
            if expected is not None:
                scores[i] = Score(expected, last.mean_loss, last.images, stopped=True)
        running = [i for i in running if i not in scores]
        if not running:
            break
    for i in running:
        *earlier, last = tallies[i][1:]
        early = tuple((tally.accuracy, tally.mean_loss) for tally in earlier)
        scores[i] = Score(last.accuracy, last.mean_loss, last.images, early)
    return [scores[i] for i in range(len(graphs))]


@torch.no_grad()
def evaluate_some(
    executor: Executor,
    graphs: Sequence[Graph],
    weights: Sequence[Parameters],
    batches: Sequence[Batch],
    measure: Measure | None,
    wanted: Sequence[int],
    race: Race | None = None,
    rungs: Sequence[int] | None = None,
) -> list[Score | None]:
    """Score some of the networks, with their components.

    Args:
        executor: Runs them.
        graphs: The architectures.
        weights: The parameters of each.
        batches: As in `evaluate`.
        measure: Finds components, for networks that were scored on everything; None: nothing.
        wanted: The positions of those to score.
        race: As in `evaluate`.
        rungs: As in `evaluate`.

    Returns:
        A score for each graph that is wanted, None for the others.
    """
    chosen = [graphs[i] for i in wanted]
    found = evaluate(executor, chosen, take(weights, wanted), batches, race, rungs)
    if measure is not None:
        whole = [i for i, score in enumerate(found) if not score.stopped]
        own = take(take(weights, wanted), whole)
        seen = [found[i] for i in whole]
        components = measure(executor, [chosen[i] for i in whole], own, batches[0], seen)
        for i, item in zip(whole, components, strict=True):
            found[i] = replace(found[i], components=item)
    scores: list[Score | None] = [None] * len(graphs)
    for i, score in zip(wanted, found, strict=True):
        scores[i] = score
    return scores


def passes(
    sizes: Sequence[int], race: Race | None, rungs: Sequence[int] | None = None
) -> list[tuple[int, int]]:
    """Which batches run together: the first, and the one after the last, of each pass.

    Args:
        sizes: Of the batches; those of another size than the one before begin a pass.
        race: As in `evaluate`.
        rungs: As in `evaluate`.
    """
    stops = range(len(sizes)) if rungs is None else rungs if race else ()
    changes = [i for i in range(1, len(sizes)) if sizes[i] != sizes[i - 1]]
    ends = sorted({*stops, *changes, len(sizes)} - {0})
    return list(pairwise([0, *(end for end in ends if end <= len(sizes))]))


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tuple(tensors))


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


def _measure(logits: Tensor, labels: Tensor, size: int) -> list[list[tuple[int, float]]]:
    """(networks, B, classes), (B,) -> right answers and summed loss of each network and batch.

    The loss is infinite where a logit is not finite.
    """
    networks = len(logits)
    right = (logits.argmax(dim=2) == labels).view(networks, -1, size).sum(dim=2)
    flat = F.cross_entropy(logits.float().flatten(0, 1), labels.repeat(networks), reduction="none")
    loss = flat.view(networks, -1, size).double().sum(dim=2)
    finite = torch.isfinite(logits).all(dim=2).view(networks, -1, size).all(dim=2)
    loss = torch.where(finite, loss, torch.full_like(loss, float("inf")))
    both = torch.stack([right.double(), loss]).tolist()  # one copy from a GPU
    return [
        [(int(count), total) for count, total in zip(*pair, strict=True)]
        for pair in zip(*both, strict=True)
    ]
