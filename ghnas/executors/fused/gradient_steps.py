"""The steps of a backward pass: what each does with the arena of gradients, and the loop."""

from __future__ import annotations

from typing import Any

import numpy as np

from ghnas.executors.fused.access import (
    contribute,
    contribute_plane,
    gradient_of,
    pad,
    read_gradient,
)
from ghnas.executors.fused.dense_gradients import dense_gradient
from ghnas.executors.fused.gradient_kernels import (
    depthwise_weights,
    in_nines,
    spread_depthwise,
    spread_pool,
    sums_of_gradient,
    total,
)
from ghnas.executors.fused.kernels import (
    BLOCK,
    Doubles,
    Floats,
    activate,
    combine,
    compiled,
    correlate,
    fetch,
    mean_and_variance,
)
from ghnas.executors.fused.program import (
    AVG_POOL_GRADIENT,
    BIAS_GRADIENT,
    CLEAR_GRADIENT,
    DENSE_GRADIENT,
    DEPTHWISE_GRADIENT,
    EXTEND_GRADIENT,
    MAX_POOL_GRADIENT,
    MEAN_GRADIENT,
    NORMALISE_GRADIENT,
    PASS_GRADIENT,
)
from ghnas.executors.fused.steps import EPSILON, divide_by_taps
from ghnas.executors.fused.vectors import LANES


@compiled
def differentiate(
    steps: Any,
    weights: Floats,
    count: int,
    arena: Floats,
    gradients: Floats,
    scratch: Floats,
    affine: Floats,
    statistics: Doubles,
    lines: Floats,
    slopes: Floats,
) -> None:
    """Run the backward pass of a program after `steps.execute`.

    Args:
        steps: Its steps.
        weights: All parameters, in the program's order.
        count: Number of images.
        arena: Every tensor of the network.
        gradients: Room for gradients of tensors; holds that of the logits.
        scratch: Room for one step.
        affine: (2, channels), from the forward pass.
        statistics: (2, channels), from the forward pass.
        lines: (3, channels) room for the backward passes of batch normalisations.
        slopes: Zeros for each parameter; their gradients are added.
    """
    for index in range(len(steps)):
        step = steps[index]
        code = step.code
        if code == DENSE_GRADIENT:
            dense_gradient(step, weights, count, arena, gradients, scratch, affine, lines, slopes)
        elif code == DEPTHWISE_GRADIENT:
            _depthwise(step, weights, count, arena, gradients, scratch, affine, lines, slopes)
        elif code in (MAX_POOL_GRADIENT, AVG_POOL_GRADIENT):
            _pool(step, count, arena, gradients, scratch, affine, lines)
        elif code == NORMALISE_GRADIENT:
            _normalise(step, weights, count, arena, gradients, statistics, lines, slopes)
        elif code == PASS_GRADIENT:
            _pass(step, count, arena, gradients, scratch, affine, lines)
        elif code == BIAS_GRADIENT:
            size = step.height * step.width * count
            for c in range(step.channels):
                start = step.gradient * count + c * size
                slopes[step.weight + c] += total(gradients[start : start + size])
        elif code == MEAN_GRADIENT:
            _mean(step, count, arena, gradients, scratch, affine)
        elif code == EXTEND_GRADIENT:
            _extend(step, count, arena, gradients, scratch, affine, lines)
        elif code == CLEAR_GRADIENT:
            size = step.channels * step.height * step.width * count
            begin = step.contribution * count
            gradients[begin : begin + size] = np.float32(0)


@compiled
def _normalise(
    step: Any,
    weights: Floats,
    count: int,
    arena: Floats,
    gradients: Floats,
    statistics: Doubles,
    lines: Floats,
    slopes: Floats,
) -> None:
    """Gradients of scale and shift, and the line along which the input's gradient is read."""
    size = step.height * step.width * count
    for c in range(step.channels):
        mean, variance = mean_and_variance(statistics[0], statistics[1], step.statistics + c, size)
        inverse = 1 / np.sqrt(variance + EPSILON)
        begin, source = step.gradient * count + c * size, step.source * count + c * size
        summed, product = sums_of_gradient(
            gradients[begin : begin + size], arena[source : source + size], np.float32(mean)
        )
        slopes[step.weight + c] += product * inverse
        slopes[step.weight + step.channels + c] += summed
        scale = weights[step.weight + c] * inverse
        slope = -scale * inverse * inverse * product / size
        lines[0, step.lines + c] = scale
        lines[1, step.lines + c] = slope
        lines[2, step.lines + c] = -scale * summed / size - slope * mean


@compiled
def _pass(
    step: Any,
    count: int,
    arena: Floats,
    gradients: Floats,
    scratch: Floats,
    affine: Floats,
    lines: Floats,
) -> None:
    """The output's gradient is the input's, behind its activation."""
    size = step.height * step.width * count
    for c in range(step.channels):
        for start in range(0, size, BLOCK):
            part = scratch[: min(BLOCK, size - start)]
            read_gradient(step, c, start, count, arena, gradients, lines, part)
            contribute(step, c, start, count, arena, affine, gradients, part)


