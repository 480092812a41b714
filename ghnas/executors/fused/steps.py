"""The steps of a program: what each of them does with the arena, and the loop over all."""

from __future__ import annotations

from typing import Any

import numpy as np

from ghnas.executors.fused.access import pad, read, scale_of, shift_of
from ghnas.executors.fused.kernels import (
    BLOCK,
    DIRECT,
    ROOM,
    Doubles,
    Floats,
    activate,
    compiled,
    depthwise,
    fetch,
    mean_and_variance,
    moments,
    multiply,
    pool,
    rows_of,
)
from ghnas.executors.fused.program import (
    ADD,
    AFFINE,
    AVG_POOL,
    COPY,
    DENSE,
    DEPTHWISE,
    EXTEND,
    FILL,
    MAX_POOL,
    MEAN,
    MOMENTS,
    NORMALISE,
    rounded,
)

EPSILON = 1e-5
"""Added to a variance, as in PyTorch's batch normalisation."""


@compiled
def execute(
    steps: Any,
    weights: Floats,
    images: Floats,
    count: int,
    arena: Floats,
    scratch: Floats,
    affine: Floats,
    statistics: Doubles,
) -> None:
    """Run a program.

    Args:
        steps: Its steps.
        weights: All parameters, in the program's order.
        images: (C, H, W, N), flat; they go to the arena's beginning.
        count: N.
        arena: Every tensor of the network.
        scratch: Room for one step.
        affine: (2, channels) room for scale and shift of normalised channels.
        statistics: (2, channels) zeros: sums and sums of squares.
    """
    arena[: len(images)] = images
    for index in range(len(steps)):
        step = steps[index]
        code = step.code
        if code == DENSE:
            _dense(step, weights, count, arena, scratch, affine, statistics)
        elif code == DEPTHWISE:
            _depthwise(step, weights, count, arena, scratch, affine)
        elif code in (MAX_POOL, AVG_POOL):
            _pool(step, count, arena, scratch, affine)
        elif code == NORMALISE:
            _normalise(step, weights, count, affine, statistics)
        elif code == MOMENTS:
            size = step.height * step.width * count
            for c in range(step.channels):
                start = step.source * count + c * size
                row = arena[start : start + size]
                moments(row, step.statistics + c, statistics[0], statistics[1])
        elif code == AFFINE:
            for c in range(step.channels):
                affine[0, step.out_affine + c] = 1
                affine[1, step.out_affine + c] = weights[step.weight + c]
        elif code == COPY:
            _copy(step, count, arena, affine)
        elif code == ADD:
            _add(step, count, arena, scratch, affine)
        elif code == MEAN:
            _mean(step, count, arena, scratch, affine)
        elif code == EXTEND:
            _extend(step, count, arena, affine)
        elif code == FILL:
            size = step.out_channels * step.out_height * step.out_width * count
            arena[step.target * count : step.target * count + size] = 0


@compiled
def _depthwise(
    step: Any, weights: Floats, count: int, arena: Floats, scratch: Floats, affine: Floats
) -> None:
    border = step.dilation * (step.kernel - 1) // 2
    pitch = (step.width + 2 * border) * count
    plane = scratch[: (step.height + 2 * border) * pitch]
    size, taps = step.out_height * step.out_width * count, step.kernel * step.kernel
    for c in range(step.channels):
        pad(step, c, count, border, np.float32(0), arena, affine, plane)
        start = step.target * count + c * size
        weight = weights[step.weight + c * taps : step.weight + (c + 1) * taps]
        depthwise(
            plane, pitch, count, step.kernel, step.stride, step.dilation, weight,
            step.out_height, step.out_width, arena[start : start + size],
        )  # fmt: skip


@compiled
def _pool(step: Any, count: int, arena: Floats, scratch: Floats, affine: Floats) -> None:
    maximum, border = step.code == MAX_POOL, (step.kernel - 1) // 2
    pitch = (step.width + 2 * border) * count
    area = (step.height + 2 * border) * pitch
    plane, line = scratch[:area], scratch[area : area + pitch]
    fill = np.float32(-np.inf) if maximum else np.float32(0)
    size = step.out_height * step.out_width * count
    for c in range(step.channels):
        pad(step, c, count, border, fill, arena, affine, plane)
        start = step.target * count + c * size
        out = arena[start : start + size]
        pool(
            plane, pitch, count, step.kernel, step.stride, maximum,
            step.out_height, step.out_width, line, out,
        )  # fmt: skip
        if not maximum:
            divide_by_taps(step, count, border, out)


