"""Where geometric transforms of Albumentations take their pixels from; see `Geometry.move`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from segkit.components.device_forms.form import Drawn, Matrix, Move, Size


def _shift(x: float, y: float) -> Matrix:
    return np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])


def _inverse(matrix: Any) -> Matrix:
    whole = np.eye(3)
    whole[: len(matrix)] = matrix
    return np.asarray(np.linalg.inv(whole), np.float64)


def mirrored(transform: Any, size: Size, drawn: Drawn) -> Move:
    """Left and right trade places."""
    return Move(np.array([[-1.0, 0, size[1] - 1], [0, 1, 0], [0, 0, 1]]), size)


def upside_down(transform: Any, size: Size, drawn: Drawn) -> Move:
    """Top and bottom trade places."""
    return Move(np.array([[1.0, 0, 0], [0, -1, size[0] - 1], [0, 0, 1]]), size)


def transposed(transform: Any, size: Size, drawn: Drawn) -> Move:
    """Rows and columns trade places."""
    return Move(np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]]), size[::-1])


def turned(transform: Any, size: Size, drawn: Drawn) -> Move:
    """Quarter turns, counterclockwise."""
    return _quarters(size, drawn["factor"])


def _quarters(size: Size, count: int) -> Move:
    matrix = np.eye(3)
    for _ in range(count % 4):
        matrix = matrix @ np.array([[0.0, -1, size[1] - 1], [1, 0, 0], [0, 0, 1]])
        size = size[::-1]
    return Move(matrix, size)


def of_square(transform: Any, size: Size, drawn: Drawn) -> Move:
    """One of the eight symmetries of a square."""
    element = drawn["group_element"]
    turns = {"e": 0, "r90": 1, "r180": 2, "r270": 3}
    if element in turns:
        return _quarters(size, turns[element])
    if element == "v":
        return upside_down(transform, size, drawn)
    if element == "h":
        return mirrored(transform, size, drawn)
    flipped = transposed(transform, size, drawn)
    if element == "t":
        return flipped
    whole = _quarters(size, 2)  # "hvt": both mirrored, then transposed
    return Move(whole.matrix @ flipped.matrix, flipped.size)


def affine(transform: Any, size: Size, drawn: Drawn) -> Move:
    """Return the move of an affine map."""
    if np.array_equal(drawn["matrix"][:2], np.eye(3)[:2]):  # for which Albumentations returns the image, of any size
        return Move(np.eye(3), size)
    rows, columns = (round(float(side)) for side in drawn.get("output_shape", size)[:2])
    return Move(_inverse(drawn["matrix"]), (rows, columns))


def rotated(transform: Any, size: Size, drawn: Drawn) -> Move:
    """Return the move of a rotation, of which only the part without borders is kept if `crop_border`."""
    move = affine(transform, size, drawn)
    if not transform.crop_border:
        return move
    left, right, top, bottom = (drawn[name] for name in ("x_min", "x_max", "y_min", "y_max"))
    return Move(move.matrix @ _shift(left, top), (bottom - top, right - left))


def cropped(transform: Any, size: Size, drawn: Drawn) -> Move:
    """Return the move of a crop, padded if need be."""
    left, top, right, bottom = drawn["crop_coords"]
    padding = drawn.get("pad_params") or {"pad_left": 0, "pad_top": 0}
    if not drawn.get("pad_params") and (bottom > size[0] or right > size[1]):
        raise ValueError(f"the crop ends in row {bottom}, column {right}, the image in row {size[0]}, column {size[1]}")
    return Move(_shift(left - padding["pad_left"], top - padding["pad_top"]), (bottom - top, right - left))


def padded(transform: Any, size: Size, drawn: Drawn) -> Move:
    """Return the move of padding."""
    top, bottom, left, right = (drawn[f"pad_{side}"] for side in ("top", "bottom", "left", "right"))
    return Move(_shift(-left, -top), (size[0] + top + bottom, size[1] + left + right))


def _scaled(old: Size, new: Size, left: int = 0, top: int = 0) -> Move:
    """Scale a part of a size, from a corner, to a new size."""
    x, y = old[1] / new[1], old[0] / new[0]
    return Move(np.array([[x, 0, (x - 1) / 2 + left], [0, y, (y - 1) / 2 + top], [0, 0, 1]]), new)


def resized_crop(transform: Any, size: Size, drawn: Drawn) -> Move:
    """Return the move of a part that is scaled to one size."""
    left, top, right, bottom = drawn["crop_coords"]
    move = _scaled((bottom - top, right - left), tuple(transform.size), left, top)
    return replace(move, part=(top, left, bottom - top, right - left))


def resized(transform: Any, size: Size, drawn: Drawn) -> Move:
    """Return the move of scaling the whole image."""
    if "scale" in drawn:  # RandomScale
        return _scaled(size, (int(size[0] * drawn["scale"]), int(size[1] * drawn["scale"])))
    return _scaled(size, (transform.height, transform.width))
