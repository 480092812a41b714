"""Kernels of the fused executor, compiled by numba: images innermost, vectors along them.

A tensor of N images stands as (C, H, W, N), flat. Neighbours along a row are then N apart, so
that a convolution's taps are a few long streams whatever the number of channels, the size of the
images, the kernel or its dilation; PyTorch's own kernels fill their vectors with channels, of
which the networks of a search have few.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from ghnas.executors.fused.vectors import LANES, add_product, load, prefetch, splat, store
from ghnas.utils.files import cache_folder

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
_Function = TypeVar("_Function", bound=Callable[..., Any])

RELU, RELU6, HARDSWISH = 1, 2, 3
"""Codes of the activations that kernels apply as they read; 0 is none."""
BLOCK = 512
"""Values of a row that one matrix product takes at a time: all its rows stay in the cache."""
ROOM = BLOCK + 16
"""From one of these rows to the next: were it a power of two, they would share a few cache sets."""
TILES = 8 * LANES
"""Values of a row that a matrix product computes before it goes on to the next rows."""
DIRECT = 8
"""Rows that a matrix product reads where they are; more would share a few cache sets there."""


def _cache_folder() -> Path:
    """Where compiled kernels are kept: a folder for each state of this package's sources.

    numba itself would look at the file of the function alone, not at what the function calls. Each
    copy of the package has its own, for numba does not read what was compiled for another one.
    """
    here = Path(__file__).resolve().parent
    contents = [str(here).encode(), *(path.read_bytes() for path in sorted(here.glob("*.py")))]
    digest = hashlib.blake2b(b"".join(contents), digest_size=8)
    return cache_folder() / f"kernels-{digest.hexdigest()}"


_FOLDER = _cache_folder()


def are_compiled(loop: str = "execute") -> bool:
    """Whether a loop over steps and its kernels were compiled before on this machine; else it
    takes some 20 seconds."""
    return any(_FOLDER.glob(f"**/*.{loop}-*.nbi"))  # compiled last, after what it calls


def can_be_kept(function: Callable[..., Any]) -> bool:
    """Whether what `compiled` returned is kept on disk."""
    return cast(Any, function).stats.cache_path is not None


def compiled(function: _Function) -> _Function:
    """Compile on first use and keep the result on disk; sums may be taken in any order."""
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": {"contract", "reassoc", "nsz", "arcp"},
    }
    result: Any = numba.njit(**options)(function)
    settings: Any = numba.config
    before = settings.CACHE_DIR
    settings.CACHE_DIR = str(_FOLDER)  # read by the next line alone
    try:
        result.enable_caching()
    except RuntimeError:  # the folder is not writable: compile in each process
        pass
    finally:
        settings.CACHE_DIR = before
    return cast(_Function, result)


@compiled
def activate(
    source: Floats, target: Floats, scale: np.float32, shift: np.float32, activation: int
) -> None:
    """target = activation(scale * source + shift); what is not a number stays so.

    Comparisons are written out: numba's `max` and `min` do not become vector instructions.
    """
    if activation == RELU:
        for i in range(len(target)):
            value = source[i] * scale + shift
            target[i] = np.float32(0) if value < np.float32(0) else value
    elif activation == RELU6:
        for i in range(len(target)):
            value = source[i] * scale + shift
            value = np.float32(0) if value < np.float32(0) else value
            target[i] = np.float32(6) if value > np.float32(6) else value
    elif activation == HARDSWISH:
        for i in range(len(target)):
            value = source[i] * scale + shift
            gate = value + np.float32(3)
            gate = np.float32(0) if gate < np.float32(0) else gate
            gate = np.float32(6) if gate > np.float32(6) else gate
            target[i] = value * gate * np.float32(1 / 6)
    else:
        for i in range(len(target)):
            target[i] = source[i] * scale + shift


@compiled
def pad_plane(
    source: Floats,
    height: int,
    row: int,
    border: int,
    margin: int,
    fill: np.float32,
    target: Floats,
    scale: np.float32,
    shift: np.float32,
    activation: int,
) -> None:
    """A channel with a border around it, activated.

    Args:
        source: height * row values.
        height: Rows.
        row: Values of a row, images included.
        border: Rows of the border above and below.
        margin: Values of the border left and right, images included.
        fill: What the border holds.
        target: (height + 2 * border) * (row + 2 * margin) values.
        scale: See `activate`, as the two others.
    """
    pitch = row + 2 * margin
    target[: border * pitch] = fill
    target[(height + border) * pitch : (height + 2 * border) * pitch] = fill
    for i in range(height):
        line = target[(i + border) * pitch : (i + border + 1) * pitch]
        line[:margin] = fill
        line[margin + row :] = fill
        inner = line[margin : margin + row]
        activate(source[i * row : (i + 1) * row], inner, scale, shift, activation)


@compiled
def _taps_3x3(a: Floats, b: Floats, c: Floats, step: int, w: Floats, out: Floats) -> None:
    w0, w1, w2, w3, w4, w5, w6, w7, w8 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8]
    a1, b1, c1 = a[step:], b[step:], c[step:]
    a2, b2, c2 = a[2 * step :], b[2 * step :], c[2 * step :]
    for i in range(len(out)):
        above = w0 * a[i] + w1 * a1[i] + w2 * a2[i]
        level = w3 * b[i] + w4 * b1[i] + w5 * b2[i]
        out[i] = above + level + (w6 * c[i] + w7 * c1[i] + w8 * c2[i])


@compiled
def _taps_of_5(a: Floats, step: int, w: Floats, out: Floats, first: bool) -> None:
    w0, w1, w2, w3, w4 = w[0], w[1], w[2], w[3], w[4]
    b, c, d, e = a[step:], a[2 * step :], a[3 * step :], a[4 * step :]
    if first:
        for i in range(len(out)):
            out[i] = w0 * a[i] + w1 * b[i] + w2 * c[i] + w3 * d[i] + w4 * e[i]
    else:
        for i in range(len(out)):
            out[i] += w0 * a[i] + w1 * b[i] + w2 * c[i] + w3 * d[i] + w4 * e[i]


@compiled
def _tap(a: Floats, w: np.float32, out: Floats, first: bool) -> None:
    if first:
        for i in range(len(out)):
            out[i] = w * a[i]
    else:
        for i in range(len(out)):
            out[i] += w * a[i]


@compiled
def correlate(x: Floats, pitch: int, step: int, kernel: int, weight: Floats, out: Floats) -> None:
    """out[i] = sum of weight[r, s] * x[r * pitch + s * step + i] over a square kernel."""
    if kernel == 3:
        _taps_3x3(x, x[pitch:], x[2 * pitch :], step, weight, out)
        return
    for r in range(kernel):
        line, row = x[r * pitch :], weight[r * kernel : (r + 1) * kernel]
        if kernel == 5:
            _taps_of_5(line, step, row, out, r == 0)
            continue
        for s in range(kernel):
            _tap(line[s * step :], row[s], out, r + s == 0)


@compiled
def depthwise(
    plane: Floats,
    pitch: int,
    images: int,
    kernel: int,
    stride: int,
    dilation: int,
    weight: Floats,
    height: int,
    width: int,
    out: Floats,
) -> None:
    """Depthwise convolution of one padded channel.

    Args:
        plane: From `pad_plane`.
        pitch: Values of a padded row.
        images: N.
        kernel: Taps along each side.
        stride: Rows and columns from one output to the next.
        dilation: Rows and columns from one tap to the next.
        weight: kernel * kernel taps.
        height: Rows of the output.
        width: Columns of the output.
        out: height * width * images values.
    """
    step, row = dilation * images, width * images
    for i in range(height):
        lines = plane[i * stride * pitch :]
        if stride == 1:
            line = out[i * row : (i + 1) * row]
            correlate(lines, dilation * pitch, step, kernel, weight, line)
            continue
        for j in range(width):
            start = i * row + j * images
            part = out[start : start + images]
            begin = lines[j * stride * images :]
            correlate(begin, dilation * pitch, step, kernel, weight, part)


@compiled
def combine(x: Floats, out: Floats, maximum: bool) -> None:
    """out = the maximum of both, or their sum."""
    if maximum:
        for i in range(len(out)):
            out[i] = np.maximum(out[i], x[i])
    else:
        for i in range(len(out)):
            out[i] += x[i]


@compiled
def pool(
    plane: Floats,
    pitch: int,
    images: int,
    kernel: int,
    stride: int,
    maximum: bool,
    height: int,
    width: int,
    line: Floats,
    out: Floats,
) -> None:
    """Maximum or sum of each window of one padded channel: over rows, then over columns.

    Args:
        plane: From `pad_plane`.
        line: Room for one padded row.

    Others as in `depthwise`.
    """
    row = width * images
    for i in range(height):
        first = i * stride * pitch
        line[:] = plane[first : first + pitch]
        for r in range(1, kernel):
            combine(plane[first + r * pitch :], line, maximum)
        target = out[i * row : (i + 1) * row]
        if stride == 1:
            target[:] = line[:row]
            for s in range(1, kernel):
                combine(line[s * images :], target, maximum)
            continue
        for j in range(width):
            part = target[j * images : (j + 1) * images]
            begin = line[j * stride * images :]
            part[:] = begin[:images]
            for s in range(1, kernel):
                combine(begin[s * images :], part, maximum)


@compiled
def fetch(x: Floats, begin: int, size: int) -> None:
    """Have values brought into the cache that are to be read soon."""
    for at in range(begin, begin + size, 16):
        prefetch(x, at)


@compiled
def _multiply_tile(
    x: Floats, rows: Integers, at: int, weight: Floats, o: int, out: Floats, out_rows: Integers
) -> None:
    """Two vectors of four rows of the result, at a position; the order of a sum is the rows'."""
    a0 = b0 = c0 = d0 = a1 = b1 = c1 = d1 = splat(np.float32(0))
    for i in range(len(rows)):
        begin = rows[i] + at
        x0, x1 = load(x, begin), load(x, begin + LANES)
        a, b = splat(weight[o, i]), splat(weight[o + 1, i])
        c, d = splat(weight[o + 2, i]), splat(weight[o + 3, i])
        a0, a1 = add_product(a0, a, x0), add_product(a1, a, x1)
        b0, b1 = add_product(b0, b, x0), add_product(b1, b, x1)
        c0, c1 = add_product(c0, c, x0), add_product(c1, c, x1)
        d0, d1 = add_product(d0, d, x0), add_product(d1, d, x1)
    store(out, out_rows[o] + at, a0)
    store(out, out_rows[o] + at + LANES, a1)
    store(out, out_rows[o + 1] + at, b0)
    store(out, out_rows[o + 1] + at + LANES, b1)
    store(out, out_rows[o + 2] + at, c0)
    store(out, out_rows[o + 2] + at + LANES, c1)
    store(out, out_rows[o + 3] + at, d0)
    store(out, out_rows[o + 3] + at + LANES, d1)


