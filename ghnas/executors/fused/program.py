"""The instructions of the fused executor: what a step holds, and what the steps are."""

from __future__ import annotations

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
