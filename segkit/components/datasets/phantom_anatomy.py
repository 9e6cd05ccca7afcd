"""A thorax in short-axis view: what lies where, from patient to patient and from base to apex."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from segkit.components.datasets.phantom_drawing import Canvas, Ellipse, Plane, Stream, above, both, scan, turn, within

EDGE = 1.2  # mm over which one tissue becomes the next: partial volume
AIR, LUNG, MUSCLE, FAT, LIVER, BLOOD = 0.02, 0.07, 0.33, 0.72, 0.42, 1.0
FULL = 3000.0  # grey level of blood in the brightest patient, before the bias field
BRIGHTEST = 4095.0


@dataclass(frozen=True)
class Patient:
    """What differs between patients; lengths in mm."""

    key: tuple[int, int]
    spacing: float
    left: float  # half axis of the left ventricle's cavity at the base, at end diastole
    muscle: float  # thickness of the left ventricle's wall
    width: float  # half axis of the right ventricle across the septum
    length: float  # and along it
    offset: float  # how far the right ventricle lies from the left
    wall: float  # thickness of the right ventricle's wall
    lobe: float
    cos: float
    sin: float
    x: float
    y: float
    emptying: float  # of the cavities' size, left at end systole
    apex: float  # where along base to apex the right ventricle ends
    contrast: float
    myocardium: float
    noise: float
    bias: float
    trabeculae: float

    @classmethod
    def of(cls, seed: int, number: int, scale: float) -> Patient:
        """Return a patient; `scale` multiplies the spacing, to keep the field of view with fewer rows."""
        draw = Stream(seed, number).uniform
        cos, sin = turn(draw(-0.28, 0.28))
        return cls(
            key=(seed, number),
            spacing=round(draw(0.57, 0.97), 3) * scale,
            left=draw(19.0, 25.0), muscle=draw(7.0, 11.0),
            width=draw(21.0, 30.0), length=draw(33.0, 43.0), offset=draw(28.0, 36.0),
            wall=draw(2.6, 4.2), lobe=draw(-0.08, 0.08),
            cos=cos, sin=sin, x=draw(-9.0, 9.0), y=draw(-9.0, 9.0),
            emptying=draw(0.62, 0.8), apex=draw(0.86, 1.02),
            contrast=draw(0.55, 1.0), myocardium=draw(0.26, 0.4), noise=draw(0.035, 0.085),
            bias=draw(0.15, 0.4), trabeculae=draw(0.3, 0.8),
        )  # fmt: skip


def draw(
    patient: Patient, index: int, count: int, systole: bool, height: int, width: int
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Return an image (height, width) and its masks (2, height, width), wall and cavity.

    Args:
        patient: of the image.
        index: of the slice, from 0 at the base to `count` - 1.
        count: the slices of this phase.
        systole: whether the phase is end systole, else end diastole.
        height, width: rows and columns.
    """
    along = (index + 0.5) / count
    stream = Stream(*patient.key, 1 + systole, index)
    jitter = stream.uniform
    canvas = Canvas(height + 2, width + 2, patient.spacing, jitter(-2, 2) - patient.x, jitter(-2, 2) - patient.y)
    _thorax(canvas, patient, stream, along)
    left, right = _ventricles(patient, stream, along, systole)
    heart = canvas.window(Ellipse(0, 0, 80, 80), 0.0)
    outside = _left_ventricle(canvas, patient, stream, left, along, heart)
    masks = np.zeros((2, height + 2, width + 2), np.bool_)
    if right is not None:
        inner = both(canvas.distance(right, heart), -outside, 3.0)
        outer = inner - np.float32(patient.wall * (1.25 if systole else 1.0))
        _right_ventricle(canvas, patient, stream, inner, outer, outside, heart)
        masks[(0, *heart)] = (outer < 0) & (inner >= 0)
        masks[(1, *heart)] = inner < 0
    gain = np.float32(FULL * patient.contrast)
    smooth = np.float32(1) + canvas.field(stream, 110.0) * np.float32(patient.bias)
    lit = canvas.image * smooth + canvas.field(stream, 6.0) * np.float32(0.02)
    level = scan(np.maximum(lit, np.float32(0)), stream, patient.noise) * gain
    image = np.minimum(level + np.float32(0.5), np.float32(BRIGHTEST)).astype(np.uint16)
    return image, masks[:, 1:-1, 1:-1].copy()


