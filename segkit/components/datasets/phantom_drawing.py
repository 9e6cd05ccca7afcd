"""Numbers, shapes and noise that are the same on every machine.

Images differ between machines if random generators change with their version, or if functions (exp, sin, sums, matrix
products) depend in their last bit on library and processor. So random numbers are the raw output of PCG64, which numpy
keeps stable, and all arithmetic is + - * / and sqrt of float32 arrays and Python's floats, one operation at a time,
whose rounding IEEE 754 fixes. Angles are given by the tangent of their half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
TINY = 1e-6


class Stream:
    """Random numbers of a key, from the raw output of PCG64."""

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(key)

    def uniform(self, low: float, high: float) -> float:
        """Return a number from `low` to `high`."""
        return low + (high - low) * ((int(self._bits.random_raw()) >> 11) * 2.0**-53)

    def bytes(self, *shape: int) -> NDArray[np.int8]:
        """Return whole numbers from -128 to 127."""
        count = int(np.prod(shape))
        raw = self._bits.random_raw(-(-count // 8))
        return raw.astype("<u8").view(np.int8)[:count].reshape(shape)


def turn(half_tangent: float) -> tuple[float, float]:
    """Return cosine and sine of the angle whose half has this tangent."""
    square = half_tangent * half_tangent
    return (1 - square) / (1 + square), 2 * half_tangent / (1 + square)


@dataclass(frozen=True)
class Ellipse:
    """An ellipse in mm: centre, half axes, direction of the first axis, and lobes that make it less regular."""

    x: float
    y: float
    a: float
    b: float
    cos: float = 1.0
    sin: float = 0.0
    two: float = 0.0
    three: float = 0.0


class Canvas:
    """An image being drawn: grey levels, 1 for blood, and the positions of its pixels.

    Args:
        height, width: rows and columns.
        spacing: mm between pixel centres.
        x, y: position of the middle, in mm.
    """

    def __init__(self, height: int, width: int, spacing: float, x: float, y: float) -> None:
        self.x, self.y = _places(width, spacing, x), _places(height, spacing, y)
        self.image: Plane = np.zeros((height, width), dtype=np.float32)

    def window(self, ellipse: Ellipse, margin: float) -> tuple[slice, slice]:
        """Return the rows and columns that contain an ellipse and a margin in mm."""
        reach = max(ellipse.a, ellipse.b) * (1 + abs(ellipse.two) + abs(ellipse.three)) + margin
        rows = np.searchsorted(self.y, [ellipse.y - reach, ellipse.y + reach])
        columns = np.searchsorted(self.x, [ellipse.x - reach, ellipse.x + reach])
        return slice(int(rows[0]), int(rows[1])), slice(int(columns[0]), int(columns[1]))

    def distance(self, ellipse: Ellipse, at: tuple[slice, slice]) -> Plane:
        """Return the distance to an ellipse's edge in mm, to first order, negative inside."""
        x, y = self.x[at[1]] - np.float32(ellipse.x), self.y[at[0]] - np.float32(ellipse.y)
        a, b = 1 / ellipse.a, 1 / ellipse.b
        u = (y * np.float32(ellipse.sin * a))[:, None] + (x * np.float32(ellipse.cos * a))[None]
        v = (y * np.float32(ellipse.cos * b))[:, None] - (x * np.float32(ellipse.sin * b))[None]
        uu, vv = u * u, v * v
        square = uu + vv
        radius = np.sqrt(square)
        slope = np.sqrt(uu * np.float32(a * a) + vv * np.float32(b * b))
        across = (radius + np.float32(TINY * min(ellipse.a, ellipse.b))) / (slope + np.float32(TINY))
        edge = np.float32(1)
        if ellipse.two or ellipse.three:  # the radius varies with cos 2t and cos 3t
            bent = (uu - vv) * np.float32(ellipse.two)
            bent += u * (uu - np.float32(3) * vv) / (radius + np.float32(TINY)) * np.float32(ellipse.three)
            edge = bent / (square + np.float32(TINY)) + np.float32(1)
        found: Plane = (radius - edge) * across
        return found

    def paint(self, value: float, cover: Plane, at: tuple[slice, slice] | None = None) -> None:
        """Blend a grey level into the image, with the opacity `cover` (0 to 1)."""
        target = self.image[at] if at else self.image
        target += cover * (np.float32(value) - target)

    def spot(self, ellipse: Ellipse, value: float, softness: float) -> None:
        """Paint an ellipse whose edge is `softness` mm wide."""
        at = self.window(ellipse, softness)
        if at[0].start < at[0].stop and at[1].start < at[1].stop:
            self.paint(value, within(self.distance(ellipse, at), softness), at)

    def field(self, stream: Stream, cell: float) -> Plane:
        """Return a smooth random plane from -1 to 1 whose features are about `cell` mm wide."""
        rows, down = _steps(self.y, cell)
        columns, across = _steps(self.x, cell)
        knots = stream.bytes(int(rows[-1]) + 2, int(columns[-1]) + 2).astype(np.float32) * np.float32(1 / 128)
        lines: Plane = knots[rows] + (knots[rows + 1] - knots[rows]) * down[:, None]  # type: ignore[assignment]
        left: Plane = lines[:, columns]
        right: Plane = lines[:, columns + 1]
        return left + np.asarray((right - left) * across[None], dtype=np.float32)


