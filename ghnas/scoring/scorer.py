"""Zero-shot scores: predict the weights of many architectures, then evaluate each."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ghnas.architectures.graph import Graph
from ghnas.executors.fused import Machine, Unsupported, compile_kernels, lower
from ghnas.executors.grouped import Parameters, Plan, plan, plan_one, run
from ghnas.ghn.model import GHN
from ghnas.scoring.racing import Early, Race
from ghnas.utils.devices import cores
from ghnas.utils.errors import UserError
from ghnas.utils.processes import one_torch_thread, start_pool

Batch = tuple[Tensor, Tensor]
"""Normalised images (B, C, H, W) and labels (B,)."""


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
        evidence: What else was asked for, see `Measure`.
    """

    accuracy: float
    loss: float
    images: int = 0
    early: Early = ()
    stopped: bool = False
    evidence: Evidence | None = None


@dataclass(frozen=True)
class Evidence:
    """What predicted weights and the graph tell of an architecture; higher is better.

    Args:
        fit: Minus the zero-shot loss, in nats.
        separability: Log-determinant of the kernel of the images' ReLU codes (naswot, Mellor et
            al., ICML 2021, section 3) with predicted weights.
        size: Natural logarithm of the number of parameters.
    """

    fit: float
    separability: float
    size: float


Measure = Callable[[Graph, Parameters, Batch, Score], Evidence]
"""Finds evidence for an architecture: graph, predicted weights, the first batch, its score."""


CHUNK = 16
"""Architectures that are predicted together on a CPU."""

POPULATION = 64
"""Architectures that run together on a GPU: what its memory holds."""


class Scorer:
    """Scores architectures with predicted weights on fixed batches.

    On a CPU chunks of architectures are predicted and evaluated by processes with one torch
    thread each, so that a score does not depend on the number of cores. On a GPU `POPULATION`
    networks run at a time.

    Args:
        ghn: The hypernetwork; moved to the device.
        batches: Images and labels; batch-norm sees a batch at a time.
        device: Where to compute.
        workers: Processes on a CPU; default: one for each core. With 1, none is started.
        measure: Finds evidence beside the score; default: none is looked for.
    """

    def __init__(
        self,
        ghn: GHN,
        batches: list[Batch],
        device: torch.device,
        workers: int | None = None,
        measure: Measure | None = None,
    ) -> None:
        self.measure = measure
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
            compile_kernels()
            self._pool = start_pool(self.workers, _start_worker, self.ghn, self.batches, measure)
            weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)

    def score(
        self,
        graphs: Sequence[Graph],
        wanted: Sequence[int] | None = None,
        race: Race | None = None,
    ) -> list[Score | None]:
        """Score architectures.

        Args:
            graphs: The architectures. What is predicted together depends on this list alone, so
                that a score is the same whatever is wanted.
            wanted: Which of them to evaluate; default: all.
            race: When to stop before the last image; default: never.

        Returns:
            A score for each graph that is wanted, None for the others.
        """
        chosen = set(range(len(graphs)) if wanted is None else wanted)
        if not chosen:
            return [None] * len(graphs)
        if self.device.type == "cpu":
            return self._score_on_cores(graphs, chosen, race)
        scores: list[Score | None] = [None] * len(graphs)
        for start in range(0, len(graphs), POPULATION):
            chunk = graphs[start : start + POPULATION]
            members = [i for i in range(len(chunk)) if start + i in chosen]
            if not members:
                continue
            parameters = self.ghn.predict_graphs(chunk)
            found = evaluate_population(
                [chunk[i] for i in members], [parameters[i] for i in members], self.batches, race
            )
            for i, score in zip(members, found, strict=True):
                if self.measure is not None:
                    evidence = self.measure(chunk[i], parameters[i], self.batches[0], score)
                    score = replace(score, evidence=evidence)
                scores[start + i] = score
        return scores

    def _score_on_cores(
        self, graphs: Sequence[Graph], chosen: set[int], race: Race | None
    ) -> list[Score | None]:
        tasks = []
        for start in range(0, len(graphs), CHUNK):
            chunk = graphs[start : start + CHUNK]
            tasks.append((chunk, [i in chosen for i in range(start, start + len(chunk))], race))
        if self._pool is None:
            with one_torch_thread():
                evaluator = Evaluator(self.batches, self.measure)
                scores = [_score_chunk(self.ghn, evaluator, *task) for task in tasks]
        else:
            try:
                scores = list(self._pool.map(_score_in_worker, tasks))
            except BrokenProcessPool as error:
                raise UserError(
                    "a scoring process was ended from outside, perhaps for lack of memory: "
                    "what was scored is kept, go on with `ghnas search --resume`"
                ) from error
        return [score for chunk_scores in scores for score in chunk_scores]


class _Run(Protocol):
    """Logits (B, classes) of a network on the batch of that number."""

    def __call__(self, batch: int) -> Tensor: ...


