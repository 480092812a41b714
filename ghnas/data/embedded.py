"""Digitscapes: the built-in data set, made from scikit-learn's 8x8 digits in about a second.

A digitscape is a small colour image of one handwritten digit in a cluttered scene; its label is
the digit nearest the middle. Every nuisance that hides the digit is a setting of
`DigitscapeSettings`. Plain digits teach nothing about architectures (all of them reach 98 %);
here they differ by much more than two trainings of the same one do.

The same bytes come out on every machine and with every numpy version: random numbers are read
from the raw PCG64 stream, sines from a rounded table, and everything else is plain IEEE
arithmetic without reductions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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

    Lengths are in pixels of the image, colours in units of 0 to 255. A pair is a range from which
    each image draws uniformly.
    """

    size: int = 16  # height and width of an image
    train: int = 20_000
    validation: int = 4_000
    test: int = 4_000
    seed: int = 20_260_000
    rotation: float = 25.0  # the digit turns by up to this many degrees either way
    width: tuple[float, float] = (8.0, 14.0)  # the digit's size, at random for each axis
    shear: float = 0.3  # the digit slants by up to this many pixels a pixel
    shift: float = 2.0  # the digit's middle leaves the image's middle by up to this
    warp: float = 0.8  # smooth waves bend the digit's strokes by up to this
    ground: tuple[float, float] = (0.0, 140.0)  # the background's colour, for each channel
    contrast: tuple[float, float] = (50.0, 160.0)  # how much lighter the digit is
    tint: float = 0.3  # a channel gets at least this share of the contrast
    inverted: float = 0.0  # share of images turned into their negative: dark digits
    texture: tuple[float, float] = (20.0, 110.0)  # swing of the background's pattern
    ink_texture: tuple[float, float] = (0.0, 50.0)  # swing of the pattern inside the strokes
    palette: float = 0.3  # share of images whose background has the colour usual for the class
    terrain: float = 0.5  # share of images whose background has the pattern usual for the class
    distractors: int = 2  # pieces of other digits near the border
    distractor_distance: tuple[float, float] = (6.0, 10.0)  # from the image's middle
    strokes: int = 1  # straight bars painted over everything
    stroke_width: tuple[float, float] = (0.6, 1.6)
    noise: float = 25.0  # each channel of each pixel moves by up to twice this


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
    length = values.shape[axis]
    place = (np.arange(length * _ZOOM, dtype=np.float32) + np.float32(0.5)) / _ZOOM - np.float32(0.5)
    place = np.clip(place, 0, length - 1)
    lower = np.minimum(place.astype(np.int64), length - 2)
    shape = [1] * values.ndim
    shape[axis] = -1
    weight = (place - lower.astype(np.float32)).astype(np.float32).reshape(shape)
    return values.take(lower, axis) * (1 - weight) + values.take(lower + 1, axis) * weight


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
    base, pace = _landscape(stream, labels, settings)
    image = _textured(stream, base, settings.texture, size, pace)
    for _ in range(settings.distractors):
        other = stream.integers(0, len(glyphs), count)
        mask = _place(stream, glyphs[other], settings, settings.distractor_distance)
        _cover(image, mask, _contrasting(stream, base, settings)[:, :, None, None])
    pick = stream.integers(0, 1 << 31, count)
    digit = np.array([sources[c][p % len(sources[c])] for c, p in zip(labels, pick, strict=True)])
    ink = _contrasting(stream, base, settings)
    mask = _place(stream, glyphs[digit], settings, None)
    _cover(image, mask, _textured(stream, ink, settings.ink_texture, size))
    for _ in range(settings.strokes):
        colour = _contrasting(stream, base, settings)
        _cover(image, _bar(stream, count, settings), colour[:, :, None, None])
    negative = stream.uniform(0, 1, count, 1, 1, 1) < settings.inverted
    image = np.where(negative, 255 - image, image)
    if settings.noise:
        image += _noise(stream, image.shape, settings.noise)
    return (np.clip(image, 0, 255) + np.float32(0.5)).astype(np.uint8)


def _cover(image: Floats, mask: Floats, colour: Floats) -> None:
    """Paint colour over the image in place where the mask, (B, size, size) in [0, 1], says so."""
    image += (colour - image) * mask[:, None]


