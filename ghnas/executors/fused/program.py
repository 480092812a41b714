"""The instructions of the fused executor: what a step holds, and what the steps are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
) = range(11)

FIELDS = (
    "code",
    # what is read: its place in the arena (values of one image), its stored shape, rows and
    # columns to leave out, its first scale and shift (-1: none), its activation
    "source", "channels", "height", "width", "skip", "affine", "activation",
    # the second operand of a sum
    "second", "second_affine", "second_activation",
    # what is written: its place and shape, the first of its sums (-1: none are taken), the first
    # scale and shift that the step computes
    "target", "out_channels", "out_height", "out_width", "statistics", "out_affine",
    # the operation: window, and place of its weights
    "kernel", "stride", "dilation", "weight",
)  # fmt: skip
STEP = np.dtype([(name, np.int64) for name in FIELDS])


@compiled
def rounded(size: int) -> int:
    """Up to a multiple of four: matrix products take four rows at a time."""
    return (size + 3) // 4 * 4


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
