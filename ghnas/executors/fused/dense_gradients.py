"""The backward pass of dense convolutions: gradients of the weights, and of what they read."""

from __future__ import annotations

from typing import Any

import numpy as np

from ghnas.executors.fused.access import contribute, contribute_plane, pad, read, read_gradient
from ghnas.executors.fused.gradient_kernels import in_nines, multiply_transposed
from ghnas.executors.fused.kernels import (
    BLOCK,
    DIRECT,
    ROOM,
    Floats,
    combine,
    compiled,
    fetch,
    multiply,
    rows_of,
)
from ghnas.executors.fused.program import rounded
from ghnas.executors.fused.vectors import LANES


@compiled
def dense_gradient(
    step: Any,
    weights: Floats,
    count: int,
    arena: Floats,
    gradients: Floats,
    scratch: Floats,
    affine: Floats,
    lines: Floats,
    slopes: Floats,
) -> None:
    """The backward pass of a convolution of all channels with all, or of a matrix product."""
    terms, outputs = step.channels * step.kernel * step.kernel, step.out_channels
    weight = np.zeros((rounded(terms), rounded(outputs)), np.float32)
    for o in range(outputs):
        for t in range(len(weight)):  # rows that only fill up are the last one again
            weight[t, o] = weights[step.weight + o * terms + min(t, terms - 1)]
    sums = np.zeros(weight.shape[1] * in_nines(terms) * LANES, np.float32)
    if step.kernel == 1 and step.stride == 1 and step.skip == 0:
        _dense_plain(step, weight, count, arena, gradients, scratch, affine, lines, sums)
    elif step.kernel == 1:
        _dense_at_strides(step, weight, count, arena, gradients, scratch, affine, lines, sums)
    else:
        _dense_by_rows(step, weight, count, arena, gradients, scratch, affine, lines, sums)
    for o in range(outputs):
        for t in range(terms):
            begin = (o * in_nines(terms) + t) * LANES
            slopes[step.weight + o * terms + t] += sums[begin : begin + LANES].sum()


@compiled
def _dense_plain(
    step: Any,
    weight: Floats,
    count: int,
    arena: Floats,
    gradients: Floats,
    scratch: Floats,
    affine: Floats,
    lines: Floats,
    sums: Floats,
) -> None:
    """A 1x1 convolution, a block of positions at a time."""
    terms, outputs = weight.shape
    y, rest = scratch[: outputs * ROOM], scratch[outputs * ROOM :]
    back = rest[terms * ROOM :]
    size = step.height * step.width * count
    plain = step.affine < 0 and step.activation == 0
    as_it_is = plain and step.channels <= DIRECT
    alone = plain and step.accumulate == 0
    y_rows = rows_of(outputs, step.out_channels, 0, ROOM)
    x_first, x_pitch = (step.source * count, size) if as_it_is else (0, ROOM)
    x_rows = rows_of(in_nines(step.channels), step.channels, x_first, x_pitch)
    back_first, back_pitch = (step.contribution * count, size) if alone else (0, ROOM)
    back_rows = rows_of(terms, step.channels, back_first, back_pitch)
    for start in range(0, size, BLOCK):
        length = min(BLOCK, size - start)
        for o in range(step.out_channels):
            target = y[o * ROOM : o * ROOM + length]
            read_gradient(step, o, start, count, arena, gradients, lines, target)
        x = arena[start:] if as_it_is else rest
        for c in range(step.channels):
            if as_it_is:
                fetch(x, x_rows[c] + BLOCK, BLOCK)
            else:
                source = step.source * count + c * size + start
                read(step, c, source, arena, affine, x[c * ROOM : c * ROOM + length])
        multiply_transposed(y, y_rows, x, x_rows, length, sums)
        if step.contribution < 0:
            continue
        multiply(y, y_rows, length, weight, gradients[start:] if alone else back, back_rows)
        if not alone:
            for c in range(step.channels):
                line = back[c * ROOM : c * ROOM + length]
                contribute(step, c, start, count, arena, affine, gradients, line)


