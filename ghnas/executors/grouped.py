"""The executor for a GPU: equal operations of different networks run as one.

Nodes of different networks that apply the same operation to inputs of the same shape run as one
operation on a stacked tensor (see `ghnas.architectures.ops`). On a GPU, where small operations
cost mostly their launch, this makes a population little dearer than one network.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from ghnas.architectures.graph import Graph, Specification
from ghnas.architectures.ops import Op
from ghnas.executors.base import Parameters, by_name, losses_of

Member = tuple[int, int]
"""(index of the graph, index of the node in it)."""


class GroupedExecutor(threading.local):  # each thread has a plan of its own
    """Runs many networks as one population, on any device, with gradients if they are wanted."""

    def __init__(self) -> None:
        self._graphs: tuple[Graph, ...] = ()
        self._plan = Plan((), ())

    def __reduce__(self) -> tuple[Callable[..., GroupedExecutor], tuple[()]]:
        """Without its plan when sent to another process."""
        return GroupedExecutor, ()

    def run(self, graphs: Sequence[Graph], weights: Sequence[Parameters], images: Tensor) -> Tensor:
        """See `ghnas.executors.base.Executor`."""
        if list(map(id, graphs)) != list(map(id, self._graphs)):
            self._graphs, self._plan = tuple(graphs), plan(graphs)
        return self._plan.run(by_name(weights), images)

    def losses(
        self,
        graphs: Sequence[Graph],
        weights: Sequence[Parameters],
        images: Tensor,
        labels: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """See `ghnas.executors.base.Executor`."""
        return losses_of(self.run(graphs, weights, images), labels)


@dataclass(frozen=True)
class Step:
    """One operation for several members at once.

    Args:
        spec: The operation and its shapes.
        parameters: For each parameter of the operation (graph, full name) of every member, in
            the order of the stacked tensor.
        groups: How many members there are.
        inputs: For each input of the operation the runs (step, start, length) of members of
            earlier steps to concatenate.
        releases: Steps whose result is not needed after this one.
    """

    spec: Specification
    parameters: tuple[tuple[tuple[int, str], ...], ...]
    groups: int
    inputs: tuple[tuple[tuple[int, int, int], ...], ...]
    releases: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """A schedule for a population; depends on the graphs alone and can be reused and pickled.

    Args:
        steps: In order.
        outputs: For each graph the (step, position) of its logits.
    """

    steps: tuple[Step, ...]
    outputs: tuple[tuple[int, int], ...]

    def run(self, weights: Sequence[Parameters], images: Tensor) -> Tensor:
        """Logits of every architecture, batch-norm with the statistics of the batch.

        Args:
            weights: For each architecture its parameters by name.
            images: (B, C, H, W), the same for all.

        Returns:
            (networks, B, classes).
        """
        values: list[Tensor | None] = []
        for step in self.steps:
            if not step.inputs:
                values.append(images)
                continue
            op = step.spec.op
            assert isinstance(op, Op)
            inputs = [
                self._gather(values, runs, shape[0])
                for runs, shape in zip(step.inputs, step.spec.input_shapes, strict=True)
            ]
            parameters = [
                _joined([weights[graph][name] for graph, name in members], dim=0)
                for members in step.parameters
            ]
            values.append(op.forward(inputs, parameters, step.groups))
            for freed in step.releases:
                values[freed] = None
        logits = []
        for index, position in self.outputs:
            value = values[index]
            assert value is not None
            width = self.steps[index].spec.output_shape[0]
            logits.append(value.narrow(1, position * width, width))
        return torch.stack(logits)

    def _gather(
        self,
        values: Sequence[Tensor | None],
        runs: Sequence[tuple[int, int, int]],
        channels: int,
    ) -> Tensor:
        """Concatenate runs of earlier results along the channels."""
        parts = []
        for step, start, length in runs:
            value = values[step]
            assert value is not None
            if not self.steps[step].inputs:  # the images: one copy stands for all members
                parts.append(value.repeat(1, length, 1, 1) if length > 1 else value)
            else:
                parts.append(value.narrow(1, start * channels, length * channels))
        return _joined(parts, dim=1)


def plan(graphs: Sequence[Graph]) -> Plan:
    """Schedule a population: of the nodes that are ready, the largest equal group goes first.

    Args:
        graphs: Architectures for images of one shape.

    Returns:
        The schedule.
    """
    groups: list[tuple[Specification, list[Member]]] = []
    missing = [[len(node.inputs) for node in graph.nodes] for graph in graphs]
    ready: dict[Specification, list[Member]] = defaultdict(list)
    for index, graph in enumerate(graphs):
        ready[graph.nodes[0].spec].append((index, 0))
    while ready:
        spec = max(ready, key=lambda item: len(ready[item]))
        members = ready.pop(spec)
        for g, n in members:
            for reader in graphs[g].consumers[n]:
                missing[g][reader] -= 1
                if missing[g][reader] == 0:
                    ready[graphs[g].nodes[reader].spec].append((g, reader))
        groups.append((spec, members))
    return _plan(graphs, groups)


def _plan(graphs: Sequence[Graph], groups: Sequence[tuple[Specification, list[Member]]]) -> Plan:
    where = {
        member: (step, position)
        for step, (_, members) in enumerate(groups)
        for position, member in enumerate(members)
    }
    outputs = tuple(where[g, len(graph.nodes) - 1] for g, graph in enumerate(graphs))
    last_use = list(range(len(groups)))
    inputs = []
    for number, (_, members) in enumerate(groups):
        sources = [[where[g, i] for i in graphs[g].nodes[n].inputs] for g, n in members]
        inputs.append(tuple(_runs(slot) for slot in zip(*sources, strict=True)))
        for step, _ in chain.from_iterable(sources):
            last_use[step] = number
    for step, _ in outputs:
        last_use[step] = len(groups)
    releases: list[list[int]] = [[] for _ in range(len(groups) + 1)]
    for step, user in enumerate(last_use):
        releases[user].append(step)
    steps = []
    for number, (spec, members) in enumerate(groups):
        names = [[(g, name) for name, _ in graphs[g].nodes[n].parameters] for g, n in members]
        parameters = tuple(zip(*names, strict=True))
        steps.append(Step(spec, parameters, len(members), inputs[number], tuple(releases[number])))
    return Plan(tuple(steps), outputs)


def _runs(sources: Sequence[tuple[int, int]]) -> tuple[tuple[int, int, int], ...]:
    """Join neighbours of one step into (step, start, length)."""
    runs: list[tuple[int, int, int]] = []
    for step, position in sources:
        last, start, length = runs[-1] if runs else (-1, 0, 0)
        if last == step and start + length == position:
            runs[-1] = (step, start, length + 1)
        else:
            runs.append((step, position, 1))
    return tuple(runs)


def _joined(tensors: list[Tensor], dim: int) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=dim)