class Evaluator:
    """Evaluates networks with given weights, one at a time, on a CPU.

    Args:
        batches: Images and labels; batch-norm sees a batch at a time.
        measure: Finds evidence beside the score.
    """

    def __init__(self, batches: Sequence[Batch], measure: Measure | None = None) -> None:
        self.batches = batches
        self.measure = measure
        self._machine = Machine([images for images, _ in batches])

    def evaluate(self, graph: Graph, parameters: Parameters, race: Race | None = None) -> Score:
        """Score a network, batch after batch for as long as the race goes on."""
        network = self._network(graph, parameters)
        tallies = [_Tally()]
        for number, (_, labels) in enumerate(self.batches, start=1):
            right, loss = _measure(network(number - 1)[None], labels)[0]
            tallies.append(tallies[-1].plus(len(labels), right, loss))
            stopped = _stopped(race, number, tallies[-1])
            if stopped is not None:
                return stopped
        score = _finished(tallies[1:])
        if self.measure is None:
            return score
        return replace(score, evidence=self.measure(graph, parameters, self.batches[0], score))

    def _network(self, graph: Graph, parameters: Parameters) -> _Run:
        try:
            program = lower(graph)
        except Unsupported:
            schedule = plan_one(graph)
            return lambda batch: run(schedule, [parameters], self.batches[batch][0])[0]
        return lambda batch: self._machine.run(program, parameters, batch)


@dataclass(frozen=True)
class _Tally:
    """Counts over the images that a network has seen."""

    images: int = 0
    right: int = 0
    loss: float = 0.0

    def plus(self, images: int, right: int, loss: float) -> _Tally:
        """With another batch: its images, how many were right, and the sum of their losses."""
        return _Tally(self.images + images, self.right + right, self.loss + loss)

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


def _stopped(race: Race | None, batches: int, tally: _Tally) -> Score | None:
    """The score of a candidate that stops after so many batches."""
    expected = race.verdict(batches, tally.accuracy, tally.mean_loss) if race else None
    if expected is None:
        return None
    return Score(expected, tally.mean_loss, tally.images, stopped=True)


def _finished(tallies: Sequence[_Tally]) -> Score:
    """The score of a candidate that saw everything, from its tally after each batch."""
    last = tallies[-1]
    early = tuple((tally.accuracy, tally.mean_loss) for tally in tallies[:-1])
    return Score(last.accuracy, last.mean_loss, last.images, early)


@torch.no_grad()
def _score_chunk(
    ghn: GHN,
    evaluator: Evaluator,
    graphs: Sequence[Graph],
    wanted: Sequence[bool],
    race: Race | None,
) -> list[Score | None]:
    """Predict all of a chunk, evaluate what is wanted of it."""
    if not any(wanted):
        return [None] * len(graphs)
    return [
        evaluator.evaluate(graph, parameters, race) if want else None
        for graph, parameters, want in zip(graphs, ghn.predict_graphs(graphs), wanted, strict=True)
    ]


_worker: tuple[GHN, Evaluator] | None = None
"""What a worker process scores with; None in every other process."""


def _start_worker(ghn: GHN, batches: Sequence[Batch], measure: Measure | None) -> None:
    global _worker
    _worker = (ghn, Evaluator(batches, measure))


def _score_in_worker(
    task: tuple[Sequence[Graph], Sequence[bool], Race | None],
) -> list[Score | None]:
    assert _worker is not None
    ghn, evaluator = _worker
    graphs, wanted, race = task
    return _score_chunk(ghn, evaluator, graphs, wanted, race)


@torch.no_grad()
def evaluate_one(graph: Graph, parameters: Parameters, batches: Sequence[Batch]) -> Score:
    """Score one network with given weights, with PyTorch's own operations."""
    return evaluate_population([graph], [parameters], batches)[0]


@torch.no_grad()
def evaluate_population(
    graphs: Sequence[Graph],
    parameters: Sequence[Parameters],
    batches: Sequence[Batch],
    race: Race | None = None,
) -> list[Score]:
    """Score many networks with given weights as one population, as long as each is in the race."""
    scores: dict[int, Score] = {}
    tallies: list[list[_Tally]] = [[] for _ in graphs]
    running = list(range(len(graphs)))
    schedule = _schedule(graphs)
    for number, (images, labels) in enumerate(batches, start=1):
        logits = run(schedule, [parameters[i] for i in running], images)
        for i, (right, loss) in zip(running, _measure(logits, labels), strict=True):
            before = tallies[i][-1] if tallies[i] else _Tally()
            tallies[i].append(before.plus(len(labels), right, loss))
            stopped = _stopped(race, number, tallies[i][-1])
            if stopped is not None:
                scores[i] = stopped
        left = [i for i in running if i not in scores]
        if not left:
            break
        if len(left) < len(running):
            running, schedule = left, _schedule([graphs[i] for i in left])
    return [scores.get(i) or _finished(tallies[i]) for i in range(len(graphs))]


def _schedule(graphs: Sequence[Graph]) -> Plan:
    return plan_one(graphs[0]) if len(graphs) == 1 else plan(graphs)
