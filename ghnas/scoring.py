"""Zero-shot scores: predict the weights of many architectures, then evaluate each."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ghnas.device import cores
from ghnas.errors import UserError
from ghnas.ghn.model import GHN
from ghnas.graph import Graph
from ghnas.population import Parameters, plan, plan_one, run
from ghnas.processes import one_torch_thread, start_pool

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
"""Architectures that are predicted together on a CPU."""


class Scorer:
    """Scores architectures with predicted weights on fixed batches.

    On a CPU chunks of architectures are predicted and evaluated by processes with one torch
    thread each, so that a score does not depend on the number of cores. On a GPU all networks
    run as one population.

    Args:
        ghn: The hypernetwork; moved to the device.
        batches: Images and labels; batch-norm sees a batch at a time.
        device: Where to compute.
        workers: Processes on a CPU; default: one for each core. With 1, none is started.
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
        self._pool: ProcessPoolExecutor | None = None
        if device.type == "cpu" and self.workers > 1:
            self._pool = start_pool(self.workers, _start_worker, self.ghn, self.batches)
            weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)

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
            return self._score_on_cores(graphs, chosen)
        scores = evaluate_population(graphs, self.ghn.predict_graphs(graphs), self.batches)
        return [score if i in chosen else None for i, score in enumerate(scores)]

    def _score_on_cores(self, graphs: Sequence[Graph], chosen: set[int]) -> list[Score | None]:
        tasks = []
        for start in range(0, len(graphs), CHUNK):
            chunk = graphs[start : start + CHUNK]
            tasks.append((chunk, [i in chosen for i in range(start, start + len(chunk))]))
        if self._pool is None:
            with one_torch_thread():
                scores = [_score_chunk(self.ghn, self.batches, *task) for task in tasks]
        else:
            try:
                scores = list(self._pool.map(_score_in_worker, tasks))
            except BrokenProcessPool as error:
                raise UserError(
                    "a scoring process was ended from outside, perhaps for lack of memory: "
                    "what was scored is kept, go on with `ghnas search --resume`"
                ) from error
        return [score for chunk_scores in scores for score in chunk_scores]


def _score_chunk(
    ghn: GHN, batches: Sequence[Batch], graphs: Sequence[Graph], wanted: Sequence[bool]
) -> list[Score | None]:
    """Predict all of a chunk, evaluate what is wanted of it."""
    if not any(wanted):
        return [None] * len(graphs)
    return [
        evaluate_one(graph, parameters, batches) if want else None
        for graph, parameters, want in zip(graphs, ghn.predict_graphs(graphs), wanted, strict=True)
    ]


_worker: tuple[GHN, Sequence[Batch]] | None = None
"""What a worker process scores with; None in every other process."""


def _start_worker(ghn: GHN, batches: Sequence[Batch]) -> None:
    global _worker
    _worker = (ghn, batches)


def _score_in_worker(task: tuple[Sequence[Graph], Sequence[bool]]) -> list[Score | None]:
    assert _worker is not None
    return _score_chunk(*_worker, *task)


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
