"""DICOM frames as slices: where each lies, from its header alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segkit.components.datasets.formats.dicom_header import format_of, numbers_of, read_header, spacing_of, text_of
from segkit.components.datasets.reading import RefusedError, refused_by

Vector = tuple[float, float, float]

AXES: tuple[Vector, Vector] = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)  # where a file states none
RIGHT_ANGLE = 0.01  # how far the cosine between rows and columns may be from 0


@dataclass(frozen=True)
class Slice:
    """A frame, as its header describes it.

    Attributes:
        path: its file.
        frame: its index in the file.
        series: the SeriesInstanceUID; "" if there is none.
        number: the InstanceNumber.
        size: rows and columns.
        spacing_mm: between rows and between columns.
        distance_mm: SpacingBetweenSlices, else SliceThickness.
        position: of the centre of the top left pixel, in mm towards the patient's left, posterior and superior (LPS).
        axes: along a row and along a column, unit vectors in LPS.
    """

    path: Path
    frame: int
    series: str
    number: float | None
    size: tuple[int, int]
    spacing_mm: tuple[float, float] | None
    distance_mm: float | None
    position: Vector | None
    axes: tuple[Vector, Vector] | None

    @property
    def height(self) -> float:
        """Where it lies along the normal of its plane, in mm."""
        across, down = self.axes or AXES
        return dot(self.position or (0.0, 0.0, 0.0), cross(across, down))


def read_slices(path: Path) -> list[Slice]:
    """Return the frames of a file, from its header.

    Raises:
        UserError: it is no DICOM image, or one that is not read; the message names it.
    """
    header = read_header(path)
    with refused_by(path):
        found = format_of(header)
        slices = []
        for frame in range(found.frames):
            axes = numbers_of(header, "ImageOrientationPatient", 6, frame)
            position = numbers_of(header, "ImagePositionPatient", 3, frame)
            number = numbers_of(header, "InstanceNumber", 1)
            distances = [numbers_of(header, name, 1, frame) for name in ("SpacingBetweenSlices", "SliceThickness")]
            slices.append(
                Slice(
                    path, frame, text_of(header, "SeriesInstanceUID"),
                    number[0] if number else None,
                    (found.rows, found.columns),
                    spacing_of(header, frame),
                    next((abs(distance[0]) for distance in distances if distance and distance[0]), None),
                    (position[0], position[1], position[2]) if position else None,
                    _unit_axes(axes) if axes else None,
                )
            )  # fmt: skip
        return slices


def _unit_axes(cosines: Sequence[float]) -> tuple[Vector, Vector]:
    """Return the directions of a row and of a column."""
    axes = []
    for x, y, z in (cosines[:3], cosines[3:]):
        length = math.hypot(x, y, z)
        if not 0.9 < length < 1.1:
            raise RefusedError(f"ImageOrientationPatient must be two unit vectors, got {tuple(cosines)}.")
        axes.append((x / length, y / length, z / length))
    if abs(dot(*axes)) > RIGHT_ANGLE:
        raise RefusedError(f"ImageOrientationPatient must be two perpendicular vectors, got {tuple(cosines)}.")
    return axes[0], axes[1]


def dot(one: Vector, other: Vector) -> float:
    """Return the inner product."""
    return sum(map(float.__mul__, one, other))


def cross(one: Vector, other: Vector) -> Vector:
    """Return the vector product."""
    (a, b, c), (x, y, z) = one, other
    return b * z - c * y, c * x - a * z, a * y - b * x