@compiled
def multiply(
    x: Floats, rows: Integers, size: int, weight: Floats, out: Floats, out_rows: Integers
) -> None:
    """Matrix product with rows that stand anywhere.

    Args:
        x: Holds the operand's rows.
        rows: Where each of them begins.
        size: Their length.
        weight: (outputs, rows), a multiple of four outputs.
        out: Holds the result's rows.
        out_rows: Where each of them begins.
    """
    whole = size // (2 * LANES) * (2 * LANES)
    for start in range(0, whole, TILES):  # rows are written some cache lines at a time
        for o in range(0, len(weight), 4):
            for at in range(start, min(start + TILES, whole), 2 * LANES):
                _multiply_tile(x, rows, at, weight, o, out, out_rows)
    for o in range(len(weight)):
        for at in range(whole, size):
            total = np.float32(0)
            for i in range(len(rows)):
                total += weight[o, i] * x[rows[i] + at]
            out[out_rows[o] + at] = total


@compiled
def rows_of(count: int, used: int, first: int, length: int) -> Any:
    """Where rows of a length begin; those that only fill up are the last one again."""
    result = np.empty(count, np.int64)
    for i in range(count):
        result[i] = first + min(i, used - 1) * length
    return result


@compiled
def moments(x: Floats, channel: int, sums: Doubles, squares: Doubles) -> None:
    """Add a row's sum and sum of squares to those of its channel.

    Within a block they are taken of the differences to its first value: of the values themselves,
    nothing would be left of a variance that is small beside the mean.
    """
    for start in range(0, len(x), BLOCK):
        part = x[start : start + BLOCK]
        first, total, square = part[0], np.float32(0), np.float32(0)
        for i in range(len(part)):
            difference = part[i] - first
            total += difference
            square += difference * difference
        _add_moments(first, total, square, len(part), channel, sums, squares)


@compiled
def mean_and_variance(
    sums: Doubles, squares: Doubles, channel: int, count: int
) -> tuple[np.float64, np.float64]:
    """Of a channel, from the moments of its `count` values."""
    mean = sums[channel] / count
    return mean, max(squares[channel] / count - mean * mean, 0.0)


@compiled
def _add_moments(
    first: np.float32,
    total: np.float32,
    square: np.float32,
    count: int,
    channel: int,
    sums: Doubles,
    squares: Doubles,
) -> None:
    """Add the moments of `count` values, given those of their differences to `first`."""
    pivot, differences = np.float64(first), np.float64(total)
    sums[channel] += count * pivot + differences
    squares[channel] += np.float64(square) + pivot * (2 * differences + count * pivot)
