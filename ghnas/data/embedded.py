"""Digitscapes: the built-in data set, made from scikit-learn's 8x8 digits in about a second.

A digitscape is a small colour image of one handwritten digit, turned, stretched, slanted, bent
and moved, on a patterned background; how strongly is a setting of `DigitscapeSettings`. Plain
digits teach nothing about architectures (all of them reach 98 %). Noise and clutter do not help:
they lower what every network can reach and make two trainings of the same one differ. Geometry
asks for learned filters, of which architectures have more or fewer.

The same bytes come out on every machine and with every numpy version: random numbers are read
from the raw PCG64 stream, sines from a rounded table, and everything else is plain IEEE
arithmetic without reductions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

NUM_CLASSES = 10
SPLITS = ("train", "validation", "test")
_CHUNK = 500  # images made at once: the working arrays stay in the processor's cache
_TURN = 1024  # steps of a full turn in the sine table
_ZOOM = 4  # the 8x8 digits are enlarged once by this factor, then only looked up
_MARGIN = 16  # empty border around an enlarged digit, in enlarged pixels
_GLYPH = 8 * _ZOOM + 2 * _MARGIN


@dataclass(frozen=True)
class DigitscapeSettings:
    """How many images to make, and how strong each nuisance is.

    Each image draws a difficulty between 0 and 1. At 0 the digit stands clear and upright; at 1
    every nuisance has the strength given here. The mixture matters: easy images give every network
    something to learn from the first step, hard ones tell the networks apart.
    Lengths are in pixels of the image, colours in units of 0 to 255.
    """

    size: int = 16  # height and width of an image
    train: int = 20_000
    validation: int = 4_000
    test: int = 4_000
    seed: int = 20_260_000
    rotation: float = 60.0  # the digit turns by up to this many degrees either way
    width: tuple[float, float] = (6.5, 14.0)  # the digit's smallest and largest size, each axis
    shear: float = 0.5  # the digit slants by up to this many pixels a pixel
    shift: float = 4.0  # the digit's middle leaves the image's middle by up to this
    warp: float = 1.5  # smooth waves bend the digit's strokes by up to this
    ground: float = 110.0  # the background's colour lies between 0 and this, for each channel
    contrast: tuple[float, float] = (100.0, 180.0)  # how much lighter the digit is, at least, most
    tint: float = 0.3  # a channel gets at least this share of the contrast
    texture: float = 40.0  # swing of the background's pattern
    ink_texture: float = 10.0  # swing of the pattern inside the strokes
    noise: float = 5.0  # each channel of each pixel moves by up to twice this


class _Stream:
    """Random numbers read from PCG64's raw output, whose bits numpy keeps for ever."""

    def __init__(self, *seed: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(seed))

    def raw_bytes(self, *shape: int) -> Bytes:
        """Uniform bytes, uint8 of the shape given."""
        count = int(np.prod(shape))
        words = self._bits.random_raw((count + 7) // 8).astype("<u8")
        return words.view(np.uint8)[:count].reshape(shape)

    def uniform(self, low: float, high: float, *shape: int) -> Floats:
        """Uniform float32 in [low, high) of the shape given."""
        words = self.raw_bytes(*shape, 4).view("<u4")[..., 0] >> 8
        unit = words.astype(np.float32) * np.float32(2.0**-24)
        return np.float32(low) + np.float32(high - low) * unit

    def integers(self, low: int, high: int, *shape: int) -> Integers:
        """Uniform int64 in [low, high) of the shape given."""
        words = self.raw_bytes(*shape, 4).view("<u4")[..., 0].astype(np.int64)
        return low + ((words * (high - low)) >> 32)


def make_digitscapes(
    split: str, settings: DigitscapeSettings | None = None
) -> tuple[Bytes, Integers]:
    """Make one split.

    Returns images, uint8 (N, 3, size, size), and labels, int64 (N,), which run 0, 1, ... 9, 0, ...
    The digits that the images of one split are made from appear in no other split.
    Raises ValueError for a split that is not train, validation or test.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    settings = settings or DigitscapeSettings()
    count = {"train": settings.train, "validation": settings.validation, "test": settings.test}
    glyphs, sources = _sources(split)
    labels = np.arange(count[split], dtype=np.int64) % NUM_CLASSES
    images = np.empty((len(labels), 3, settings.size, settings.size), dtype=np.uint8)
    for start in range(0, len(labels), _CHUNK):
        stream = _Stream(settings.seed, SPLITS.index(split), start)
        chunk = slice(start, start + _CHUNK)
        images[chunk] = _paint(stream, labels[chunk], glyphs, sources, settings)
    return images, labels


# ------------------------------------------------------------------ source digits


@lru_cache(maxsize=len(SPLITS))
def _sources(split: str) -> tuple[Bytes, tuple[Integers, ...]]:
    """Enlarged source digits of a split, uint8 (n, _GLYPH, _GLYPH), and their indices by class.

    Of each ten digits of a class eight go to train, one to validation and one to test.
    """
    from sklearn.datasets import load_digits

    digits, labels = load_digits(return_X_y=True)
    rank = np.empty(len(labels), dtype=np.int64)  # a digit's place among those of its class
    for label in range(NUM_CLASSES):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    home = {"train": rank % 10 < 8, "validation": rank % 10 == 8, "test": rank % 10 == 9}[split]
    chosen = labels[home]
    glyphs = _enlarge(digits[home].reshape(-1, 8, 8).astype(np.float32) / np.float32(16))
    return glyphs, tuple(np.flatnonzero(chosen == label) for label in range(NUM_CLASSES))


def _enlarge(digits: Floats) -> Bytes:
    """Enlarge (n, 8, 8) in [0, 1] bilinearly, sharpen the strokes' edges, add an empty border."""
    padded = np.pad(digits, ((0, 0), (1, 1), (1, 1)))
    smooth = _stretch(_stretch(padded, 1), 2)
    ink = np.clip((smooth - np.float32(0.25)) * np.float32(2.5), 0, 1)
    border = _MARGIN - _ZOOM  # one source pixel of the border is enlarged already
    ink = np.pad(ink, ((0, 0), (border, border), (border, border)))
    return (ink * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def _stretch(values: Floats, axis: int) -> Floats:
    """Enlarge one axis by _ZOOM with linear interpolation between pixel middles."""
    length, half = values.shape[axis], np.float32(0.5)
    place: Floats = (np.arange(length * _ZOOM, dtype=np.float32) + half) / np.float32(_ZOOM) - half
    return _blend(values, np.clip(place, 0, length - 1), axis)


# ------------------------------------------------------------------ painting


def _paint(
    stream: _Stream,
    labels: Integers,
    glyphs: Bytes,
    sources: tuple[Integers, ...],
    settings: DigitscapeSettings,
) -> Bytes:
    """Paint one image for each label, back to front. Returns uint8 (B, 3, size, size)."""
    count, size = len(labels), settings.size
    hard = stream.uniform(0, 1, count)
    base = stream.uniform(0, settings.ground, count, 3)
    image = _textured(stream, base, settings.texture * hard, size)
    pick = stream.integers(0, 1 << 31, count)
    digit = np.array([sources[c][p % len(sources[c])] for c, p in zip(labels, pick, strict=True)])
    ink = _lighter(stream, base, hard, settings)
    mask = _place(stream, glyphs[digit], hard, settings)
    _cover(image, mask, _textured(stream, ink, settings.ink_texture * hard, size))
    image += _noise(stream, image.shape) * _spread(settings.noise * hard)
    return (np.clip(image, 0, 255) + np.float32(0.5)).astype(np.uint8)


def _spread(values: Floats) -> Floats:
    """One number an image, (B,), as (B, 1, 1, 1)."""
    return values.astype(np.float32)[:, None, None, None]


def _cover(image: Floats, mask: Floats, colour: Floats) -> None:
    """Paint colour over the image in place where the mask, (B, size, size) in [0, 1], says so."""
    image += (colour - image) * mask[:, None]


def _lighter(stream: _Stream, base: Floats, hard: Floats, settings: DigitscapeSettings) -> Floats:
    """Colours (B, 3) lighter than base, by another share of the contrast in each channel."""
    least, most = settings.contrast
    contrast = np.float32(most) - np.float32(most - least) * hard
    share = stream.uniform(settings.tint, 1, *base.shape)
    return base + share * contrast[:, None]


def _textured(stream: _Stream, base: Floats, swing: Floats, size: int) -> Floats:
    """Base colours (B, 3) with a pattern that sways towards a second colour: (B, 3, size, size).

    The pattern is a plane wave and smooth noise. swing: (B,).
    """
    count = len(base)
    pace = stream.integers(-350, 351, count, 2)
    pattern = _wave(stream, pace, size) + _blow_up(stream.uniform(-1, 1, count, 6, 6), size)
    towards = stream.uniform(-1, 1, count, 3)[:, :, None, None] * _spread(swing)
    return base[:, :, None, None] + towards * pattern[:, None]


def _blow_up(grid: Floats, size: int) -> Floats:
    """Smooth noise: interpolate random grids (B, g, g) to (B, size, size)."""
    cells = np.float32((grid.shape[1] - 1) / size)
    place: Floats = np.arange(size, dtype=np.float32) * cells
    return _blend(_blend(grid, place, 1), place, 2)


def _blend(values: Floats, place: Floats, axis: int) -> Floats:
    """Read an axis at fractional places, (n,), by linear interpolation."""
    lower = np.minimum(place.astype(np.int64), values.shape[axis] - 2)
    shape = [1] * values.ndim
    shape[axis] = -1
    weight: Floats = (place - lower.astype(np.float32)).reshape(shape)
    first: Floats = values.take(lower, axis)
    second: Floats = values.take(lower + 1, axis)
    return first + (second - first) * weight


# rounded, because sines differ in their last bit between machines
_SINE: Floats = np.round(np.sin(np.arange(_TURN) * (2 * np.pi / _TURN)) * 2**14).astype(np.float32)
_SINE /= np.float32(2**14)


def _wave(stream: _Stream, pace: Integers, size: int) -> Floats:
    """One plane wave an image, (B, size, size), with pace (B, 2) in 1024ths of a cycle a pixel."""
    along = np.arange(size, dtype=np.int64)
    phase = stream.integers(0, _TURN, len(pace), 1)
    across, down = pace[:, :1] * along + phase, pace[:, 1:] * along
    steps = down[:, :, None] + across[:, None, :]
    wave: Floats = _SINE[steps & (_TURN - 1)]
    return wave


def _bend(stream: _Stream, count: int, size: int) -> Floats:
    """A smooth displacement between -1 and 1: (B, size, size), two long waves."""
    waves = [_wave(stream, stream.integers(-100, 101, count, 2), size) for _ in range(2)]
    return (waves[0] + waves[1]) * np.float32(0.5)


def _place(
    stream: _Stream,
    glyphs: Bytes,
    hard: Floats,
    settings: DigitscapeSettings,
) -> Floats:
    """Turn, scale, slant, bend and move glyphs (B, _GLYPH, _GLYPH) into masks (B, size, size)."""
    count, size = len(glyphs), settings.size
    hard = hard[:, None, None]
    across, down = stream.uniform(-1, 1, 2, *hard.shape) * (np.float32(settings.shift) * hard)
    line = np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)
    x, y = line[None, None, :] - across, line[None, :, None] - down
    strength = np.float32(settings.warp) * hard
    x, y = x + _bend(stream, count, size) * strength, y + _bend(stream, count, size) * strength
    turn = stream.uniform(-1, 1, count, 1, 1) * hard * np.float32(settings.rotation / 360 * _TURN)
    sine, cosine = _sine_cosine(turn.astype(np.int64))
    smallest, largest = settings.width
    shrink = np.float32(largest - smallest) * hard * stream.uniform(0, 1, 2, count, 1, 1)
    scale = np.float32(8 * _ZOOM) / (np.float32(largest) - shrink)
    column = (x * cosine + y * sine) * scale[0]
    row = (y * cosine - x * sine) * scale[1]
    column = column + row * (stream.uniform(-1, 1, count, 1, 1) * np.float32(settings.shear) * hard)
    centre = np.float32(_GLYPH / 2)
    rows = np.clip(row + centre, 0, _GLYPH - 1).astype(np.int64)
    columns = np.clip(column + centre, 0, _GLYPH - 1).astype(np.int64)
    flat = (np.arange(count)[:, None, None] * _GLYPH + rows) * _GLYPH + columns
    mask: Floats = glyphs.reshape(-1)[flat].astype(np.float32)
    return mask * np.float32(1 / 255)


def _sine_cosine(turn: Integers) -> tuple[Floats, Floats]:
    """Sine and cosine of angles in steps of a full turn / _TURN."""
    return _SINE[turn & (_TURN - 1)], _SINE[(turn + _TURN // 4) & (_TURN - 1)]


def _noise(stream: _Stream, shape: tuple[int, ...]) -> Floats:
    """Noise with a triangular distribution between -2 and 2."""
    first = stream.raw_bytes(*shape).astype(np.float32)
    second = stream.raw_bytes(*shape).astype(np.float32)
    return (first - second) * np.float32(2 / 255)
