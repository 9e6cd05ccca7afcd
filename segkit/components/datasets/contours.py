"""Contour files and their lists: text to points, points to a mask.

A contour has one `x y` per line (or separated by tabs, semicolons or commas, also with decimal commas), x along columns
and y along rows, in pixels: (0, 0) is the centre of the top left pixel. It is closed from the last point to the first.
A pixel belongs to the mask if its centre is inside by the nonzero winding rule, so that loops of a line that crosses
itself are filled; centres on the line belong to the side to the right or below, so that areas are not biased.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segkit.components.datasets.reading import MOST_TEXT, decode, read_bytes
from segkit.errors import UserError, counted, first_few

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LONGEST_LINE = 400
MOST_POINTS = 20_000
OUTSIDE = 1.0  # pixels by which a point may lie beyond the image's edge, as those of tools that count from 1
NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?"
POINT = re.compile(rf"({NUMBER})(?:[ \t]*[,;][ \t]*|[ \t]+)({NUMBER})")
DECIMAL_COMMAS = re.compile(r"([+-]?[0-9]+(?:,[0-9]+)?)(?:[ \t]*;[ \t]*|[ \t]+)([+-]?[0-9]+(?:,[0-9]+)?)")
TOUCHING = 0.01  # share of an inner contour that may lie outside the outer one: touching lines cross by a pixel
NEEDED = {"wall": "io", "cavity": "i", "endocardium": "i", "epicardium": "o"}  # contours, by structure
CHUNK = 100  # edges filled at a time; bounds the memory of a hostile contour


@dataclass(frozen=True, eq=False)
class Contour:
    """A closed line.

    Attributes:
        name: the file, for messages.
        points: (N, 2) x and y, in pixels.
        lines: each point's line in the file.
    """

    name: str
    points: NDArray[np.float64]
    lines: tuple[int, ...]


def read_contour(path: Path) -> Contour:
    """Return a file's contour.

    Raises:
        UserError: a line is not a point, or fewer than three points differ; the message names file and line.
    """
    return parse_contour(read_bytes(path, MOST_TEXT), str(path))


def parse_contour(data: bytes, name: str) -> Contour:
    """Return what `read_contour` does, from the bytes of a file."""
    import numpy as np

    points, lines = [], []
    for number, line in _lines(data, name):
        match = POINT.fullmatch(line) or DECIMAL_COMMAS.fullmatch(line)
        if match is None:
            raise UserError(f"{name}:{number}: {line[:60]!r} is not a point; a line must be `x y`, in pixels.")
        x, y = (float(part.replace(",", ".")) for part in match.groups())
        if not (abs(x) < 1e6 and abs(y) < 1e6):
            raise UserError(f"{name}:{number}: ({x:g}, {y:g}) is not a point of an image.")
        points.append((x, y))
        lines.append(number)
    if not points:
        raise UserError(f"{name}: contains no points. A frame without the structure must have no file.")
    if len(points) > MOST_POINTS:
        raise UserError(f"{name}: {len(points):,} points; contours are read up to {MOST_POINTS:,}.")
    if len(set(points)) < 3:
        raise UserError(f"{name}: {counted(len(set(points)), 'different point')}; a contour needs three.")
    return Contour(name, np.array(points, dtype=np.float64), tuple(lines))


def parse_list(data: bytes, name: str) -> list[tuple[int, str]]:
    """Return the file name at the end of each path in a list (with `/` or `\\`), with its line.

    Raises:
        UserError: a path leads out of the folder (`..`, a drive, a root) or is too long.
    """
    found = []
    for number, line in _lines(data, name):
        path = line.strip("\"'")
        parts = path.replace("\\", "/").split("/")
        if ".." in parts or path.startswith(("/", "\\\\")) or ":" in path:
            raise UserError(f"{name}:{number}: {line[:80]!r} leads out of the data's folder. Nothing outside is read.")
        if parts[-1] in ("", "."):
            raise UserError(f"{name}:{number}: {line[:80]!r} does not name a file.")
        found.append((number, parts[-1]))
    return found


def _lines(data: bytes, name: str) -> Iterator[tuple[int, str]]:
    """Yield the number and the stripped text of each line that is not blank."""
    text = decode(data, name).replace("\r\n", "\n").replace("\r", "\n")
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > LONGEST_LINE:
            raise UserError(f"{name}:{number}: a line of {len(line):,} characters; up to {LONGEST_LINE} are read.")
        if line.strip():
            yield number, line.strip()


def fill(contour: Contour, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask (H, W) of the pixels whose centres a contour encloses.

    Raises:
        UserError: a point lies more than a pixel outside the image; the message names file and line.
    """
    import numpy as np

    x, y = contour.points.T
    height, width = shape
    margin = 0.5 + OUTSIDE
    off = (x < -margin) | (y < -margin) | (x > width - 1 + margin) | (y > height - 1 + margin)
    if off.any():
        first = int(np.argmax(off))
        raise UserError(
            f"{contour.name}:{contour.lines[first]}: ({x[first]:g}, {y[first]:g}) lies outside the image "
            f"(columns 0 to {width - 1}, rows 0 to {height - 1}). Does the contour belong to this image?"
        )
    turns = np.zeros((height, width + 1), dtype=np.int32)
    ends = np.roll(contour.points, -1, axis=0)
    for start in range(0, len(x), CHUNK):
        _wind(turns, contour.points[start : start + CHUNK], ends[start : start + CHUNK])
    inside: NDArray[np.bool_] = np.cumsum(turns[:, :width], axis=1) != 0
    return inside