def _contrasting(stream: _Stream, base: Floats, settings: DigitscapeSettings) -> Floats:
    """Colours (B, 3) lighter than base, by another share of the contrast in each channel."""
    share = stream.uniform(settings.tint, 1, *base.shape)
    return base + share * stream.uniform(*settings.contrast, len(base), 1)


def _landscape(
    stream: _Stream, labels: Integers, settings: DigitscapeSettings
) -> tuple[Floats, Integers]:
    """The background's colour (B, 3) and its main wave's pace (B, 2): its class's or another's."""
    count = len(labels)
    usual = stream.uniform(0, 1, count) < settings.palette
    theme = np.where(usual, labels, stream.integers(0, NUM_CLASSES, count))
    low, high = settings.ground
    base = low + _PALETTE[theme] * np.float32((high - low) / 4)
    base = np.clip(base + stream.uniform(-30, 30, count, 3), 0, 255)
    usual = stream.uniform(0, 1, count) < settings.terrain
    theme = np.where(usual, labels, stream.integers(0, NUM_CLASSES, count))
    pace = _TERRAIN[theme] + stream.integers(-25, 26, count, 2)
    return base, pace


def _textured(
    stream: _Stream,
    base: Floats,
    swing: tuple[float, float],
    size: int,
    pace: Integers | None = None,
) -> Floats:
    """Base colours (B, 3) with a pattern that sways towards a second colour: (B, 3, size, size)."""
    count = len(base)
    if pace is None:
        pattern = _waves(stream, count, size, 2, 350) * np.float32(0.5)
    else:
        pattern = _wave(stream, pace, size)
    blotches = stream.uniform(-1, 1, count, 6, 6)
    pattern += _blow_up(blotches, size)
    towards = stream.uniform(-1, 1, count, 3) * stream.uniform(*swing, count, 1)
    return base[:, :, None, None] + towards[:, :, None, None] * pattern[:, None]


def _blow_up(grid: Floats, size: int) -> Floats:
    """Smooth noise: interpolate random grids (B, g, g) to (B, size, size)."""
    cells = grid.shape[1] - 1
    place = np.arange(size, dtype=np.float32) * np.float32(cells) / np.float32(size)
    lower = place.astype(np.int64)
    weight = (place - lower.astype(np.float32)).astype(np.float32)
    rows = grid[:, lower] * (1 - weight)[:, None] + grid[:, lower + 1] * weight[:, None]
    return rows[:, :, lower] * (1 - weight) + rows[:, :, lower + 1] * weight


_angles = 2 * np.pi * np.arange(_TURN) / _TURN
_SINE: Floats = (np.round(np.sin(_angles) * 2**14) / 2**14).astype(np.float32)


# for each class: a background colour in quarters of the range, and a main wave's pace in
# 1024ths of a cycle a pixel: five directions, two wavelengths (8 and 4 pixels)
_PALETTE: Floats = np.array(
    [[0, 1, 4], [4, 1, 0], [1, 4, 0], [3, 3, 0], [0, 3, 3], [3, 0, 3], [0, 0, 1], [4, 3, 2],
     [2, 2, 2], [1, 3, 1]],
    dtype=np.float32,
)  # fmt: skip
_TERRAIN: Integers = np.array(
    [[128, 0], [104, 75], [40, 122], [-40, 122], [-104, 75],
     [256, 0], [207, 150], [79, 243], [-79, 243], [-207, 150]],
)  # fmt: skip


def _wave(stream: _Stream, pace: Integers, size: int) -> Floats:
    """One plane wave an image, (B, size, size), with pace (B, 2) in 1024ths of a cycle a pixel."""
    along = np.arange(size, dtype=np.int64)
    phase = stream.integers(0, _TURN, len(pace), 1)
    steps = (pace[:, :1] * along + phase)[:, :, None] + (pace[:, 1:] * along)[:, None, :]
    return _SINE[steps & (_TURN - 1)]


