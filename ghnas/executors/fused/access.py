"""How steps read what they are given: scaled, shifted and activated; and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from ghnas.executors.fused.gradient_kernels import combine_lines, through_activation
from ghnas.executors.fused.kernels import Floats, activate, compiled, fetch, pad_plane


@compiled
def scale_of(affine: Floats, first: int, channel: int) -> np.float32:
    """A channel's scale; without a normalisation (`first` is negative) 1."""
    return affine[0, first + channel] if first >= 0 else np.float32(1)


@compiled
def shift_of(affine: Floats, first: int, channel: int) -> np.float32:
    """A channel's shift; without a normalisation 0."""
    return affine[1, first + channel] if first >= 0 else np.float32(0)


@compiled
def read(
    step: Any, channel: int, source: int, arena: Floats, affine: Floats, target: Floats
) -> None:
    """Fill a target with the activated values of a channel of the step's input."""
    fetch(arena, source + len(target), len(target))
    scale, shift = scale_of(affine, step.affine, channel), shift_of(affine, step.affine, channel)
    activate(arena[source : source + len(target)], target, scale, shift, step.activation)


@compiled
def pad(
    step: Any,
    channel: int,
    count: int,
    border: int,
    fill: np.float32,
    arena: Floats,
    affine: Floats,
    target: Floats,
) -> None:
    """Pad a channel of the step's input."""
    row = step.width * count
    start = step.source * count + channel * step.height * row
    scale, shift = scale_of(affine, step.affine, channel), shift_of(affine, step.affine, channel)
    pad_plane(
        arena[start : start + step.height * row], step.height, row, border, border * count, fill,
        target, scale, shift, step.activation,
    )  # fmt: skip


@compiled
def read_gradient(
    step: Any,
    channel: int,
    start: int,
    count: int,
    arena: Floats,
    gradients: Floats,
    lines: Floats,
    target: Floats,
) -> None:
    """Fill a target with gradients of a channel of the step's output, from a position on.

    Where the output is read by a batch normalisation alone, that one's backward pass is done here:
    it is linear in the gradient behind it and in the output.
    """
    offset = channel * step.out_height * step.out_width * count + start
    begin = step.gradient * count + offset
    source = gradients[begin : begin + len(target)]
    fetch(gradients, begin + len(target), len(target))
    if step.lines < 0:
        target[:] = source
        return
    value = step.target * count + offset
    fetch(arena, value + len(target), len(target))
    line = lines[:, step.lines + channel]
    combine_lines(source, arena[value : value + len(target)], line[0], line[1], line[2], target)


@compiled
def gradient_of(
    step: Any,
    channel: int,
    count: int,
    arena: Floats,
    gradients: Floats,
    lines: Floats,
    room: Floats,
) -> Any:
    """All gradients of a channel of the step's output, in `room` or where they are."""
    if step.lines < 0:
        begin = step.gradient * count + channel * len(room)
        return gradients[begin : begin + len(room)]
    read_gradient(step, channel, 0, count, arena, gradients, lines, room)
    return room


@compiled
def contribute(
    step: Any,
    channel: int,
    position: int,
    count: int,
    arena: Floats,
    affine: Floats,
    gradients: Floats,
    gradient: Floats,
) -> None:
    """Give gradients of what the step read, after its activation, from a position on."""
    offset = channel * step.height * step.width * count + position
    source, begin = step.source * count + offset, step.contribution * count + offset
    fetch(gradients, begin + len(gradient), len(gradient))
    scale, shift = scale_of(affine, step.affine, channel), shift_of(affine, step.affine, channel)
    value, target = arena[source : source + len(gradient)], gradients[begin : begin + len(gradient)]
    through_activation(gradient, value, scale, shift, step.activation, target, step.accumulate)


@compiled
def contribute_plane(
    step: Any,
    channel: int,
    count: int,
    border: int,
    arena: Floats,
    affine: Floats,
    gradients: Floats,
    plane: Floats,
) -> None:
    """Contribute the inner part of a padded plane of gradients."""
    row, pitch = step.width * count, (step.width + 2 * border) * count
    for i in range(step.height):
        begin = (i + border) * pitch + border * count
        line = plane[begin : begin + row]
        contribute(step, channel, i * row, count, arena, affine, gradients, line)
