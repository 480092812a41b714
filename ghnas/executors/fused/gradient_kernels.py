"""Kernels of the backward pass, compiled by numba, for tensors that stand as in `kernels`."""

from __future__ import annotations

import numpy as np

from ghnas.executors.fused.kernels import (
    BLOCK,
    HARDSWISH,
    RELU,
    RELU6,
    Floats,
    Integers,
    combine,
    compiled,
)
from ghnas.executors.fused.vectors import LANES, add_product, load, store


@compiled
def through_activation(
    gradient: Floats,
    source: Floats,
    scale: np.float32,
    shift: np.float32,
    activation: int,
    target: Floats,
    accumulate: int,
) -> None:
    """Write, or add, a gradient times the activation's derivative at scale * source + shift."""
    none = np.float32(0)
    if activation == RELU:
        for i in range(len(gradient)):
            kept = gradient[i] if source[i] * scale + shift > none else none
            target[i] = target[i] + kept if accumulate else kept
    elif activation == RELU6:
        for i in range(len(gradient)):
            value = source[i] * scale + shift
            kept = gradient[i] if value > none else none
            kept = kept if value < np.float32(6) else none
            target[i] = target[i] + kept if accumulate else kept
    elif activation == HARDSWISH:
        for i in range(len(gradient)):
            value = source[i] * scale + shift
            slope = value * np.float32(1 / 3) + np.float32(0.5)
            slope = none if value < np.float32(-3) else slope
            slope = np.float32(1) if value > np.float32(3) else slope
            kept = gradient[i] * slope
            target[i] = target[i] + kept if accumulate else kept
    elif accumulate:
        combine(gradient, target, False)
    else:
        target[:] = gradient


@compiled
def combine_lines(
    gradient: Floats,
    value: Floats,
    of_gradient: np.float32,
    of_value: np.float32,
    constant: np.float32,
    target: Floats,
) -> None:
    """target = of_gradient * gradient + of_value * value + constant."""
    for i in range(len(target)):
        target[i] = of_gradient * gradient[i] + of_value * value[i] + constant


@compiled
def total(x: Floats) -> np.float64:
    """Sum of all values, in single precision within blocks."""
    result = np.float64(0)
    for start in range(0, len(x), BLOCK):
        part, block = x[start : start + BLOCK], np.float32(0)
        for i in range(len(part)):
            block += part[i]
        result += np.float64(block)
    return result


@compiled
def sums_of_gradient(
    gradient: Floats, value: Floats, mean: np.float32
) -> tuple[np.float64, np.float64]:
    """Sums of gradient and of gradient * (value - mean), in single precision within blocks."""
    total, product = np.float64(0), np.float64(0)
    for start in range(0, len(gradient), BLOCK):
        one, other = gradient[start : start + BLOCK], value[start : start + BLOCK]
        first, second = np.float32(0), np.float32(0)
        for i in range(len(one)):
            first += one[i]
            second += one[i] * (other[i] - mean)
        total += np.float64(first)
        product += np.float64(second)
    return total, product


@compiled
def _products_of_9(
    y: Floats, x: Floats, rows: Integers, size: int, sums: Floats, first: int
) -> None:
    """Add the products of a row with nine rows to their sums; `size` is whole vectors."""
    r0, r1, r2, r3, r4 = rows[0], rows[1], rows[2], rows[3], rows[4]
    r5, r6, r7, r8 = rows[5], rows[6], rows[7], rows[8]
    s0 = load(sums, first)
    s1 = load(sums, first + LANES)
    s2 = load(sums, first + 2 * LANES)
    s3 = load(sums, first + 3 * LANES)
    s4 = load(sums, first + 4 * LANES)
    s5 = load(sums, first + 5 * LANES)
    s6 = load(sums, first + 6 * LANES)
    s7 = load(sums, first + 7 * LANES)
    s8 = load(sums, first + 8 * LANES)
    for at in range(0, size, LANES):
        value = load(y, at)
        s0 = add_product(s0, value, load(x, r0 + at))
        s1 = add_product(s1, value, load(x, r1 + at))
        s2 = add_product(s2, value, load(x, r2 + at))
        s3 = add_product(s3, value, load(x, r3 + at))
        s4 = add_product(s4, value, load(x, r4 + at))
        s5 = add_product(s5, value, load(x, r5 + at))
        s6 = add_product(s6, value, load(x, r6 + at))
        s7 = add_product(s7, value, load(x, r7 + at))
        s8 = add_product(s8, value, load(x, r8 + at))
    store(sums, first, s0)
    store(sums, first + LANES, s1)
    store(sums, first + 2 * LANES, s2)
    store(sums, first + 3 * LANES, s3)
    store(sums, first + 4 * LANES, s4)
    store(sums, first + 5 * LANES, s5)
    store(sums, first + 6 * LANES, s6)
    store(sums, first + 7 * LANES, s7)
    store(sums, first + 8 * LANES, s8)


