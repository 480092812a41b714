"""The backward pass of a program: for each of its steps, in reverse, what becomes of gradients.

There is a gradient for each tensor and for each of its normalised forms, before any activation:
readers multiply by the activation's derivative as they contribute. Where a gradient only moves on,
through a sum or a concatenation, no step is needed: both are at the same place.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from ghnas.architectures.graph import Graph
from ghnas.architectures.ops import BatchNorm
from ghnas.executors.fused.kernels import BLOCK, ROOM
from ghnas.executors.fused.lowering import draft
from ghnas.executors.fused.program import (
    ADD,
    AFFINE,
    AVG_POOL,
    AVG_POOL_GRADIENT,
    BIAS_GRADIENT,
    CLEAR_GRADIENT,
    COPY,
    DENSE,
    DENSE_GRADIENT,
    DEPTHWISE,
    DEPTHWISE_GRADIENT,
    EXTEND,
    EXTEND_GRADIENT,
    GRADIENT_STEP,
    MAX_POOL,
    MAX_POOL_GRADIENT,
    MEAN,
    MEAN_GRADIENT,
    NORMALISE,
    NORMALISE_GRADIENT,
    PASS_GRADIENT,
    Draft,
    GradientStep,
    Norm,
    Program,
    Step,
    TrainingProgram,
    place,
    rounded,
)

_CODES = {
    DENSE: DENSE_GRADIENT,
    DEPTHWISE: DEPTHWISE_GRADIENT,
    MAX_POOL: MAX_POOL_GRADIENT,
    AVG_POOL: AVG_POOL_GRADIENT,
    MEAN: MEAN_GRADIENT,
    EXTEND: EXTEND_GRADIENT,
}
_READ_LINES = (DENSE, DEPTHWISE)
"""Steps whose backward pass does that of the batch normalisation behind them as it reads."""

_SHARED = [name for name in GradientStep._fields if name in Step._fields]
"""Fields that a step's gradient has from the step."""

Form = tuple[int, int]
"""A tensor and the first of its scales and shifts; -1: as it is."""


@dataclass(frozen=True)
class _Place:
    """Where a gradient is.

    Args:
        buffer: Number of the piece of memory.
        offset: In it.
        shared: Whether other forms' gradients are there too, so that nothing may be added.
        lines: The batch normalisation whose backward pass is still to be done; -1: none.
    """

    buffer: int
    offset: int = 0
    shared: bool = False
    lines: int = -1


def lower_training(graph: Graph) -> TrainingProgram:
    """The program of a network with its backward pass.

    Raises:
        Unsupported: If the graph has an operation without a kernel.
    """
    made = draft(graph)
    ends = list(accumulate(made.sizes))
    forward = made.program([0, *ends[:-1]], ends[-1])
    backward = _Differentiation(made)
    for number in reversed(range(len(made.steps))):
        backward.add(made.steps[number], made.shifts[number])
    return backward.finish(forward, [0, *ends[:-1]], graph)