def _thorax(canvas: Canvas, patient: Patient, stream: Stream, along: float) -> None:
    """Paint chest wall, lungs with vessels, liver, spine and aorta."""
    jitter = stream.uniform
    canvas.image += np.float32(AIR)
    depth = canvas.distance(Ellipse(4, 12, 152, 108, two=0.06), (slice(None), slice(None)))
    canvas.paint(FAT, within(depth, 3.0))
    canvas.paint(MUSCLE, within(depth + np.float32(9.0), 3.0))
    inside = within(depth + np.float32(20.0), 4.0)
    canvas.paint(LUNG, inside)
    vessels = above(canvas.field(stream, 9.0), 0.55, 3.0) * np.float32(0.5)
    canvas.paint(BLOOD * 0.7, vessels * inside)
    canvas.spot(Ellipse(-58, 62 - 30 * along, 66, 44, *turn(0.12), two=0.08), LIVER, 3.0)
    canvas.spot(Ellipse(20, 74, 22, 19), MUSCLE * 1.1, 3.0)
    canvas.spot(Ellipse(52 + jitter(-3, 3), 52 + jitter(-3, 3), 11, 11), BLOOD * 0.9, EDGE)
    canvas.spot(Ellipse(-2, 0, 58, 47, patient.cos, patient.sin, two=0.05, three=0.05), FAT * 0.75, 3.0)


def _ventricles(patient: Patient, stream: Stream, along: float, systole: bool) -> tuple[Ellipse, Ellipse | None]:
    """Return the left ventricle's cavity, and the ellipse that contains the right one's, None beyond its end."""
    jitter = stream.uniform
    taper = math.sqrt(1 - 0.8 * along * along)
    phase = patient.emptying if systole else 1.0
    size = patient.left * taper * phase * jitter(0.96, 1.04)
    x, y = 15 + 6 * along, 2 + 4 * along
    left = Ellipse(x, y, size, size * jitter(0.92, 1.0), patient.cos, patient.sin, two=jitter(-0.03, 0.03))
    reach = along / patient.apex
    if reach >= 1:
        return left, None
    shrink = math.sqrt(1 - reach * reach) * (0.5 + 0.5 * phase) * jitter(0.96, 1.04)
    away = patient.offset * (0.45 + 0.55 * taper)
    right = Ellipse(
        x - patient.cos * away, y - patient.sin * away - 3,
        max(patient.width * shrink, 1.0), max(patient.length * shrink, 1.0),
        patient.cos, patient.sin,
        two=patient.lobe, three=jitter(-0.06, 0.06),
    )  # fmt: skip
    return left, right


def _left_ventricle(
    canvas: Canvas, patient: Patient, stream: Stream, left: Ellipse, along: float, heart: tuple[slice, slice]
) -> Plane:
    """Paint the left ventricle and its papillary muscles; return the distance to its outer border."""
    jitter = stream.uniform
    muscle = patient.muscle * (1.15 if left.a < 0.8 * patient.left else 1.0)
    epicardium = replace(left, a=left.a + muscle, b=left.b + muscle)
    outside = canvas.distance(epicardium, heart)
    canvas.paint(patient.myocardium, within(outside, EDGE), heart)
    canvas.spot(left, BLOOD, EDGE)
    if 0.2 < along < 0.85:
        for side in (-1, 1):
            size = left.a * jitter(0.14, 0.24)
            x, y = left.a * 0.5, left.b * jitter(0.4, 0.6) * side
            column, row = left.x + x * left.cos - y * left.sin, left.y + x * left.sin + y * left.cos
            canvas.spot(Ellipse(column, row, size, size * jitter(0.7, 1.0)), patient.myocardium * 1.1, EDGE)
    return outside


def _right_ventricle(
    canvas: Canvas,
    patient: Patient,
    stream: Stream,
    inner: Plane,
    outer: Plane,
    outside: Plane,
    heart: tuple[slice, slice],
) -> None:
    """Paint the right ventricle's wall and blood, with trabeculae along the free wall."""
    canvas.paint(patient.myocardium * 1.05, within(outer, EDGE) * within(-outside, EDGE), heart)
    canvas.paint(BLOOD * 0.93, within(inner, EDGE), heart)
    ridges = above(canvas.field(stream, 4.5)[heart], 0.1, 2.5) * np.float32(patient.trabeculae)
    near = within(inner, EDGE) * within(-inner - np.float32(5.0), 4.0)
    canvas.paint(patient.myocardium * 1.1, ridges * near, heart)