@compiled
def _dense_at_strides(
    step: Any,
    weight: Floats,
    count: int,
    arena: Floats,
    gradients: Floats,
    scratch: Floats,
    affine: Floats,
    lines: Floats,
    sums: Floats,
) -> None:
    """A 1x1 convolution of the positions that are read, some columns at a time."""
    terms, outputs = weight.shape
    columns = max(BLOCK // count, 1)
    room = columns * count
    y, rest = scratch[: outputs * room], scratch[outputs * room :]
    x, back = rest[: terms * room], rest[terms * room :]
    y_rows = rows_of(outputs, step.out_channels, 0, room)
    x_rows = rows_of(in_nines(step.channels), step.channels, 0, room)
    back_rows = rows_of(terms, terms, 0, room)
    area = step.height * step.width
    for i in range(step.out_height):
        above = (i * step.stride + step.skip) * step.width + step.skip
        for first in range(0, step.out_width, columns):
            taken = min(columns, step.out_width - first)
            length = taken * count
            for o in range(step.out_channels):
                target, start = y[o * room : o * room + length], i * step.out_width + first
                read_gradient(step, o, start * count, count, arena, gradients, lines, target)
            for c in range(step.channels):
                for j in range(taken):
                    position = above + (first + j) * step.stride
                    source = (step.source + c * area + position) * count
                    at = c * room + j * count
                    read(step, c, source, arena, affine, x[at : at + count])
            multiply_transposed(y, y_rows, x, x_rows, length, sums)
            if step.contribution < 0:
                continue
            multiply(y, y_rows, length, weight, back, back_rows)
            for c in range(step.channels):
                for j in range(taken):
                    position = (above + (first + j) * step.stride) * count
                    part = back[c * room + j * count : c * room + (j + 1) * count]
                    contribute(step, c, position, count, arena, affine, gradients, part)


@compiled
def _dense_by_rows(
    step: Any,
    weight: Floats,
    count: int,
    arena: Floats,
    gradients: Floats,
    scratch: Floats,
    affine: Floats,
    lines: Floats,
    sums: Floats,
) -> None:
    """A larger window: some columns of a row at a time, from padded channels to padded channels."""
    terms, outputs = weight.shape
    kernel, border = step.kernel, step.dilation * (step.kernel - 1) // 2
    pitch = (step.width + 2 * border) * count
    area = (step.height + 2 * border) * pitch
    columns = max(BLOCK // count, 1)
    room = columns * count
    planes, rest = scratch[: step.channels * area], scratch[step.channels * area :]
    targets, rest = rest[: step.channels * area], rest[step.channels * area :]
    y, rest = rest[: outputs * room], rest[outputs * room :]
    x, back = rest[: terms * room], rest[terms * room :]
    y_rows = rows_of(outputs, step.out_channels, 0, room)
    used = step.channels * kernel * kernel
    x_rows = rows_of(in_nines(used), used, 0, room)
    back_rows = rows_of(terms, terms, 0, room)
    wanted = step.contribution >= 0
    for c in range(step.channels):
        plane = planes[c * area : (c + 1) * area]
        pad(step, c, count, border, np.float32(0), arena, affine, plane)
    targets[:] = np.float32(0)
    for i in range(step.out_height):
        for first in range(0, step.out_width, columns):
            taken = min(columns, step.out_width - first)
            length = taken * count
            for o in range(step.out_channels):
                target, start = y[o * room : o * room + length], i * step.out_width + first
                read_gradient(step, o, start * count, count, arena, gradients, lines, target)
            _gather(step, i, first, taken, count, planes, area, pitch, x, room)
            multiply_transposed(y, y_rows, x, x_rows, length, sums)
            if wanted:
                multiply(y, y_rows, length, weight, back, back_rows)
                _scatter(step, i, first, taken, count, back, room, targets, area, pitch)
    if wanted:
        for c in range(step.channels):
            plane = targets[c * area : (c + 1) * area]
            contribute_plane(step, c, count, border, arena, affine, gradients, plane)


@compiled
def _gather(
    step: Any,
    row: int,
    first: int,
    taken: int,
    count: int,
    planes: Floats,
    area: int,
    pitch: int,
    x: Floats,
    room: int,
) -> None:
    """Copy what some outputs of a row read, a row for each channel and tap."""
    kernel, stride, dilation = step.kernel, step.stride, step.dilation
    segments, length = (1, taken * count) if stride == 1 else (taken, count)
    for c in range(step.channels):
        for a in range(kernel):
            line = c * area + (row * stride + a * dilation) * pitch
            for b in range(kernel):
                to = ((c * kernel + a) * kernel + b) * room
                for j in range(segments):
                    begin = line + ((first + j) * stride + b * dilation) * count
                    at = to + j * length
                    x[at : at + length] = planes[begin : begin + length]


@compiled
def _scatter(
    step: Any,
    row: int,
    first: int,
    taken: int,
    count: int,
    back: Floats,
    room: int,
    targets: Floats,
    area: int,
    pitch: int,
) -> None:
    """Add gradients of what some outputs of a row read to where they read it."""
    kernel, stride, dilation = step.kernel, step.stride, step.dilation
    segments, length = (1, taken * count) if stride == 1 else (taken, count)
    for c in range(step.channels):
        for a in range(kernel):
            line = c * area + (row * stride + a * dilation) * pitch
            for b in range(kernel):
                source = ((c * kernel + a) * kernel + b) * room
                for j in range(segments):
                    begin = line + ((first + j) * stride + b * dilation) * count
                    at = source + j * length
                    part = targets[begin : begin + length]
                    combine(back[at : at + length], part, False)
