"""Coverage: how much of a pixel each label of a bit map covers, and which label the pixel gets.

- Exclusive classes: the label that covers most of it, background included, so that no gaps open between neighbours.
- Independent channels: each channel that covers more than half of it. Disjoint channels stay disjoint, nested ones stay
  nested, and no new combination arises: where one would, the pixel gets the label that covers most of it.
- Ties, such as half-covered pixels of straight edges when a size is halved: the lower label on one colour of a
  chessboard, the higher on the other, so that edges keep their place and structures their area.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]
Bits = NDArray[np.uint8] | NDArray[np.uint16]

FULL = 254  # even, so that exactly half is a value of its own
HALF = FULL // 2
SMOOTH = np.array([0.2, 0.6, 0.2])
TENT = 1 / 6  # the variance of linear interpolation, square pixels
Matrix = tuple[float, float, float, float, float, float]  # from old to new (x, y), row by row


def relabelled(bits: Bits, move: Callable[[Plane], Plane], exclusive: bool) -> Bits:
    """Return the bit map that results from moving the coverage of each label.

    Args:
        bits: (H, W).
        move: maps a plane of coverage, (H, W) of 0 to `FULL`, to one of (H', W').
        exclusive: whether channels are exclusive classes.
    """
    labels = labels_in(bits)
    if not labels:
        return np.zeros(move(np.zeros(bits.shape, np.uint8)).shape, bits.dtype)
    planes = [move((bits == label).view(np.uint8) * np.uint8(FULL)) for label in labels]
    rows, columns = planes[0].shape
    board = _chessboard(-(-max(rows, columns) // 512) * 512)[:rows, :columns]  # of few sizes, which are cached
    if len(labels) == 1:
        return np.where(planes[0] + board > HALF, bits.dtype.type(labels[0]), bits.dtype.type(0))
    winner, most = _winner(planes, labels, board, bits.dtype)
    if exclusive:
        return winner
    if all(label & (label - 1) == 0 for label in labels):  # no channels overlap
        return winner * (most >= HALF)
    return _by_channel(planes, labels, winner)


def labels_in(bits: Bits) -> list[int]:
    """Return the distinct values of a bit map but 0, in order; if 2 is the greatest, 1 is listed in any case."""
    top = int(bits.max())
    if top <= 2:
        return list(range(1, top + 1))
    if top <= 8:
        return [label for label in range(1, top) if (bits == label).any()] + [top]
    return [int(label) for label in np.flatnonzero(np.bincount(bits.ravel())) if label]


def _winner(planes: list[Plane], labels: list[int], board: Plane, kind: Any) -> tuple[Bits, Plane]:
    """Return the label that covers most of each pixel, and how much it covers; see the module for ties."""
    most = np.full_like(planes[0], FULL)
    for plane in planes:
        cv2.subtract(most, plane, most)  # not below 0, where rounding would lead
    winner = np.zeros(most.shape, kind)
    for plane, label in zip(planes, labels, strict=True):
        better = (plane + board > most).astype(kind)
        better *= kind.type(label)
        np.maximum(winner, better, out=winner)  # labels are in order
        np.maximum(most, plane, out=most)
    return winner, most


def _by_channel(planes: list[Plane], labels: list[int], winner: Bits) -> Bits:
    """Return the channels that cover more than half of each pixel, `winner` where their combination is new."""
    whole = np.sum(planes, axis=0, dtype=np.int32).clip(min=FULL)
    found = np.zeros_like(winner)
    for channel in range(max(labels).bit_length()):
        bit = winner.dtype.type(1 << channel)
        covered = np.zeros_like(whole)
        for plane, label in zip(planes, labels, strict=True):
            if label & int(bit):
                covered += plane
        found |= ((2 * covered > whole) | ((2 * covered == whole) & (winner & bit > 0))) * bit
    return np.where(np.isin(found, [0, *labels]), found, winner)


@functools.lru_cache(maxsize=4)
def _chessboard(side: int) -> Plane:
    return (np.add.outer(np.arange(side), np.arange(side)) & 1).astype(np.uint8)


def smoothed(plane: Plane) -> Plane:
    """Blur coverage so that it shows where edges lie between pixels; one-pixel lines stay more than half covered."""
    return cv2.sepFilter2D(plane, -1, SMOOTH, SMOOTH, borderType=cv2.BORDER_REPLICATE)  # type: ignore[return-value]


def is_rigid(matrix: Matrix) -> bool:
    """Return whether a matrix only shifts, rotates or mirrors."""
    a, b, _, c, d, _ = matrix
    return max(abs(a * a + b * b - 1), abs(c * c + d * d - 1), abs(a * c + b * d)) < 1e-6


def is_slight(matrix: Matrix) -> bool:
    """Return whether a matrix only shifts or rotates, by less than 2.6 degrees apart from quarter turns."""
    far = max(abs(value - round(value)) for value in matrix) > 1e-6
    return is_rigid(matrix) and far and max(abs(matrix[0]), abs(matrix[1])) > 0.999


def softener(matrix: Matrix) -> Callable[[Plane], Plane]:
    """Return a blur after which linear interpolation averages over the area of a new pixel."""
    x, y = softening(matrix)
    if len(x) == len(y) == 1:
        return lambda plane: plane
    return lambda plane: cv2.sepFilter2D(plane, -1, x, y, borderType=cv2.BORDER_REPLICATE)  # type: ignore


def softening(matrix: Matrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return that blur's kernels along x and y, of odd lengths; [1] for none."""
    if is_slight(matrix):
        return SMOOTH, SMOOTH
    a, b, _, c, d, _ = matrix
    twelve = 12 * (a * d - b * c) ** 2
    return _kernel((b * b + d * d) / twelve - TENT), _kernel((a * a + c * c) / twelve - TENT)


def _kernel(variance: float) -> NDArray[np.float64]:
    """Return a box filter with lighter ends, of a variance in square pixels; [1] if that is close to 0."""
    if variance < TENT / 10:
        return np.ones(1)
    reach = 1
    while variance > reach * (reach + 1) / 3 and reach < 32:
        reach += 1
    inner = 2 * reach - 1
    squares = (reach - 1) * reach * inner / 3
    end = min((variance * inner - squares) / (2 * (reach**2 - variance)), 1.0)
    one = 1 / (inner + 2 * end)
    return np.array([end * one, *[one] * inner, end * one])