def _waves(stream: _Stream, count: int, size: int, waves: int, highest: int) -> Floats:
    """Sums of random plane waves (B, size, size), up to highest / 1024 cycles a pixel."""
    total = np.zeros((count, size, size), dtype=np.float32)
    for _ in range(waves):
        total += _wave(stream, stream.integers(-highest, highest + 1, count, 2), size)
    return total


def _place(
    stream: _Stream,
    glyphs: Bytes,
    settings: DigitscapeSettings,
    distance: tuple[float, float] | None,
) -> Floats:
    """Turn, scale, slant, bend and move glyphs (B, _GLYPH, _GLYPH) into masks (B, size, size).

    distance: how far from the image's middle the glyph stands; None puts it near the middle.
    """
    count, size = len(glyphs), settings.size
    turn = round(settings.rotation / 360 * _TURN)
    angle = stream.integers(-turn, turn + 1, count, 1, 1)
    sine, cosine = _SINE[angle & (_TURN - 1)], _SINE[(angle + _TURN // 4) & (_TURN - 1)]
    scale = np.float32(8 * _ZOOM) / stream.uniform(*settings.width, 2, count, 1, 1)
    slant = stream.uniform(-settings.shear, settings.shear, count, 1, 1)
    across, down = _offset(stream, count, settings, distance)
    middle = np.float32((size - 1) / 2)
    line = np.arange(size, dtype=np.float32) - middle
    x, y = line[None, None, :] - across, line[None, :, None] - down
    if settings.warp:
        strength = np.float32(settings.warp / 2)
        x = x + _waves(stream, count, size, 2, 100) * strength
        y = y + _waves(stream, count, size, 2, 100) * strength
    column = (x * cosine + y * sine) * scale[0]
    row = (y * cosine - x * sine) * scale[1]
    column = column + row * slant
    centre = np.float32(_GLYPH / 2)
    rows = np.clip(row + centre, 0, _GLYPH - 1).astype(np.int64)
    columns = np.clip(column + centre, 0, _GLYPH - 1).astype(np.int64)
    flat = (np.arange(count)[:, None, None] * _GLYPH + rows) * _GLYPH + columns
    return glyphs.reshape(-1)[flat].astype(np.float32) * np.float32(1 / 255)


def _offset(
    stream: _Stream,
    count: int,
    settings: DigitscapeSettings,
    distance: tuple[float, float] | None,
) -> tuple[Floats, Floats]:
    """Where glyphs stand, from the image's middle: across and down, each (B, 1, 1)."""
    if distance is None:
        shift = stream.uniform(-settings.shift, settings.shift, 2, count, 1, 1)
        return shift[0], shift[1]
    way = stream.integers(0, _TURN, count, 1, 1)
    far = stream.uniform(*distance, count, 1, 1)
    return _SINE[way] * far, _SINE[(way + _TURN // 4) & (_TURN - 1)] * far


def _bar(stream: _Stream, count: int, settings: DigitscapeSettings) -> Floats:
    """Masks (B, size, size) of one straight bar through each image."""
    line = np.arange(settings.size, dtype=np.float32) - np.float32((settings.size - 1) / 2)
    way = stream.integers(0, _TURN, count, 1, 1)
    sine, cosine = _SINE[way], _SINE[(way + _TURN // 4) & (_TURN - 1)]
    reach = np.float32(settings.size / 2)
    away = line[None, None, :] * cosine + line[None, :, None] * sine
    away = away - stream.uniform(-float(reach), float(reach), count, 1, 1)
    half = stream.uniform(*settings.stroke_width, count, 1, 1) * np.float32(0.5)
    return np.clip(half + np.float32(0.5) - np.abs(away), 0, 1)


def _noise(stream: _Stream, shape: tuple[int, ...], strength: float) -> Floats:
    """Noise with a triangular distribution in (-2 strength, 2 strength)."""
    first = stream.raw_bytes(*shape).astype(np.float32)
    second = stream.raw_bytes(*shape).astype(np.float32)
    return (first - second) * np.float32(strength * 2 / 255)


def scaled(settings: DigitscapeSettings, train: int, rest: int) -> DigitscapeSettings:
    """The same scenes, fewer of them: train images, and rest of validation and of test."""
    return replace(settings, train=train, validation=rest, test=rest)
