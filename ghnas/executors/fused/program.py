"""The instructions of the fused executor: what a step holds, and what the steps are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ghnas.executors.fused.kernels import compiled

(
    DENSE,
    DEPTHWISE,
    MAX_POOL,
    AVG_POOL,
    NORMALISE,
    MOMENTS,
    AFFINE,
    COPY,
    ADD,
    MEAN,
    FILL,
    EXTEND,
) = range(12)


class Step(NamedTuple):
    """A step of a forward pass.

    What is read: its place in the arena (values of one image), its stored shape, rows and columns
    to leave out, its first scale and shift (-1: none), its activation; the second operand of a sum.

    What is written: its place and shape, the first of its sums (-1: none are taken), the first
    scale and shift that the step computes.

    The operation: window, and place of its weights.
    """

    code: int
    source: int
    channels: int
    height: int
    width: int
    skip: int
    affine: int
    activation: int
    second: int
    second_affine: int
    second_activation: int
    target: int
    out_channels: int
    out_height: int
    out_width: int
    statistics: int
    out_affine: int
    kernel: int
    stride: int
    dilation: int
    weight: int


STEP = np.dtype([(name, np.int64) for name in Step._fields])

(
    DENSE_GRADIENT,
    DEPTHWISE_GRADIENT,
    MAX_POOL_GRADIENT,
    AVG_POOL_GRADIENT,
    NORMALISE_GRADIENT,
    CLEAR_GRADIENT,
    BIAS_GRADIENT,
    PASS_GRADIENT,
    MEAN_GRADIENT,
    EXTEND_GRADIENT,
) = range(10)


class GradientStep(NamedTuple):
    """A step of a backward pass.

    What the forward step read, as there; what it wrote: its place in the arena and its shape, the
    place of its gradient in the arena of gradients, and the batch normalisation whose backward
    pass is done on reading it (-1: none).

    The place of the gradient of what it read, before the activation (-1: not wanted), and whether
    there is something already.

    The operation: window, place of its weights, sums of its batch normalisation.
    """

    code: int
    source: int
    channels: int
    height: int
    width: int
    skip: int
    affine: int
    activation: int
    target: int
    out_channels: int
    out_height: int
    out_width: int
    gradient: int
    lines: int
    contribution: int
    accumulate: int
    kernel: int
    stride: int
    dilation: int
    weight: int
    statistics: int


GRADIENT_STEP = np.dtype([(name, np.int64) for name in GradientStep._fields])


@compiled
def rounded(size: int) -> int:
    """Up to a multiple of four: matrix products take four rows at a time."""
    return (size + 3) // 4 * 4


@dataclass(frozen=True)
class Norm:
    """A batch normalisation of a program.

    Args:
        name: The node's.
        weight: Place of its weights; its biases follow.
        statistics: The first of its channels' sums.
        affine: The first of its scales and shifts.
        channels: How many there are.
        positions: Of an image, that the sums are over.
    """

    name: str
    weight: int
    statistics: int
    affine: int
    channels: int
    positions: int


@dataclass(frozen=True)
class Program:
    """A network for any number of images.

    Args:
        steps: Of type `STEP`, in order.
        parameters: Names of the parameters, in the order of their places.
        arena: Values of all tensors that are alive at a time, for one image.
        scratch: Values that the largest step needs beside, for one image.
        extra: Values that it needs beside, whatever the number of images.
        channels: Normalised channels.
        output: Place of the logits.
        classes: Number of logits.
    """

    steps: np.ndarray[Any, np.dtype[np.void]]
    parameters: tuple[str, ...]
    arena: int
    scratch: int
    extra: int
    channels: int
    output: int
    classes: int


@dataclass(frozen=True)
class TrainingProgram:
    """A network for any number of images, with its backward pass.

    Args:
        forward: Keeps all of its values in the arena.
        steps: Of type `GRADIENT_STEP`, in order.
        arena: Gradients that are alive at a time, for one image.
        scratch: Values that the largest step needs beside, for one image.
        extra: Values that it needs beside, whatever the number of images.
        lines: Normalised channels.
        output: Place of the logits' gradient.
        norms: The batch normalisations.
    """

    forward: Program
    steps: np.ndarray[Any, np.dtype[np.void]]
    arena: int
    scratch: int
    extra: int
    lines: int
    output: int
    norms: tuple[Norm, ...]


@dataclass(frozen=True)
class Draft:
    """The steps of a network, before its tensors have a place.

    Args:
        steps: With numbers of tensors for places.
        shifts: For each step how far behind its target's beginning it writes, for one image.
        sizes: Of each tensor, for one image.
        channels, scratch, extra: As in `Program`.
        offsets: Where each parameter begins.
        logits: The tensor of the output.
        classes: Number of logits.
    """

    steps: list[Step]
    shifts: list[int]
    sizes: list[int]
    channels: int
    scratch: int
    extra: int
    offsets: dict[str, int]
    logits: int
    classes: int

    def lifetimes(self) -> list[tuple[int, int]]:
        """The first and the last step of each tensor; the images are there from the beginning."""
        first, last = [len(self.steps)] * len(self.sizes), [-1] * len(self.sizes)
        used = [(step.source, step.second, step.target) for step in self.steps]
        for number, tensors in enumerate(used):
            for tensor in tensors:
                last[tensor] = number
        for number, tensors in zip(range(len(used) - 1, -1, -1), reversed(used), strict=True):
            for tensor in tensors:
                first[tensor] = number
        first[0], last[self.logits] = 0, len(self.steps)
        return list(zip(first, last, strict=True))

    def program(self, places: Sequence[int], arena: int) -> Program:
        """The program with a place for each tensor in an arena."""
        steps = np.array(self.steps, np.int64)
        table = steps.view(STEP).ravel()
        addresses = np.array(places, np.int64)
        for name in ("source", "second", "target"):
            table[name] = addresses[table[name]]
        table["target"] += self.shifts
        return Program(
            steps=table,
            parameters=tuple(self.offsets),
            arena=arena,
            scratch=self.scratch,
            extra=self.extra,
            channels=max(self.channels, 1),
            output=places[self.logits],
            classes=self.classes,
        )


def place(
    sizes: Sequence[int], lifetimes: Sequence[tuple[int, int]], steps: int
) -> tuple[list[int], int]:
    """An address for each tensor, and the end of all; those that are done make room for others.

    Args:
        sizes: Of the tensors.
        lifetimes: The first and the last step of each.
        steps: How many there are.
    """
    born, dead = defaultdict(list), defaultdict(list)
    for tensor, (first, last) in enumerate(lifetimes):
        born[first].append(tensor)
        dead[last].append(tensor)
    places, end = [0] * len(sizes), 0
    free: defaultdict[int, list[int]] = defaultdict(list)
    for number in range(steps):
        for tensor in born[number]:
            size = sizes[tensor]
            if free[size]:
                places[tensor] = free[size].pop()
            else:
                places[tensor] = end
                end += size
        for tensor in dead[number]:
            free[sizes[tensor]].append(places[tensor])
    return places, end