def _places(count: int, spacing: float, middle: float) -> Plane:
    centred = np.arange(count, dtype=np.float32) - np.float32((count - 1) / 2)
    return centred * np.float32(spacing) + np.float32(middle)


def _steps(places: Plane, cell: float) -> tuple[NDArray[np.intp], Plane]:
    """Return the knot before each position, and the eased fraction of the way to the next."""
    along = (places - places[0]) * np.float32(1 / cell)
    knot = np.floor(along)
    rest = along - knot
    return knot.astype(np.intp), rest * rest * (np.float32(3) - np.float32(2) * rest)


def within(distance: Plane, softness: float) -> Plane:
    """Return the part of each pixel inside, 0 to 1, for an edge that is `softness` mm wide."""
    cover: Plane = np.clip(np.float32(0.5) - distance * np.float32(1 / softness), 0, 1)
    return cover


def both(first: Plane, second: Plane, rounding: float) -> Plane:
    """Return the distance to the intersection of two shapes, its corners rounded to `rounding` mm."""
    blend = np.clip((second - first) * np.float32(0.5 / rounding) + np.float32(0.5), 0, 1)
    rounded: Plane = first + (second - first) * blend + blend * (1 - blend) * np.float32(rounding)
    return rounded


def above(field: Plane, level: float, gain: float) -> Plane:
    """Return the excess of a field over a level, times `gain`, 0 to 1."""
    found: Plane = np.clip((field - np.float32(level)) * np.float32(gain), 0, 1)
    return found


def scan(image: Plane, stream: Stream, noise: float) -> Plane:
    """Return the magnitude (H, W) of a noisy complex image, blurred to a scan's limited resolution.

    Each pixel becomes a binomial mean of its 3 x 3 neighbours, so that uniform noise becomes nearly normal and its
    magnitude Rician.

    Args:
        image: (H + 2, W + 2) true grey levels.
        stream: of the noise.
        noise: standard deviation of the real and of the imaginary part.
    """
    scale = np.float32(noise / (0.375 * 73.9))  # of bytes: 73.9; a 3 x 3 binomial mean leaves 0.375 of it
    real = _blurred(image + stream.bytes(*image.shape).astype(np.float32) * scale)
    imaginary = _blurred(stream.bytes(*image.shape).astype(np.float32) * scale)
    return np.sqrt(real * real + imaginary * imaginary)


def _blurred(plane: Plane) -> Plane:
    lines: Plane = (plane[:-2] + plane[2:]) * np.float32(0.25) + plane[1:-1] * np.float32(0.5)
    return (lines[:, :-2] + lines[:, 2:]) * np.float32(0.25) + lines[:, 1:-1] * np.float32(0.5)
