"""Runs many architectures with given weights on the same images.

Nodes of different networks that apply the same operation to inputs of the same shape run as one
operation on a stacked tensor (see `ghnas.architectures.ops`). On a GPU, where small operations
cost mostly their launch, this makes a population little dearer than one network.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ghnas.architectures.graph import Graph, Specification
from ghnas.architectures.ops import Op
from ghnas.executors.base import Parameters

Member = tuple[int, int]
"""(index of the graph, index of the node in it)."""


@dataclass(frozen=True)
class Step:
    """One operation for several members at once.

    Args:
        spec: The operation and its shapes.
        members: The nodes that it computes, in the order of the stacked tensor.
        inputs: For each input of the operation the runs (step, start, length) of members of
            earlier steps to concatenate.
        releases: Steps whose result is not needed after this one.
    """

    spec: Specification
    members: tuple[Member, ...]
    inputs: tuple[tuple[tuple[int, int, int], ...], ...]
    releases: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """A schedule for a population; depends on the graphs alone and can be reused and pickled."""

    steps: tuple[Step, ...]
    names: tuple[tuple[tuple[tuple[int, str], ...], ...], ...]
    """For each step and each parameter: (graph, full parameter name) of every member."""
    outputs: tuple[tuple[int, int], ...]
    """For each graph the (step, position) of its logits."""


def plan(graphs: Sequence[Graph]) -> Plan:
    """Schedule a population: of the nodes that are ready, the largest equal group goes first.

    Args:
        graphs: Architectures for images of one shape.

    Returns:
        The schedule.
    """
    groups: list[tuple[Specification, tuple[Member, ...]]] = []
    missing = [[len(set(node.inputs)) for node in graph.nodes] for graph in graphs]
    consumers = [[tuple(dict.fromkeys(item)) for item in graph.consumers] for graph in graphs]
    ready: dict[Specification, list[Member]] = defaultdict(list)
    for index, graph in enumerate(graphs):
        ready[graph.nodes[0].spec].append((index, 0))
    while ready:
        spec = max(ready, key=lambda item: len(ready[item]))
        members = tuple(ready.pop(spec))
        for graph_index, node_index in members:
            for reader in consumers[graph_index][node_index]:
                missing[graph_index][reader] -= 1
                if missing[graph_index][reader] == 0:
                    reader_spec = graphs[graph_index].nodes[reader].spec
                    ready[reader_spec].append((graph_index, reader))
        groups.append((spec, members))
    return _plan(graphs, groups)


def plan_one(graph: Graph) -> Plan:
    """Schedule one network, a step for each node in order: best on a CPU."""
    return _plan([graph], [(node.spec, ((0, i),)) for i, node in enumerate(graph.nodes)])


def _plan(graphs: Sequence[Graph], groups: list[tuple[Specification, tuple[Member, ...]]]) -> Plan:
    where = {
        member: (step, position)
        for step, (_, members) in enumerate(groups)
        for position, member in enumerate(members)
    }
    inputs: list[tuple[tuple[tuple[int, int, int], ...], ...]] = []
    last_use = list(range(len(groups)))
    names = []
    for number, (spec, members) in enumerate(groups):
        slots = []
        for slot in range(len(graphs[members[0][0]].nodes[members[0][1]].inputs)):
            sources = [where[g, graphs[g].nodes[n].inputs[slot]] for g, n in members]
            slots.append(_runs(sources))
            for step, _ in sources:
                last_use[step] = number
        inputs.append(tuple(slots))
        names.append(
            tuple(
                tuple((g, f"{graphs[g].nodes[n].name}.{key}") for g, n in members)
                for key, _ in spec.parameter_shapes
            )
        )
    outputs = tuple(where[g, len(graph.nodes) - 1] for g, graph in enumerate(graphs))
    kept = {step for step, _ in outputs}
    releases: list[list[int]] = [[] for _ in groups]
    for step, user in enumerate(last_use):
        if step not in kept:
            releases[user].append(step)
    steps = tuple(
        Step(spec, members, slots, tuple(freed))
        for (spec, members), slots, freed in zip(groups, inputs, releases, strict=True)
    )
    return Plan(steps, tuple(names), outputs)


def _runs(sources: Sequence[tuple[int, int]]) -> tuple[tuple[int, int, int], ...]:
    """Join neighbours of one step into (step, start, length)."""
    runs: list[list[int]] = []
    for step, position in sources:
        if runs and runs[-1][0] == step and runs[-1][1] + runs[-1][2] == position:
            runs[-1][2] += 1
        else:
            runs.append([step, position, 1])
    return tuple((a, b, c) for a, b, c in runs)


class GroupedExecutor(threading.local):  # each thread has a plan of its own
    """Runs equal operations of different networks as one; made for a GPU."""

    def __init__(self) -> None:
        self._graphs: tuple[Graph, ...] = ()
        self._plan = Plan((), (), ())

    def __reduce__(self) -> tuple[Callable[..., GroupedExecutor], tuple[()]]:
        """Without its plan when sent to another process."""
        return GroupedExecutor, ()

    def run(self, graphs: Sequence[Graph], weights: Sequence[Parameters], images: Tensor) -> Tensor:
        """See `ghnas.executors.base.Executor`."""
        if tuple(map(id, graphs)) != tuple(map(id, self._graphs)):
            self._graphs, self._plan = tuple(graphs), plan(graphs)
        return run(self._plan, weights, images)


def run(schedule: Plan, parameters: Sequence[Parameters], images: Tensor) -> Tensor:
    """Logits of every architecture, batch-norm with the statistics of the batch.

    Args:
        schedule: From `plan`.
        parameters: For each architecture its parameters by name.
        images: (B, C, H, W), the same for all.

    Returns:
        (networks, B, classes).
    """
    weights = (
        [_stack([parameters[g][name] for g, name in item]) for item in names]
        for names in schedule.names
    )
    return _execute(schedule.steps, schedule.outputs, weights, images)


@dataclass(frozen=True)
class StackedPlan:
    """A schedule whose parameters come as a few stacked tensors.

    Args:
        steps: As in `Plan`.
        outputs: As in `Plan`.
        stacks: For each step and each parameter which stack holds it.
        rows: Rows of the stacks, one member after the other.
    """

    steps: tuple[Step, ...]
    outputs: tuple[tuple[int, int], ...]
    stacks: tuple[tuple[int, ...], ...]
    rows: Tensor


def stacked_plan(schedule: Plan, members: Sequence[Sequence[tuple[int, str]]]) -> StackedPlan:
    """Find every parameter of a schedule in stacked tensors.

    Args:
        schedule: From `plan`.
        members: For each stack the (graph, parameter name) of its rows.
    """
    where = {
        member: (stack, row)
        for stack, rows in enumerate(members)
        for row, member in enumerate(rows)
    }
    stacks, rows = [], []
    for names in schedule.names:
        # members of a step agree in operation and shape, so that one stack holds them all
        stacks.append(tuple(where[item[0]][0] for item in names))
        rows += [where[member][1] for item in names for member in item]
    return StackedPlan(schedule.steps, schedule.outputs, tuple(stacks), torch.tensor(rows))


def run_stacked(schedule: StackedPlan, parameters: Sequence[Tensor], images: Tensor) -> Tensor:
    """As `run`, with the parameters in stacks (K, *shape) on the images' device."""
    return _execute(schedule.steps, schedule.outputs, _select(schedule, parameters), images)


