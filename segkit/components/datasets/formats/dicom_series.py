"""DICOM series as volumes: files of one frame each, or enhanced files of many, in order along the slices' normal.

A series is a volume if its frames have one size, orientation and pixel spacing, and lie at equal distances on a
straight line. Anything else (a slice that is missing, several time frames at each position, a localizer) is one
message. A prediction is written as NIfTI: `affine_of` places it where the series lies.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segkit.components.datasets.formats.dicom import read_frames
from segkit.components.datasets.formats.dicom_slices import AXES, Slice, Vector, cross, read_slices
from segkit.components.datasets.reading import collected
from segkit.errors import UserError, counted, first_few
from segkit.types import Array

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SpacingMM = tuple[float, float, float]

NEAR_MM, NEAR_SHARE = 0.01, 0.01  # by which distances between slices may differ: what headers round away
OFF_LINE = 0.1  # pixels by which a slice may lie beside the line through the first and the last
PARALLEL = 1e-3  # by which direction cosines may differ


class UnevenError(UserError):
    """Slices lie at unequal distances, or beside the line of the others."""


@dataclass(frozen=True)
class Series:
    """Slices that make a volume.

    Attributes:
        name: the file, or the folder of the files; for messages.
        slices: in the order of the volume.
        spacing_mm: between slices, rows and columns; None if the files do not state all three.
        step: from one slice to the next, in LPS.
    """

    name: str
    slices: tuple[Slice, ...]
    spacing_mm: SpacingMM | None
    step: Vector

    @property
    def files(self) -> tuple[Path, ...]:
        """Its files, each once."""
        return tuple(dict.fromkeys(item.path for item in self.slices))


def find_series(files: Iterable[Path], problems: list[str] | None = None) -> list[Series]:
    """Return the series of DICOM files, told apart by their SeriesInstanceUID, or without one by their folder.

    Args:
        files: of any number of series; only their headers are read. An index (DICOMDIR) among them is passed over.
        problems: receives the problems; without it, the first is raised.

    Raises:
        UserError: a file is no DICOM image, or the files of a series make no volume.
    """
    found = []
    for slices in group_slices(files, problems):
        with collected(problems):
            found.append(stack(slices))
    return found


def group_slices(files: Iterable[Path], problems: list[str] | None = None) -> list[list[Slice]]:
    """Return the frames of each series, as `find_series` tells them apart; they need not make a volume."""
    groups: dict[tuple[Path | None, str], list[Slice]] = {}
    for path in files:
        if path.name.upper() == "DICOMDIR":
            continue
        with collected(problems):
            for item in read_slices(path):
                groups.setdefault((None if item.series else path.parent, item.series), []).append(item)
    return list(groups.values())


def stack(slices: Sequence[Slice], name: str = "") -> Series:
    """Return slices as a volume, in order of their positions; of their InstanceNumbers if they state none.

    Raises:
        UnevenError: they lie at unequal distances, or not on a line.
        UserError: they differ, or lie otherwise than the slices of a volume; the message names the files.
    """
    folders = list(dict.fromkeys(str(item.path.parent) for item in slices))
    files = list(dict.fromkeys(item.path for item in slices))
    name = name or (str(files[0]) if len(files) == 1 else first_few(folders))
    _check_alike(slices, name)
    across = slices[0].spacing_mm
    placed = all(item.position and item.axes for item in slices)
    ordered = sorted(slices, key=lambda item: item.height) if placed else _by_number(slices, name)
    gap = ordered[0].distance_mm
    if placed and len(ordered) > 1:
        gap = _gap(ordered, name)
        step = _step(ordered, gap, name)
    else:
        x, y, z = (part * (gap or 1.0) for part in cross(*(ordered[0].axes or AXES)))
        step = x, y, z
    return Series(name, tuple(ordered), (gap, *across) if gap and across else None, step)


def read_series(series: Series) -> tuple[Array, SpacingMM | None]:
    """Return a series' volume (D, H, W) in its own units, and its spacing along (slice, row, column) in mm, or None.

    Raises:
        UserError: a file is damaged; the message names it.
    """
    import numpy as np

    frames = {path: read_frames(path) for path in series.files}
    return np.stack(one_kind([frames[item.path][item.frame] for item in series.slices])), series.spacing_mm


def one_kind(images: Sequence[Array]) -> list[Array]:
    """Return images of one type: their own if all have it, int16 if it holds all values, else float32."""
    import numpy as np

    if len({image.dtype for image in images}) == 1:
        return list(images)
    whole = all(image.dtype.kind in "ui" and int(image.max()) < 2**15 for image in images)
    return [image.astype(np.int16 if whole else np.float32) for image in images]


def affine_of(series: Series) -> NDArray[np.float64]:
    """Return the affine (4, 4) from (column, row, slice) of a series' volume to mm towards right, anterior, superior.

    It is NIfTI's of the volume's transpose (W, H, D). Without a position, the first pixel lies at the origin, and
    without a spacing, pixels are 1 mm apart.
    """
    import numpy as np

    first = series.slices[0]
    row, column = first.spacing_mm or (1.0, 1.0)
    across, down = first.axes or AXES
    affine = np.eye(4)
    affine[:3, 0] = np.array(across) * column
    affine[:3, 1] = np.array(down) * row
    affine[:3, 2] = series.step
    affine[:3, 3] = first.position or (0.0, 0.0, 0.0)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # DICOM's x and y run towards left and posterior


def _check_alike(slices: Sequence[Slice], name: str) -> None:
    """Raise unless slices have one size, pixel spacing and orientation."""
    sizes = Counter(item.size for item in slices)
    if len(sizes) > 1:
        listed = ", ".join(
            f"{counted(count, 'slice')} of {rows} x {columns}" for (rows, columns), count in sizes.items()
        )
        raise UserError(f"{name}: slices of different size: {listed}. Keep the files of one volume in it.")
    first = slices[0]
    for item in slices:
        here, there = item.spacing_mm or (), first.spacing_mm or ()
        if len(here) != len(there) or not all(map(_near, here, there)):
            raise UserError(
                f"{item.path}: its pixel spacing is {item.spacing_mm}, that of {first.path} {first.spacing_mm}. Keep "
                "the files of one volume together."
            )
    if all(item.axes for item in slices):
        directions: list[tuple[float, ...]] = []
        for item in slices:
            axes = [part for axis in item.axes or AXES for part in axis]
            if not any(max(map(abs, map(float.__sub__, axes, known))) < PARALLEL for known in directions):
                directions.append(tuple(axes))
        if len(directions) > 1:
            raise UserError(
                f"{name}: its {len(slices)} slices lie in {len(directions)} directions, so that they make no volume "
                "(a localizer, or a rotating stack). Leave it out."
            )


def _by_number(slices: Sequence[Slice], name: str) -> list[Slice]:
    """Return slices in the order of their frames and numbers."""
    if len({item.path for item in slices}) > 1 and len({item.number for item in slices} - {None}) < len(slices):
        raise UserError(
            f"{name}: neither positions (ImagePositionPatient) nor numbers (InstanceNumber) say in which order its "
            f"{len(slices)} slices lie. Export it again with its headers."
        )
    if slices[0].path == slices[-1].path and len(slices) > 1 and not slices[0].distance_mm:
        raise UserError(
            f"{name}: {len(slices)} frames without positions, nor a distance between them: a film, not a volume. Leave "
            "it out, or export its frames one by one."
        )
    return sorted(slices, key=lambda item: (item.number or 0, item.frame))


def _gap(ordered: Sequence[Slice], name: str) -> float:
    """Return the distance between neighbours along the normal; raise unless it is the same everywhere."""
    gaps = [after.height - before.height for before, after in itertools.pairwise(ordered)]
    if min(gaps) < NEAR_MM:
        at: list[list[Slice]] = [[ordered[0]]]
        for gap, item in zip(gaps, ordered[1:], strict=True):
            at += [[item]] if gap >= NEAR_MM else []
            at[-1] += [item] if gap < NEAR_MM else []
        counts = {len(items) for items in at}
        if len(counts) == 1:
            raise UserError(
                f"{name}: {counts.pop()} frames at each of {counted(len(at), 'position')}: a time series, or several "
                "echoes or phases in one. Put the files of each volume into a folder, or convert it to NIfTI."
            )
        double = next(items for items in at if len(items) > 1)
        raise UserError(f"{double[0].path} and {double[1].path} lie at one position. Remove one of them.")
    usual = sorted(gaps)[len(gaps) // 2]
    for gap, (before, after) in zip(gaps, itertools.pairwise(ordered), strict=True):
        if not _near(gap, usual):
            raise UnevenError(
                f"{name}: slices at unequal distances: {gap:.4g} mm from {before.path.name} to {after.path.name}, "
                f"elsewhere {usual:.4g} mm. Is a slice missing?"
            )
    return sum(gaps) / len(gaps)


def _step(ordered: Sequence[Slice], gap: float, name: str) -> Vector:
    """Return the way from one slice to the next; raise unless all lie on the line from the first to the last."""
    count, first = len(ordered) - 1, ordered[0].position or (0.0, 0.0, 0.0)
    x, y, z = ((end - begin) / count for begin, end in zip(first, ordered[-1].position or first, strict=True))
    limit = max(NEAR_MM, OFF_LINE * min(ordered[0].spacing_mm or (1.0,)))
    for index, item in enumerate(ordered):
        there = [begin + index * part for begin, part in zip(first, (x, y, z), strict=True)]
        away = math.dist(there, item.position or first)
        if away > limit + NEAR_SHARE * gap:
            raise UnevenError(
                f"{item.path}: lies {away:.3g} mm beside the line of the other slices of {name}. Were the slices "
                "planned one by one? They make no volume."
            )
    return x, y, z


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= max(NEAR_MM, NEAR_SHARE * abs(other))
