"""Scoring on CPUs: workers predict and evaluate a few architectures at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch

from ghnas.architectures.graph import Graph
from ghnas.executors.base import Executor, FlatParameters
from ghnas.ghn.model import GHN
from ghnas.scoring.evaluation import Batch, Measure, Score, evaluate_some
from ghnas.scoring.racing import Race
from ghnas.utils.processes import Pool

CHUNK = 16
"""Architectures that are predicted and evaluated together."""
Task = tuple[Sequence[Graph], Sequence[int], Race | None]
"""Graphs that are predicted together, the positions of those to evaluate, when to stop."""


class Chunks:
    """Each worker scores a chunk with one torch thread, so that a score does not depend on how
    many there are.

    Args:
        ghn: The hypernetwork.
        executor: Runs the networks.
        batches: Images (B, C, H, W) and labels (B,); batch-norm sees a batch at a time.
        pool: Whose workers do it.
        measure: Finds components of the composite score; None: they are not looked for.
    """

    def __init__(
        self,
        ghn: GHN,
        executor: Executor,
        batches: Sequence[Batch],
        pool: Pool,
        measure: Measure | None,
    ) -> None:
        own = [(x.to(memory_format=torch.channels_last), labels) for x, labels in batches]
        self._workers = pool.start(partial, _score_chunk, ghn, executor, own, measure)

    def size(self, graphs: Sequence[Graph]) -> int:
        """How many architectures are predicted together."""
        return CHUNK

    def scores(self, tasks: Sequence[Task]) -> Iterator[list[Score | None]]:
        """Scores of each task's graphs, None for those that are not wanted."""
        return self._workers.map(tasks)

    def cancel(self) -> None:
        """Let `scores` end soon, with what is done."""
        self._workers.cancel()

    def close(self) -> None:
        """End the workers."""
        self._workers.close()


@torch.no_grad()
def _score_chunk(
    ghn: GHN,
    executor: Executor,
    batches: Sequence[Batch],
    measure: Measure | None,
    graphs: Sequence[Graph],
    wanted: Sequence[int],
    race: Race | None,
) -> list[Score | None]:
    """Predict the weights of all graphs together, evaluate those at the positions `wanted`."""
    if not wanted:
        return [None] * len(graphs)
    pairs = zip(graphs, ghn.predict_graphs(graphs), strict=True)
    weights = [FlatParameters.joined(*pair) for pair in pairs]  # once, and not for each batch
    return evaluate_some(executor, graphs, weights, batches, measure, wanted, race)
