"""Scoring on a GPU: whole populations at a time, prepared by processes of the host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch

from ghnas.architectures.graph import Graph
from ghnas.executors.grouped import GroupedExecutor, Plan, plan, schedule
from ghnas.ghn.config import GHNConfig
from ghnas.ghn.features import FeatureBatch
from ghnas.ghn.model import GHN, read_graphs
from ghnas.scoring.chunks import CHUNK, Task
from ghnas.scoring.evaluation import Batch, Measure, Score, evaluate_some, passes
from ghnas.scoring.racing import Race
from ghnas.utils.processes import Workers

POPULATION = 512
"""The most on a GPU, where memory allows."""
MEMORY = 0.6
"""Share of a GPU's free memory for the values of a population."""
RUNGS = (2,)
"""Batches after which candidates of a population may stop: each stop needs another schedule."""


class Populations:
    """Predicts and evaluates a population in one go; the next ones are prepared meanwhile.

    A population is as large as the device's memory allows. It runs on a CPU too, where that is no
    use but for tests.

    Args:
        ghn: The hypernetwork, on the device.
        executor: Runs the networks.
        batches: Images (B, C, H, W) and labels (B,); batch-norm sees a batch at a time.
        device: Where to compute.
        workers: Processes that prepare; with 1, none is started.
        measure: Finds components of the composite score; None: they are not looked for.
    """

    def __init__(
        self,
        ghn: GHN,
        executor: GroupedExecutor,
        batches: Sequence[Batch],
        device: torch.device,
        workers: int,
        measure: Measure | None,
    ) -> None:
        self._ghn, self._executor, self._measure = ghn, executor, measure
        self._batches = [(x.to(device), labels.to(device)) for x, labels in batches]
        self._sizes = [len(labels) for _, labels in batches]
        self._device = device
        self._size = 0
        self._hosts = Workers(workers, partial, _prepare, ghn.config, self._sizes)

    def size(self, graphs: Sequence[Graph]) -> int:
        """How many networks the memory holds, judged by the first ones that are seen."""
        if self._device.type == "cpu" or not graphs:
            return CHUNK
        if not self._size:
            first = graphs[:CHUNK]
            each = 4 * sum(self._sizes) * schedule(first).largest / len(first)
            free, _ = torch.cuda.mem_get_info(self._device)
            self._size = max(1, min(POPULATION, int(MEMORY * free / each)))
        return self._size

    def scores(self, tasks: Sequence[Task]) -> Iterator[list[Score | None]]:
        """Scores of each task's graphs, None for those that are not wanted."""
        prepared = self._hosts.map(task for task in tasks if task[1])
        for graphs, wanted, race in tasks:
            if not wanted:
                yield [None] * len(graphs)
            elif (ready := next(prepared, None)) is not None:
                yield self._score(graphs, wanted, race, *ready)
            else:
                return

    def cancel(self) -> None:
        """Let `scores` end soon, with what is done."""
        self._hosts.cancel()

    def close(self) -> None:
        """End the processes."""
        self._hosts.close()

    @torch.no_grad()
    def _score(
        self,
        graphs: Sequence[Graph],
        wanted: Sequence[int],
        race: Race | None,
        features: FeatureBatch,
        made: Plan,
    ) -> list[Score | None]:
        weights = self._ghn.predict_population(features, len(graphs))
        self._executor.keep([graphs[i] for i in wanted], weights.take(wanted), made)
        return evaluate_some(
            self._executor, graphs, weights, self._batches, self._measure, wanted, race, RUNGS
        )


def _prepare(
    config: GHNConfig,
    sizes: Sequence[int],
    graphs: Sequence[Graph],
    wanted: Sequence[int],
    race: Race | None,
) -> tuple[FeatureBatch, Plan]:
    """What a GPU needs to predict and run a population; needs none itself.

    Args:
        config: Of the hypernetwork.
        sizes: Of the batches of images.
        graphs: The population.
        wanted: Positions of those to evaluate.
        race: When they stop.
    """
    features = read_graphs(graphs, config)
    begin, end = passes(sizes, race, RUNGS)[0]
    return features, plan([graphs[i] for i in wanted], features.rows, wanted, end - begin)