def _wind(turns: NDArray[np.int32], begin: NDArray[np.float64], end: NDArray[np.float64]) -> None:
    """Add each edge's direction to `turns` (H, W + 1) at its crossings of rows of pixel centres."""
    import numpy as np

    height, width = turns.shape[0], turns.shape[1] - 1
    (x0, y0), (x1, y1) = begin.T, end.T
    first = np.clip(np.ceil(np.minimum(y0, y1)), 0, height).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(y0, y1)), 0, height).astype(np.int64)  # exclusive; level edges cross nothing
    count = last - first
    edge = np.repeat(np.arange(len(x0)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    crossing = x0[edge] + (row - y0[edge]) * (x1 - x0)[edge] / (y1 - y0)[edge]
    column = np.clip(np.ceil(crossing), 0, width).astype(np.int64)
    np.add.at(turns, (row, column), np.where(y1 > y0, 1, -1)[edge].astype(np.int32))


def check_structures(structures: Sequence[str]) -> None:
    """Raise unless a reader's parameter `structures` names each channel once, and at least one."""
    if not structures or len(set(structures)) < len(structures):
        raise UserError(f"structures: {list(structures)} must name at least one channel, and each only once.")


def fill_structures(
    lines: Mapping[str, Contour], shape: tuple[int, int], structures: Sequence[str]
) -> tuple[NDArray[np.bool_], int]:
    """Return the masks (C, H, W) of structures, and how many pixels of the inner contour lie outside the outer one.

    The number is 0 if the two contours only touch.

    Args:
        lines: the inner contour ("i"), the outer one ("o"), or both, as the structures need.
        shape: of the image.
        structures: "wall", "cavity", "endocardium" or "epicardium".

    Raises:
        UserError: a point lies outside the image, or the inner contour encloses more than the outer one.
    """
    import numpy as np

    filled = {kind: fill(line, shape) for kind, line in lines.items()}
    masks = [filled["o"] & ~filled["i"] if name == "wall" else filled[NEEDED[name][0]] for name in structures]
    beyond = 0
    if len(filled) == 2:
        inner, outer = filled["i"], filled["o"]
        if inner.sum() > outer.sum():
            raise UserError(
                f"{lines['i'].name}: encloses more than the outer contour {lines['o'].name}. Are they swapped?"
            )
        beyond = outside(inner, outer)
    return np.stack(masks), beyond


def outside(inner: NDArray[np.bool_], outer: NDArray[np.bool_]) -> int:
    """Return how many pixels of a filled inner contour lie outside the outer one; 0 if the two only touch."""
    count = int((inner & ~outer).sum())
    return count if count > TOUCHING * int(inner.sum()) else 0


def outside_notes(found: dict[str, int]) -> tuple[str, ...]:
    """Return a note on the inner contours that lie outside outer ones, given the number of pixels of each frame."""
    counts = {frame: count for frame, count in found.items() if count}
    if not counts:
        return ()
    listed = first_few(f"{frame} ({counted(count, 'pixel')})" for frame, count in counts.items())
    return (
        f"in {counted(len(counts), 'frame')} the inner contour leaves the outer one, by "
        f"{counted(sum(counts.values()), 'pixel')} in all. These pixels are cavity, not wall, and the wall is open "
        f"there. {listed}.",
    )