class _Differentiation:
    def __init__(self, made: Draft) -> None:
        self.made = made
        self.rows: list[dict[str, int]] = []
        """By the fields of `GradientStep`, with numbers of tensors and of buffers for places."""
        self.sizes = [made.classes]
        """Of the buffers."""
        self.first, self.last = [0], [0]
        """The first and last row that needs each of them."""
        self.places: dict[Form, _Place] = {(made.logits, -1): _Place(0)}
        self.lines = self.scratch = 0
        self.extra = BLOCK
        steps = made.steps
        self.producer = {step.target: step.code for step in reversed(steps) if _writes(step)}
        """The kind of the step that writes each tensor."""
        self.readers = Counter(form for step in steps for form in _forms(step))
        self.norms = Counter(step.source for step in steps if step.code == NORMALISE)

    def add(self, step: Step, shift: int) -> None:
        """Append what the step's backward pass needs."""
        if step.code == NORMALISE:
            self._normalise(step)
        elif step.code == AFFINE:
            self._bias(step)
        elif step.code == ADD:
            self._sum(step)
        elif _writes(step) and (place := self.places.get((step.target, -1))):
            if step.code == COPY:
                self._move(step, replace(place, offset=place.offset + shift))
            elif step.code in _CODES:
                self._operation(step, place)

    def finish(self, forward: Program, places: list[int], graph: Graph) -> TrainingProgram:
        """The program, once all steps are added."""
        lifetimes = list(zip(self.first, self.last, strict=True))
        addresses, arena = place(self.sizes, lifetimes, len(self.rows))
        for row in self.rows:
            row["source"] = places[row["source"]]
            row["target"] = places[row["target"]]
            row["gradient"] += addresses[row.pop("gradient_buffer")]
            buffer = row.pop("contribution_buffer")
            row["contribution"] = -1 if buffer < 0 else row["contribution"] + addresses[buffer]
        table = [GradientStep(**row) for row in self.rows]
        return TrainingProgram(
            forward=forward,
            steps=np.array(table, np.int64).view(GRADIENT_STEP).ravel(),
            arena=arena,
            scratch=self.scratch,
            extra=self.extra,
            lines=max(self.lines, 1),
            output=addresses[0],
            norms=_norms(self.made, graph),
        )  # fmt: skip

    def _emit(
        self,
        code: int,
        step: Step,
        place: _Place,
        contribution: _Place | None,
        accumulate: bool = False,
        **others: int,
    ) -> None:
        """Append a row that reads the gradient at one place and contributes to another."""
        number = len(self.rows)
        for used in (place, contribution):
            if used is not None:
                self.last[used.buffer] = max(self.last[used.buffer], number)
                self.first[used.buffer] = min(self.first[used.buffer], number)
        self.rows.append(
            {name: getattr(step, name) for name in _SHARED}
            | {
                "code": code,
                "gradient": place.offset,
                "gradient_buffer": place.buffer,
                "lines": place.lines,
                "contribution": contribution.offset if contribution else 0,
                "contribution_buffer": contribution.buffer if contribution else -1,
                "accumulate": int(accumulate),
            }
            | others
        )

    def _buffer(self, size: int) -> _Place:
        self.sizes.append(size)
        self.first.append(len(self.rows))
        self.last.append(len(self.rows))
        return _Place(len(self.sizes) - 1)

    def _own(self, step: Step) -> tuple[_Place | None, bool]:
        """Where the gradient of what a step reads is to be added, and whether there is one yet."""
        form = (step.source, step.affine)
        if form == (0, -1):
            return None, False  # of the images none is wanted
        known = self.places.get(form)
        if known is None:
            self.places[form] = self._buffer(self.made.sizes[step.source])
            return self.places[form], False
        if known.shared:
            own = self._buffer(self.made.sizes[step.source])
            plain = step._replace(activation=0, target=step.source, **_output_of(step))
            self._emit(PASS_GRADIENT, plain, known, own)
            self.places[form] = own
        return self.places[form], True

    def _move(self, step: Step, place: _Place) -> None:
        """The output's gradient is the input's."""
        form = (step.source, step.affine)
        channels = self.made.sizes[step.source] // (step.height * step.width)
        if step.channels < channels:  # the others get nothing of it
            own, there = self._own(step._replace(channels=channels))
            if own is not None:
                if not there:
                    self._emit(CLEAR_GRADIENT, step._replace(channels=channels), place, own)
                self._emit(PASS_GRADIENT, step._replace(**_output_of(step)), place, own, True)
            return
        if step.activation == 0 and form not in self.places and form != (0, -1):
            self.places[form] = place
            return
        own, there = self._own(step)
        if own is not None:
            self._emit(PASS_GRADIENT, step._replace(**_output_of(step)), place, own, there)

    def _sum(self, step: Step) -> None:
        place = self.places.get((step.target, -1))
        if place is None:
            return
        place = self.places[step.target, -1] = replace(place, shared=True)
        second = step._replace(
            source=step.second, affine=step.second_affine, activation=step.second_activation
        )
        for operand in (second, step):
            if operand.source != step.target:  # else it is there already
                self._move(operand, place)

    def _operation(self, step: Step, place: _Place) -> None:
        own, there = self._own(step)
        if step.code == DENSE and own is not None and step.kernel == 1 and step.stride > 1:
            if not there:  # it contributes to some positions only
                self._emit(CLEAR_GRADIENT, step, place, own)
            there = True
        self._reserve(step)
        self._emit(_CODES[step.code], step, place, own, there)

    def _normalise(self, step: Step) -> None:
        place = self.places.get((step.source, step.out_affine))
        if place is None:
            return
        lines = self.lines
        self.lines += step.channels
        plain = step._replace(affine=-1, activation=0, target=step.source, **_output_of(step))
        self._emit(NORMALISE_GRADIENT, plain, place, None, lines=lines)
        place = replace(place, lines=lines)
        alone = self.norms[step.source] == 1 and not self.readers[step.source, -1]
        if alone and self.producer.get(step.source) in _READ_LINES:
            self.places[step.source, -1] = place
            return
        own, there = self._own(plain)
        if own is not None:
            self._emit(PASS_GRADIENT, plain, place, own, there)

    def _bias(self, step: Step) -> None:
        place = self.places.get((step.source, step.out_affine))
        if place is None:
            return
        plain = step._replace(affine=-1, activation=0, target=step.source, **_output_of(step))
        self._emit(BIAS_GRADIENT, plain, place, None)
        self._move(plain, place)

    def _reserve(self, step: Step) -> None:
        """Note the room that a step needs, as its kernel divides it."""
        border = step.dilation * (step.kernel - 1) // 2
        row = step.width + 2 * border
        plane, size = (step.height + 2 * border) * row, step.out_height * step.out_width
        if step.code == DENSE:
            terms = rounded(step.channels * step.kernel**2)
            block = rounded(step.out_channels) + 2 * terms
            self.extra = max(self.extra, block * ROOM)
            room = block + (2 * step.channels * plane if step.kernel > 1 else 0)
        elif step.code == DEPTHWISE:
            room = 2 * plane + size + step.width
        elif step.code == MEAN:
            room = 1
        elif step.code == EXTEND:
            room = size
        else:
            room = 2 * plane + size + 4 * row
        self.scratch = max(self.scratch, room)


def _writes(step: Step) -> bool:
    return step.code in _CODES or step.code in (COPY, ADD)


def _forms(step: Step) -> list[Form]:
    """What a step reads the values of; a bias, those of the tensor as it is."""
    if step.code == AFFINE:
        return [(step.source, -1)]
    if not _writes(step):
        return []
    second = [(step.second, step.second_affine)] if step.code == ADD else []
    return [(step.source, step.affine), *second]


def _output_of(step: Step) -> dict[str, int]:
    """The shape of an output that is the input's."""
    return {"out_channels": step.channels, "out_height": step.height, "out_width": step.width}


def _norms(made: Draft, graph: Graph) -> tuple[Norm, ...]:
    """The batch normalisations of a network, found by where their weights are."""
    names = {
        made.offsets[f"{node.name}.weight"]: node.name
        for node in graph.nodes
        if isinstance(node.op, BatchNorm)
    }
    steps = [step for step in made.steps if step.code == NORMALISE]
    return tuple(
        Norm(
            names[step.weight],
            step.weight,
            step.statistics,
            step.out_affine,
            step.channels,
            step.height * step.width,
        )
        for step in steps
    )
