"""The executor for a GPU: equal operations of different networks run as one.

On a GPU, where small operations cost mostly their launch, this makes a population little dearer
than one network.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from torch import Tensor

from ghnas.architectures.graph import Graph
from ghnas.executors.base import Parameters, losses_of
from ghnas.executors.grouped.plan import Observe, Plan, plan
from ghnas.executors.grouped.schedule import Schedule, schedule
from ghnas.executors.stacked import Rows, StackedParameters, rows_of


class GroupedExecutor(threading.local):  # each thread has a schedule of its own
    """Runs many networks as one population, on any device, with gradients if they are wanted."""

    def __init__(self) -> None:
        self._graphs: tuple[Graph, ...] = ()
        self._schedule = Schedule((), (), 0)
        self._rows: Rows | None = None
        """Of parameters that come by name."""
        self._plans: dict[tuple[int, tuple[int, ...], int], tuple[Rows, Plan]] = {}
        """By the identity of the rows, which are kept with their plan."""

    def __reduce__(self) -> tuple[Callable[..., GroupedExecutor], tuple[()]]:
        """Without its schedule when sent to another process."""
        return GroupedExecutor, ()

    def keep(self, graphs: Sequence[Graph], weights: StackedParameters, made: Plan) -> None:
        """Take over a plan that another process made.

        Args:
            graphs: Its graphs.
            weights: Their parameters, as they will be run.
            made: The plan.
        """
        self._prepare(graphs, made.schedule)
        self._plans[_key(weights, made.batches)] = weights.rows, made

    def run(
        self,
        graphs: Sequence[Graph],
        weights: Sequence[Parameters],
        images: Tensor,
        batches: int = 1,
    ) -> Tensor:
        """See `ghnas.executors.base.Executor`."""
        return self.observed(graphs, weights, images, batches, None)

    def observed(
        self,
        graphs: Sequence[Graph],
        weights: Sequence[Parameters],
        images: Tensor,
        batches: int,
        observe: Observe | None,
    ) -> Tensor:
        """As `run`; `observe` is shown every result, see `Plan.run`."""
        if list(map(id, graphs)) != list(map(id, self._graphs)):
            self._prepare(graphs, schedule(graphs))
        if not isinstance(weights, StackedParameters):
            self._rows = self._rows or rows_of(graphs)
            weights = StackedParameters.of(weights, self._rows)
        key = _key(weights, batches)
        if key not in self._plans:
            made = plan(graphs, weights.rows, weights.networks, batches, self._schedule)
            self._plans[key] = weights.rows, made
        return self._plans[key][1].run(weights.tensors, images, observe)

    def losses(
        self,
        graphs: Sequence[Graph],
        weights: Sequence[Parameters],
        images: Tensor,
        labels: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """See `ghnas.executors.base.Executor`."""
        return losses_of(self.run(graphs, weights, images), labels)

    def _prepare(self, graphs: Sequence[Graph], made: Schedule) -> None:
        self._graphs, self._schedule, self._rows, self._plans = tuple(graphs), made, None, {}


def _key(weights: StackedParameters, batches: int) -> tuple[int, tuple[int, ...], int]:
    return id(weights.rows), weights.networks, batches