@compiled
def _mean(
    step: Any, count: int, arena: Floats, gradients: Floats, scratch: Floats, affine: Floats
) -> None:
    positions = step.height * step.width
    part = scratch[:count]
    for c in range(step.channels):
        begin = step.gradient * count + c * count
        for p in range(positions):
            share = np.float32(1 / positions)
            activate(gradients[begin : begin + count], part, share, np.float32(0), 0)
            contribute(step, c, p * count, count, arena, affine, gradients, part)


@compiled
def _extend(
    step: Any,
    count: int,
    arena: Floats,
    gradients: Floats,
    scratch: Floats,
    affine: Floats,
    lines: Floats,
) -> None:
    """What was read twice gets both gradients."""
    row, wide = step.width * count, (step.width + 1) * count
    size = (step.height + 1) * wide
    whole = scratch[:size]
    for c in range(step.channels):
        read_gradient(step, c, 0, count, arena, gradients, lines, whole)
        last = (step.height - 1) * wide
        combine(whole[last + wide :], whole[last : last + wide], False)
        for i in range(step.height):
            line = whole[i * wide : (i + 1) * wide]
            combine(line[row:], line[row - count : row], False)
            contribute(step, c, i * row, count, arena, affine, gradients, line[:row])


@compiled
def _pool(
    step: Any,
    count: int,
    arena: Floats,
    gradients: Floats,
    scratch: Floats,
    affine: Floats,
    lines: Floats,
) -> None:
    maximum, border = step.code == MAX_POOL_GRADIENT, (step.kernel - 1) // 2
    pitch = (step.width + 2 * border) * count
    area = (step.height + 2 * border) * pitch
    size = step.out_height * step.out_width * count
    plane, target, rest = scratch[:area], scratch[area : 2 * area], scratch[2 * area :]
    gradient, room = rest[:size], rest[size : size + 4 * pitch]
    for c in range(step.channels):
        if maximum:
            pad(step, c, count, border, np.float32(-np.inf), arena, affine, plane)
        read_gradient(step, c, 0, count, arena, gradients, lines, gradient)
        if not maximum:
            divide_by_taps(step, count, border, gradient)
        target[:] = np.float32(0)
        spread_pool(
            plane, pitch, count, step.kernel, step.stride, maximum,
            step.out_height, step.out_width, gradient, room, target,
        )  # fmt: skip
        contribute_plane(step, c, count, border, arena, affine, gradients, target)


@compiled
def _depthwise(
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
    kernel, stride, dilation = step.kernel, step.stride, step.dilation
    border, taps = dilation * (kernel - 1) // 2, kernel * kernel
    row, pitch = step.width * count, (step.width + 2 * border) * count
    area, size = (step.height + 2 * border) * pitch, step.out_height * step.out_width * count
    plane, other, room = scratch[:area], scratch[area : 2 * area], scratch[2 * area :][:size]
    line = scratch[2 * area + size :][:row]
    sums, flipped = np.zeros(in_nines(taps) * LANES, np.float32), np.zeros(taps, np.float32)
    other[:] = np.float32(0)  # its border stays zero
    for c in range(step.channels):
        weight = weights[step.weight + c * taps : step.weight + (c + 1) * taps]
        pad(step, c, count, border, np.float32(0), arena, affine, plane)
        gradient = gradient_of(step, c, count, arena, gradients, lines, room)
        sums[:] = 0
        depthwise_weights(
            plane, pitch, count, kernel, stride, dilation, step.out_height, step.out_width,
            gradient, sums,
        )  # fmt: skip
        for t in range(taps):
            slopes[step.weight + c * taps + t] += sums[t * LANES : (t + 1) * LANES].sum()
            flipped[t] = weight[taps - 1 - t]
        if step.contribution < 0:
            continue
        if stride > 1:
            other[:] = np.float32(0)
            spread_depthwise(
                gradient, pitch, count, kernel, stride, dilation, weight,
                step.out_height, step.out_width, other,
            )  # fmt: skip
            contribute_plane(step, c, count, border, arena, affine, gradients, other)
            continue
        for i in range(step.height):
            begin = (i + border) * pitch + border * count
            other[begin : begin + row] = gradient[i * row : (i + 1) * row]
        for i in range(step.height):
            rows = other[i * pitch :]
            fetch(gradients, step.gradient * count + (c + 1) * size + i * row, row)
            fetch(arena, step.source * count + (c + 1) * size + i * row, row)
            correlate(rows, dilation * pitch, dilation * count, kernel, flipped, line)
            contribute(step, c, i * row, count, arena, affine, gradients, line)