@compiled
def in_nines(size: int) -> int:
    """Up to a multiple of nine: `multiply_transposed` takes nine rows at a time."""
    return (size + 8) // 9 * 9


@compiled
def multiply_transposed(
    y: Floats, y_rows: Integers, x: Floats, x_rows: Integers, size: int, sums: Floats
) -> None:
    """Add the products of all rows of one operand with all rows of another.

    Args:
        y: Holds the first operand's rows.
        y_rows: Where each of them begins.
        x: Holds the second operand's rows.
        x_rows: Where each of them begins, a multiple of nine of them.
        size: Their length.
        sums: (rows of y, rows of x, LANES), flat: partial sums, to be added up in the end.
    """
    whole = size // LANES * LANES
    for o in range(len(y_rows)):
        row = y[y_rows[o] : y_rows[o] + size]
        for i in range(0, len(x_rows), 9):
            first = (o * len(x_rows) + i) * LANES
            _products_of_9(row, x, x_rows[i : i + 9], whole, sums, first)
        for at in range(whole, size):
            for i in range(len(x_rows)):
                sums[(o * len(x_rows) + i) * LANES] += row[at] * x[x_rows[i] + at]


@compiled
def depthwise_weights(
    plane: Floats,
    pitch: int,
    images: int,
    kernel: int,
    stride: int,
    dilation: int,
    height: int,
    width: int,
    gradient: Floats,
    sums: Floats,
) -> None:
    """Add the gradient of a depthwise convolution's taps, for one padded channel.

    Args:
        plane: The channel of the input, from `pad_plane`.
        pitch: Values of a padded row.
        gradient: Of the output, height * width * images values.
        sums: (taps in nines, LANES), flat: partial sums, to be added up in the end.

    Others as in `kernels.depthwise`.
    """
    taps = np.zeros(in_nines(kernel * kernel), np.int64)
    for t in range(kernel * kernel):
        taps[t] = dilation * (t // kernel * pitch + t % kernel * images)
    row, start = width * images, np.zeros(1, np.int64)
    segments, length = (1, row) if stride == 1 else (width, images)
    for i in range(height):
        for j in range(segments):
            start[0] = i * row + j * length
            x = plane[i * stride * pitch + j * stride * images :]
            multiply_transposed(gradient, start, x, taps, length, sums)


@compiled
def add_scaled(source: Floats, factor: np.float32, target: Floats) -> None:
    """target += factor * source."""
    for i in range(len(target)):
        target[i] += factor * source[i]


@compiled
def spread_depthwise(
    gradient: Floats,
    pitch: int,
    images: int,
    kernel: int,
    stride: int,
    dilation: int,
    weight: Floats,
    height: int,
    width: int,
    plane: Floats,
) -> None:
    """Add what a depthwise convolution's input gets of its output's gradient to a padded plane.

    Arguments as in `kernels.depthwise`; `plane` is written.
    """
    for i in range(height):
        for j in range(width):
            y = gradient[(i * width + j) * images : (i * width + j + 1) * images]
            for r in range(kernel):
                line = (i * stride + r * dilation) * pitch
                for s in range(kernel):
                    begin = line + (j * stride + s * dilation) * images
                    target = plane[begin : begin + images]
                    add_scaled(y, weight[r * kernel + s], target)


@compiled
def _to_maximum(gradient: Floats, source: Floats, maximum: Floats, target: Floats) -> None:
    """Move the gradient to the target wherever the source is the maximum."""
    none = np.float32(0)
    for i in range(len(gradient)):
        value, here = gradient[i], source[i] == maximum[i]
        target[i] += value if here else none
        gradient[i] = none if here else value


@compiled
def _to_first_of_3(
    gradient: Floats, a: Floats, b: Floats, c: Floats, to_a: Floats, to_b: Floats, to_c: Floats
) -> None:
    """Add the gradient of the maximum of three to the first of them that is the maximum.

    The targets must not overlap, or it is not done a vector at a time.
    """
    none = np.float32(0)
    for i in range(len(gradient)):
        value = gradient[i]
        is_a = a[i] >= b[i] and a[i] >= c[i]
        is_c = c[i] > a[i] and c[i] > b[i]
        to_a[i] += value if is_a else none
        to_b[i] += none if is_a or is_c else value
        to_c[i] += value if is_c else none


@compiled
def _spread_maximum_of_3(
    plane: Floats,
    pitch: int,
    images: int,
    stride: int,
    height: int,
    width: int,
    gradient: Floats,
    room: Floats,
    target: Floats,
) -> None:
    """`spread_pool` of a maximum over a window of three."""
    line, slopes = room[:pitch], room[pitch : 2 * pitch]
    for i in range(height):
        first = i * stride * pitch
        above, level = plane[first:], plane[first + pitch :]
        below = plane[first + 2 * pitch :]
        line[:] = above[:pitch]
        combine(level, line, True)
        combine(below, line, True)
        slopes[:] = np.float32(0)
        for j in range(width):
            at, start = j * stride * images, (i * width + j) * images
            _to_first_of_3(
                gradient[start : start + images],
                line[at:],
                line[at + images :],
                line[at + 2 * images :],
                slopes[at:],
                slopes[at + images :],
                slopes[at + 2 * images :],
            )
        to = target[first:]
        _to_first_of_3(slopes, above, level, below, to, to[pitch:], to[2 * pitch :])


@compiled
def spread_pool(
    plane: Floats,
    pitch: int,
    images: int,
    kernel: int,
    stride: int,
    maximum: bool,
    height: int,
    width: int,
    gradient: Floats,
    room: Floats,
    target: Floats,
) -> None:
    """Add what a pool's input gets of its output's gradient to a padded plane.

    A maximum's gradient goes to its first position, columns before rows; PyTorch's order is rows
    before columns, which differs where two of a window's values are equal.

    Args:
        plane: The channel of the input, from `pad_plane`, for a maximum.
        gradient: Of the output, height * width * images values.
        room: Four padded rows.
        target: The plane that is written.

    Others as in `kernels.pool`.
    """
    if maximum and kernel == 3:
        _spread_maximum_of_3(plane, pitch, images, stride, height, width, gradient, room, target)
        return
    line, slopes = room[:pitch], room[pitch : 2 * pitch]
    rest, best = room[2 * pitch : 3 * pitch], room[3 * pitch : 4 * pitch]
    row = width * images
    segments, length = (1, row) if stride == 1 else (width, images)
    for i in range(height):
        first = i * stride * pitch
        slopes[:] = np.float32(0)
        if maximum:
            line[:] = plane[first : first + pitch]
            for r in range(1, kernel):
                combine(plane[first + r * pitch :], line, True)
        for j in range(segments):
            y = gradient[i * row + j * length : i * row + (j + 1) * length]
            corner = j * stride * images
            if maximum:
                left, top = rest[:length], best[:length]
                left[:] = y
                top[:] = line[corner : corner + length]
                for s in range(1, kernel):
                    combine(line[corner + s * images :], top, True)
                for s in range(kernel):
                    at = corner + s * images
                    _to_maximum(left, line[at:], top, slopes[at:])
            else:
                for s in range(kernel):
                    at = corner + s * images
                    combine(y, slopes[at : at + length], False)
        for r in range(kernel):
            begin = first + r * pitch
            if maximum:
                _to_maximum(slopes, plane[begin:], line, target[begin:])
            else:
                combine(slopes, target[begin : begin + pitch], False)
