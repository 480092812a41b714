"""Runs many architectures with given weights on the same images.

Nodes of different networks that apply the same operation to inputs of the same shape run as one
operation on a stacked tensor (see `ghnas.ops`). On a GPU, where small operations cost mostly
their launch, this makes a population little dearer than one network. On a CPU each network
runs on its own thread.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ghnas.graph import Graph, Specification
from ghnas.ops import Op

Parameters = Mapping[str, Tensor]
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
    missing = [[len(set(node.inputs)) for node in graph.nodes] for graph in graphs]
    consumers = [[tuple(dict.fromkeys(item)) for item in graph.consumers] for graph in graphs]
    ready: dict[Specification, list[Member]] = defaultdict(list)
    for index, graph in enumerate(graphs):
        ready[graph.nodes[0].spec].append((index, 0))
    groups: list[tuple[Specification, tuple[Member, ...]]] = []
    where: dict[Member, tuple[int, int]] = {}
    while ready:
        spec = max(ready, key=lambda item: len(ready[item]))
        members = tuple(ready.pop(spec))
        for position, (graph_index, node_index) in enumerate(members):
            where[graph_index, node_index] = (len(groups), position)
            for reader in consumers[graph_index][node_index]:
                missing[graph_index][reader] -= 1
                if missing[graph_index][reader] == 0:
                    reader_spec = graphs[graph_index].nodes[reader].spec
                    ready[reader_spec].append((graph_index, reader))
        groups.append((spec, members))
    return _plan(graphs, groups, where)


def _plan(
    graphs: Sequence[Graph],
    groups: list[tuple[Specification, tuple[Member, ...]]],
    where: dict[Member, tuple[int, int]],
) -> Plan:
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


def run(schedule: Plan, parameters: Sequence[Parameters], images: Tensor) -> Tensor:
    """Logits of every architecture, batch-norm with the statistics of the batch.

    Args:
        schedule: From `plan`.
        parameters: For each architecture its parameters by name.
        images: (B, C, H, W), the same for all.

    Returns:
        (networks, B, classes).
    """
    values: list[Tensor | None] = []
    for step, names in zip(schedule.steps, schedule.names, strict=True):
        if not step.inputs:
            values.append(images)
            continue
        op = step.spec.op
        assert isinstance(op, Op)
        inputs = [
            _gather(schedule, values, runs, shape[0])
            for runs, shape in zip(step.inputs, step.spec.input_shapes, strict=True)
        ]
        weights = [_stack([parameters[g][name] for g, name in item]) for item in names]
        values.append(op.forward(inputs, weights, len(step.members)))
        for freed in step.releases:
            values[freed] = None
    logits = []
    for step_index, position in schedule.outputs:
        value = values[step_index]
        assert value is not None
        width = schedule.steps[step_index].spec.output_shape[0]
        logits.append(value[:, position * width : (position + 1) * width])
    return torch.stack(logits)


def _stack(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _gather(
    schedule: Plan,
    values: list[Tensor | None],
    runs: tuple[tuple[int, int, int], ...],
    channels: int,
) -> Tensor:
    """Concatenate runs of earlier results along the channels."""
    parts = []
    for step, start, length in runs:
        value = values[step]
        assert value is not None
        if not schedule.steps[step].inputs:  # the images: one copy stands for all members
            parts.append(value.repeat(1, length, 1, 1) if length > 1 else value)
        elif value.shape[1] == length * channels:
            parts.append(value)
        else:
            parts.append(value.narrow(1, start * channels, length * channels))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