def _select(schedule: StackedPlan, parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    rows = schedule.rows.to(parameters[0].device, non_blocking=True)
    start = 0
    for step, stacks in zip(schedule.steps, schedule.stacks, strict=True):
        weights, count = [], len(step.members)
        for stack in stacks:
            chosen = parameters[stack].index_select(0, rows[start : start + count])
            weights.append(chosen.flatten(0, 1))
            start += count
        yield weights


def _execute(
    steps: Sequence[Step],
    outputs: Sequence[tuple[int, int]],
    weights: Iterable[list[Tensor]],
    images: Tensor,
) -> Tensor:
    values: list[Tensor | None] = []
    for step, parameters in zip(steps, weights, strict=True):
        if not step.inputs:
            values.append(images)
            continue
        op = step.spec.op
        assert isinstance(op, Op)
        inputs = [
            _gather(steps, values, runs, shape[0])
            for runs, shape in zip(step.inputs, step.spec.input_shapes, strict=True)
        ]
        values.append(op.forward(inputs, parameters, len(step.members)))
        for freed in step.releases:
            values[freed] = None
    logits = []
    for index, position in outputs:
        value = values[index]
        assert value is not None
        width = steps[index].spec.output_shape[0]
        logits.append(value[:, position * width : (position + 1) * width])
    return torch.stack(logits)


def _stack(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _gather(
    steps: Sequence[Step],
    values: list[Tensor | None],
    runs: tuple[tuple[int, int, int], ...],
    channels: int,
) -> Tensor:
    """Concatenate runs of earlier results along the channels."""
    parts = []
    for step, start, length in runs:
        value = values[step]
        assert value is not None
        if not steps[step].inputs:  # the images: one copy stands for all members
            parts.append(value.repeat(1, length, 1, 1) if length > 1 else value)
        elif value.shape[1] == length * channels:
            parts.append(value)
        else:
            parts.append(value.narrow(1, start * channels, length * channels))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