@compiled
def divide_by_taps(step: Any, count: int, border: int, values: Floats) -> None:
    """Divide a channel of a pool's output by how many taps of each window lie on the image."""
    for i in range(step.out_height):
        rows = _inside(i, step.stride, step.kernel, border, step.height)
        for j in range(step.out_width):
            columns = _inside(j, step.stride, step.kernel, border, step.width)
            at = (i * step.out_width + j) * count
            part = values[at : at + count]
            activate(part, part, np.float32(1) / np.float32(rows * columns), np.float32(0), 0)


@compiled
def _inside(position: int, stride: int, kernel: int, border: int, size: int) -> int:
    """How many taps of a window lie on the image."""
    first = position * stride - border
    return min(first + kernel, size) - max(first, 0)


@compiled
def _dense(
    step: Any,
    weights: Floats,
    count: int,
    arena: Floats,
    scratch: Floats,
    affine: Floats,
    statistics: Doubles,
) -> None:
    """Convolution of all channels with all, or a matrix product: rows times weights."""
    taps = step.kernel * step.kernel
    terms, outputs = step.channels * taps, step.out_channels
    weight = np.zeros((rounded(outputs), terms), np.float32)
    for o in range(len(weight)):  # those that only fill up write the last one again
        begin = step.weight + min(o, outputs - 1) * terms
        weight[o] = weights[begin : begin + terms]
    size = step.out_height * step.out_width * count
    out_rows = rows_of(len(weight), outputs, step.target * count, size)
    if step.kernel == 1 and step.stride == 1 and step.skip == 0:
        as_it_is = step.affine < 0 and step.activation == 0 and terms <= DIRECT
        if as_it_is:
            rows = rows_of(terms, terms, step.source * count, size)
        else:
            rows = rows_of(terms, terms, 0, ROOM)
        for start in range(0, size, BLOCK):
            length, out = min(BLOCK, size - start), arena[start:]
            if as_it_is:
                for c in range(terms):
                    fetch(out, rows[c] + BLOCK, BLOCK)
                multiply(out, rows, length, weight, out, out_rows)
            else:
                for c in range(terms):
                    source = step.source * count + c * size + start
                    read(step, c, source, arena, affine, scratch[rows[c] : rows[c] + length])
                multiply(scratch, rows, length, weight, out, out_rows)
            _sum_up(step, out, out_rows, length, statistics)
    elif step.kernel == 1:
        _dense_at_strides(step, weight, count, arena, scratch, affine, out_rows, statistics)
    else:
        _dense_by_rows(step, weight, count, arena, scratch, affine, out_rows, statistics)


@compiled
def _dense_at_strides(
    step: Any,
    weight: Floats,
    count: int,
    arena: Floats,
    rest: Floats,
    affine: Floats,
    out_rows: Any,
    statistics: Doubles,
) -> None:
    """A 1x1 convolution: one row of the output at a time, from the positions that are read."""
    row = step.out_width * count
    area = step.height * step.width
    rows = rows_of(step.channels, step.channels, 0, row)
    for i in range(step.out_height):
        line = (i * step.stride + step.skip) * step.width + step.skip
        for c in range(step.channels):
            for j in range(step.out_width):
                x = (step.source + c * area + line + j * step.stride) * count
                y = c * row + j * count
                read(step, c, x, arena, affine, rest[y : y + count])
        for start in range(0, row, BLOCK):
            length = min(BLOCK, row - start)
            out = arena[i * row + start :]
            multiply(rest[start:], rows, length, weight, out, out_rows)
            _sum_up(step, out, out_rows, length, statistics)


