"""A population's schedule with the places of its parameters, ready to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from ghnas.architectures.graph import Graph
from ghnas.architectures.ops import Op
from ghnas.executors.grouped.schedule import Run, Schedule, Step, schedule
from ghnas.executors.stacked import Rows

Piece = tuple[int, int, int]
"""(tensor, start, end): neighbouring rows of an arranged tensor."""
Observe = Callable[[Step, Tensor], None]
"""Called with each step and its result (B, members * C, ...)."""


@dataclass(frozen=True)
class Statistics:
    """Running statistics of all networks.

    Args:
        buffers: For the steps that have some, by number: each buffer of all members, one after the
            other.
        training: Whether those of the batch are used, and added; otherwise these are used.
    """

    buffers: Mapping[int, Sequence[Tensor]]
    training: bool = True


@dataclass(frozen=True)
class Plan:
    """How to run a population; can be reused and sent to another process.

    Args:
        schedule: The steps.
        parameters: For each step and each parameter of its operation the rows that it reads, one
            after the other.
        order: For each tensor of stacked parameters (K,) its rows in the order of the steps, so
            that a step's own are neighbours.
        batches: Batches of images that run in one pass.
    """

    schedule: Schedule
    parameters: tuple[tuple[tuple[Piece, ...], ...], ...]
    order: tuple[Tensor, ...]
    batches: int

    def run(
        self,
        tensors: Sequence[Tensor],
        images: Tensor,
        observe: Observe | None = None,
        statistics: Statistics = Statistics({}),
    ) -> Tensor:
        """Logits of every network, batch-norm with the statistics of each batch.

        Args:
            tensors: Stacked parameters, as in `ghnas.executors.stacked.StackedParameters`.
            images: (batches * B, C, H, W), batch after batch, the same for all.
            observe: Shown each step's result, its images in another order: image i of batch b
                at i * batches + b.
            statistics: Running ones to keep or to use; default: none.

        Returns:
            (networks, batches * B, classes).
        """
        arranged = [
            tensor.index_select(0, order.to(tensor.device, non_blocking=True))
            for tensor, order in zip(tensors, self.order, strict=True)
        ]
        # batches innermost: to a convolution they are more images, to batch-norm more channels
        count = len(images) // self.batches
        values: list[Tensor | None] = [
            images.view(self.batches, count, *images.shape[1:]).transpose(0, 1).flatten(0, 1)
        ]
        for number, step in enumerate(self.schedule.steps[1:], start=1):
            parameters = [_stacked(arranged, own) for own in self.parameters[number]]
            if buffers := statistics.buffers.get(number):
                values.append(_tracked(step, values, parameters, buffers, statistics.training))
            else:
                values.append(self._apply(step, values, parameters))
            if observe is not None:
                observe(step, _known(values[-1]))
            for freed in step.releases:
                values[freed] = None
        return self._logits(values, count)

    def _apply(
        self, step: Step, values: Sequence[Tensor | None], parameters: Sequence[Tensor]
    ) -> Tensor:
        op, groups = step.spec.op, len(step.members)
        assert isinstance(op, Op)
        if all(run[0] == 0 for runs in step.inputs for run in runs):
            return op.forward_shared([_known(values[0])] * len(step.inputs), parameters, groups)
        inputs = _inputs(step, values)
        if not op.reads_statistics or self.batches == 1:
            return op.forward(inputs, parameters, groups)
        split = [
            x.reshape(len(x) // self.batches, self.batches * x.shape[1], *x.shape[2:])
            for x in inputs
        ]
        result = op.forward(split, parameters, self.batches * groups)
        return result.view(len(inputs[0]), -1, *result.shape[2:])

    def _logits(self, values: Sequence[Tensor | None], count: int) -> Tensor:
        """(networks, batches * count, classes), batch after batch."""
        logits = []
        for index, position in self.schedule.outputs:
            width = self.schedule.steps[index].spec.output_shape[0]
            logits.append(_known(values[index]).narrow(1, position * width, width))
        stacked = torch.stack(logits)
        parts = stacked.view(len(logits), count, self.batches, -1)
        return parts.transpose(1, 2).flatten(1, 2)


def plan(
    graphs: Sequence[Graph],
    rows: Rows,
    networks: Sequence[int],
    batches: int = 1,
    known: Schedule | None = None,
) -> Plan:
    """Plan a population.

    Args:
        graphs: Architectures for images of one shape.
        rows: Of their stacked parameters, as in `ghnas.executors.stacked.StackedParameters`.
        networks: The indices in `rows` of the graphs.
        batches: Batches of images that will run in one pass.
        known: The graphs' schedule, if it is there already.
    """
    made = known or schedule(graphs)
    places = _places(graphs, rows, networks)
    order: list[list[int]] = [[] for _ in rows]
    parameters = []
    for step in made.steps:
        # batch-norm sees each batch as further networks with the same parameters
        copies = batches if isinstance(step.spec.op, Op) and step.spec.op.reads_statistics else 1
        pieces = []
        if step.spec.parameter_shapes:
            own = [places[g][n] for g, n in step.members]
            pieces = [_pieces(order, list(slot) * copies) for slot in zip(*own, strict=True)]
        parameters.append(tuple(pieces))
    return Plan(made, tuple(parameters), tuple(map(torch.tensor, order)), batches)


def _places(
    graphs: Sequence[Graph], rows: Rows, networks: Sequence[int]
) -> list[list[tuple[tuple[int, int], ...]]]:
    """For each graph and node the (tensor, row) of its parameters."""
    named: dict[int, dict[str, tuple[int, int]]] = {network: {} for network in networks}
    for number, own in enumerate(rows):
        for row, (network, name) in enumerate(own):
            if network in named:
                named[network][name] = number, row
    result = []
    for graph, network in zip(graphs, networks, strict=True):
        found = map(named[network].__getitem__, graph.parameters)
        result.append(
            [tuple(islice(found, len(node.spec.parameter_shapes))) for node in graph.nodes]
        )
    return result


def _pieces(order: Sequence[list[int]], places: Sequence[tuple[int, int]]) -> tuple[Piece, ...]:
    """Append rows to the order of their tensors; where they stand there."""
    pieces: list[Piece] = []
    for number, row in places:
        own = order[number]
        own.append(row)
        if pieces and pieces[-1][0] == number:
            pieces[-1] = number, pieces[-1][1], len(own)
        else:
            pieces.append((number, len(own) - 1, len(own)))
    return tuple(pieces)


def _stacked(arranged: Sequence[Tensor], pieces: Sequence[Piece]) -> Tensor:
    """(members, *shape) side by side along the first dimension of the shape."""
    parts = [arranged[number][start:end].flatten(0, 1) for number, start, end in pieces]
    return _joined(parts, 0)


def _tracked(
    step: Step,
    values: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
    buffers: Sequence[Tensor],
    training: bool,
) -> Tensor:
    op = step.spec.op
    assert isinstance(op, Op)
    return op.forward_tracked(_inputs(step, values), parameters, buffers, training)


def _inputs(step: Step, values: Sequence[Tensor | None]) -> list[Tensor]:
    """(B, members * C, ...) for each input of the operation."""
    return [
        _gathered(values, runs, shape[0])
        for runs, shape in zip(step.inputs, step.spec.input_shapes, strict=True)
    ]


def _gathered(values: Sequence[Tensor | None], runs: Sequence[Run], channels: int) -> Tensor:
    """Join runs of earlier results along the channels."""
    parts = []
    for step, start, length in runs:
        value = _known(values[step])
        if step == 0:  # the images: one copy stands for all members
            parts.append(value.repeat(1, length, 1, 1))
        else:
            parts.append(value.narrow(1, start * channels, length * channels))
    return _joined(parts, 1)


def _joined(tensors: list[Tensor], dim: int) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=dim)


def _known(value: Tensor | None) -> Tensor:
    assert value is not None, "a value is read after its release"
    return value
