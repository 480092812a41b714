"""Zero-shot scores: predict the weights of many architectures, then evaluate each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ghnas.device import cores
from ghnas.ghn.model import GHN
from ghnas.graph import Graph
from ghnas.population import Parameters, plan, plan_one, run

Batch = tuple[Tensor, Tensor]
"""Normalised images (B, C, H, W) and labels (B,)."""


@dataclass(frozen=True)
class Score:
    """How an architecture does on the given images.

    Args:
        accuracy: In [0, 1]; 0 if the network's output is not finite.
        loss: Mean cross-entropy in nats.
    """

    accuracy: float
    loss: float


CHUNK = 8
"""Architectures that are predicted together on a CPU thread."""


class Scorer:
    """Scores architectures with predicted weights on fixed batches.

    On a CPU chunks of architectures are predicted and evaluated on threads with one torch
    thread each, so that a score does not depend on the number of cores. On a GPU all networks
    run as one population.

    Args:
        ghn: The hypernetwork; moved to the device.
        batches: Images and labels; batch-norm sees a batch at a time.
        device: Where to compute.
        workers: Threads on a CPU; default: one for each core.
    """

    def __init__(
        self, ghn: GHN, batches: list[Batch], device: torch.device, workers: int | None = None
    ) -> None:
        self.ghn = ghn.to(device).eval()
        self.device = device
        self.workers = workers or cores()
        self.batches = [
            (
                images.to(device, memory_format=torch.channels_last)
                if device.type == "cpu"
                else images.to(device),
                labels.to(device),
            )
            for images, labels in batches
        ]

    def score(
        self, graphs: Sequence[Graph], wanted: Sequence[int] | None = None
    ) -> list[Score | None]:
        """Score architectures.

        Args:
            graphs: The architectures. What is predicted together depends on this list alone, so
                that a score is the same whatever is wanted.
            wanted: Which of them to evaluate; default: all.

        Returns:
            A score for each graph that is wanted, None for the others.
        """
        chosen = set(range(len(graphs)) if wanted is None else wanted)
        if not chosen:
            return [None] * len(graphs)
        if self.device.type == "cpu":
            return self._score_on_threads(graphs, chosen)
        scores = evaluate_population(graphs, self.ghn.predict(graphs), self.batches)
        return [score if i in chosen else None for i, score in enumerate(scores)]

    def _score_on_threads(self, graphs: Sequence[Graph], chosen: set[int]) -> list[Score | None]:
        starts = range(0, len(graphs), CHUNK)

        def score_chunk(start: int) -> list[Score | None]:
            chunk = range(start, min(start + CHUNK, len(graphs)))
            if not chosen.intersection(chunk):
                return [None] * len(chunk)
            predicted = self.ghn.predict([graphs[i] for i in chunk])
            return [
                evaluate_one(graphs[i], parameters, self.batches) if i in chosen else None
                for i, parameters in zip(chunk, predicted, strict=True)
            ]

        with one_torch_thread(), ThreadPoolExecutor(self.workers) as pool:
            return [score for scores in pool.map(score_chunk, starts) for score in scores]


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let torch use one thread for each operation, and restore the number at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def evaluate_one(graph: Graph, parameters: Parameters, batches: Sequence[Batch]) -> Score:
    """Score one network with given weights."""
    schedule = plan_one(graph)
    logits = [run(schedule, [parameters], images) for images, _ in batches]
    return _scores(torch.cat(logits, dim=1), torch.cat([labels for _, labels in batches]))[0]


@torch.no_grad()
def evaluate_population(
    graphs: Sequence[Graph], parameters: Sequence[Parameters], batches: Sequence[Batch]
) -> list[Score]:
    """Score many networks with given weights as one population."""
    schedule = plan(graphs)
    logits = [run(schedule, parameters, images) for images, _ in batches]
    return _scores(torch.cat(logits, dim=1), torch.cat([labels for _, labels in batches]))


def _scores(logits: Tensor, labels: Tensor) -> list[Score]:
    """(networks, N, classes) and (N,) -> a score for each network."""
    finite = torch.isfinite(logits).all(dim=2).all(dim=1)
    accuracy = (logits.argmax(dim=2) == labels).double().mean(dim=1) * finite
    loss = torch.stack([F.cross_entropy(item.float(), labels) for item in logits])
    loss = torch.where(finite, loss, torch.full_like(loss, float("inf")))
    return [Score(a, b) for a, b in zip(accuracy.tolist(), loss.tolist(), strict=True)]