@compiled
def _dense_by_rows(
    step: Any,
    weight: Floats,
    count: int,
    arena: Floats,
    rest: Floats,
    affine: Floats,
    out_rows: Any,
    statistics: Doubles,
) -> None:
    """One row of the output at a time, from padded channels."""
    kernel, stride, images = step.kernel, step.stride, count
    border = step.dilation * (kernel - 1) // 2
    pitch = (step.width + 2 * border) * images
    area = (step.height + 2 * border) * pitch
    for c in range(step.channels):
        plane = rest[c * area : (c + 1) * area]
        pad(step, c, images, border, np.float32(0), arena, affine, plane)
    gathered = rest[step.channels * area :]
    rows = np.zeros(weight.shape[1], np.int64)
    row = step.out_width * images
    for i in range(step.out_height):
        index = 0
        for c in range(step.channels):
            for a in range(kernel):
                line = c * area + (i * stride + a * step.dilation) * pitch
                for b in range(kernel):
                    begin = line + b * step.dilation * images
                    rows[index] = begin
                    if stride > 1:
                        for j in range(step.out_width):
                            x = begin + j * stride * images
                            y = index * row + j * images
                            gathered[y : y + images] = rest[x : x + images]
                        rows[index] = index * row
                    index += 1
        operand = gathered if stride > 1 else rest
        for start in range(0, row, BLOCK):
            length = min(BLOCK, row - start)
            out = arena[i * row + start :]
            multiply(operand[start:], rows, length, weight, out, out_rows)
            _sum_up(step, out, out_rows, length, statistics)


@compiled
def _sum_up(step: Any, out: Floats, rows: Any, length: int, statistics: Doubles) -> None:
    """Take the moments of rows that were written, where they are asked for."""
    if step.statistics >= 0:
        for o in range(step.out_channels):
            row = out[rows[o] : rows[o] + length]
            moments(row, step.statistics + o, statistics[0], statistics[1])


@compiled
def _normalise(step: Any, weights: Floats, count: int, affine: Floats, statistics: Doubles) -> None:
    """Scale and shift of a batch normalisation, from the moments of its input."""
    number = step.height * step.width * count
    for c in range(step.channels):
        mean, variance = mean_and_variance(
            statistics[0], statistics[1], step.statistics + c, number
        )
        scale = weights[step.weight + c] / np.sqrt(variance + EPSILON)
        affine[0, step.out_affine + c] = scale
        affine[1, step.out_affine + c] = weights[step.weight + step.channels + c] - mean * scale


@compiled
def _copy(step: Any, count: int, arena: Floats, affine: Floats) -> None:
    size = step.height * step.width * count
    for c in range(step.channels):
        source, target = step.source * count + c * size, step.target * count + c * size
        read(step, c, source, arena, affine, arena[target : target + size])


@compiled
def _add(step: Any, count: int, arena: Floats, scratch: Floats, affine: Floats) -> None:
    """Sum of two tensors."""
    size = step.height * step.width * count
    for c in range(step.channels):
        first, second = step.source * count + c * size, step.second * count + c * size
        target = step.target * count + c * size
        for start in range(0, size, BLOCK):
            length = min(BLOCK, size - start)
            one, two = scratch[:length], scratch[BLOCK : BLOCK + length]
            read(step, c, first + start, arena, affine, one)
            scale = scale_of(affine, step.second_affine, c)
            shift = shift_of(affine, step.second_affine, c)
            other = arena[second + start : second + start + length]
            fetch(arena, second + start + length, length)
            activate(other, two, scale, shift, step.second_activation)
            _sum(one, two, arena[target + start : target + start + length])


@compiled
def _sum(a: Floats, b: Floats, out: Floats) -> None:
    for i in range(len(out)):
        out[i] = a[i] + b[i]


@compiled
def _mean(step: Any, count: int, arena: Floats, scratch: Floats, affine: Floats) -> None:
    """Mean over all positions."""
    positions = step.height * step.width
    activated = scratch[:count]
    for c in range(step.channels):
        start = step.target * count + c * count
        target = arena[start : start + count]
        target[:] = 0
        for p in range(positions):
            source = step.source * count + (c * positions + p) * count
            read(step, c, source, arena, affine, activated)
            _sum(activated, target, target)
        activate(target, target, np.float32(1) / np.float32(positions), np.float32(0), 0)


@compiled
def _extend(step: Any, count: int, arena: Floats, affine: Floats) -> None:
    """Repeat the last row and the last column."""
    row, wide = step.width * count, (step.width + 1) * count
    for c in range(step.channels):
        for i in range(step.height + 1):
            source = step.source * count + (c * step.height + min(i, step.height - 1)) * row
            target = step.target * count + (c * step.out_height + i) * wide
            read(step, c, source, arena, affine, arena[target : target + row])
            arena[target + row : target + wide] = arena[target + row - count : target + row]
