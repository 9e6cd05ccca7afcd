"""Resampling of masks: by area, with the geometry of their image.

Nearest neighbour moves masks against their image where both are scaled, by up to half a pixel, and loses thin
structures. Here each label of a bit map (a combination of channels) becomes a plane of coverage, 0 to 254, which is
averaged over the area of the new pixel where it shrinks (over blocks of pixels for whole factors, else by linear
interpolation after a blur that together vary as that area does), and interpolated linearly where it grows. What a new
pixel holds is then decided once:

- Exclusive classes: the label that covers most of it, background included, so that no gaps open between neighbours.
- Independent channels: each channel that covers more than half of it. Channels that do not overlap before do not
  overlap after, nested ones stay nested, and no combination arises that was not there: where one would, the pixel
  takes the label that covers most of it.
- Ties, as the half-covered pixels of straight edges are when a size is halved: the lower label on one colour of a
  chessboard, the higher on the other, so that edges keep their place and structures their area.

Where the image itself is sampled by nearest neighbour, masks take the very pixels that the image takes. Rotations and
distortions stay nearest neighbour: they do not scale, and there it rounds to both sides alike.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]
Bits = NDArray[np.uint8] | NDArray[np.uint16]
Matrix = tuple[float, float, float, float, float, float]  # from old to new (x, y), row by row

FULL = 254  # an even number: half of it can be told from more and less
HALF = FULL // 2
NEAREST = (cv2.INTER_NEAREST, cv2.INTER_NEAREST_EXACT)
TENT = 1 / 6  # the variance of linear interpolation, square pixels


def follow_images(transform: Any, exclusive: bool) -> None:
    """Let a transform, and those inside a composition, resample masks by area, in place; see the module.

    One that does not scale stays as it is, and so does one of a plugin that has its own `apply_to_mask`.

    Args:
        transform: of Albumentations.
        exclusive: whether channels are exclusive classes.
    """
    import albumentations as a

    for inner in getattr(transform, "transforms", ()):
        follow_images(inner, exclusive)
    if isinstance(transform, a.Downscale):
        _replace(transform, _Lowered(transform, exclusive))
        return
    scaling = (a.Resize, a.LongestMaxSize, a.SmallestMaxSize, a.RandomScale, a.RandomResizedCrop, a.RandomSizedCrop)
    kind = _Resized if isinstance(transform, (*scaling, a.CropAndPad)) else _Warped
    if kind is _Warped and not isinstance(transform, a.Affine):
        return
    own = not type(transform).apply_to_mask.__module__.startswith("albumentations.")
    fills = getattr(transform, "fill_mask", None) not in (0, None)  # with a label of its own; only code can say so
    if not own and not fills:
        _replace(transform, kind(transform, exclusive))


def _replace(transform: Any, by: _ByArea) -> None:
    transform._key2func["mask"] = by  # what Albumentations calls with the mask and what the transform drew


class _ByArea:
    """What a transform does to a bit map; called with what the transform drew."""

    def __init__(self, transform: Any, exclusive: bool) -> None:
        self._transform, self._exclusive = transform, exclusive

    def __call__(self, bits: Bits, **params: Any) -> Bits:
        raise NotImplementedError

    def _own(self, bits: Any, params: dict[str, Any], **attributes: Any) -> Any:
        """Return what Albumentations makes of a mask, with some of the transform's attributes changed for the call."""
        kept = {name: getattr(self._transform, name) for name in attributes}
        vars(self._transform).update(attributes)
        try:
            return self._transform.apply_to_mask(bits, **params)
        finally:
            vars(self._transform).update(kept)

    def _decided(self, bits: Bits, move: Callable[[Plane], Plane]) -> Bits:
        """Move the coverage of each label and decide; see the module."""
        labels = _labels(bits)
        if not labels:
            return np.zeros(move(np.zeros(bits.shape, np.uint8)).shape, bits.dtype)
        planes = [move((bits == label).view(np.uint8) * np.uint8(FULL)) for label in labels]
        board = _chessboard(*planes[0].shape)
        if len(labels) == 1:
            return (planes[0] + board > HALF) * bits.dtype.type(labels[0])  # type: ignore[no-any-return]
        winner, most = _winner(planes, labels, board, bits.dtype)
        if self._exclusive:
            return winner
        if all(label & (label - 1) == 0 for label in labels):  # no channels overlap
            return winner * (most >= HALF)
        return _by_channel(planes, labels, winner)

    def _mapped(self, bits: Bits, matrix: Matrix, size: tuple[int, ...], border: int) -> Bits:
        """Map the part that holds anything, into pictures of a size (rows, columns)."""
        found = np.zeros(size, bits.dtype)
        x, y, width, height = _box(bits)
        if not width:
            return found
        soft, reach = _softener(matrix)
        left, top = max(x - reach - 1, 0), max(y - reach - 1, 0)
        right, bottom = min(x + width + reach + 1, bits.shape[1]), min(y + height + reach + 1, bits.shape[0])
        a, b, c, d, e, f = matrix
        columns = [a * x + b * y + c for x in (left - 1, right) for y in (top - 1, bottom)]
        rows = [d * x + e * y + f for x in (left - 1, right) for y in (top - 1, bottom)]
        low = max(math.floor(min(columns)), 0), max(math.floor(min(rows)), 0)
        high = min(math.ceil(max(columns)) + 1, size[1]), min(math.ceil(max(rows)) + 1, size[0])
        if low[0] >= high[0] or low[1] >= high[1]:
            return found
        window = high[0] - low[0], high[1] - low[1]
        part = np.array([[a, b, a * left + b * top + c - low[0]], [d, e, d * left + e * top + f - low[1]]])
        found[low[1] : high[1], low[0] : high[0]] = self._decided(
            bits[top:bottom, left:right],
            lambda plane: cv2.warpAffine(soft(plane), part, window, flags=cv2.INTER_LINEAR, borderMode=border),  # type: ignore
        )
        return found


class _Lowered(_ByArea):
    """Downscale: masks stay sharp, but go where the image goes."""

    def __call__(self, bits: Bits, **params: Any) -> Bits:
        """Return the moved bit map (H, W)."""
        if not set(self._transform.interpolation_pair.values()).isdisjoint(NEAREST):
            return self._decided(bits, lambda plane: np.minimum(self._transform.apply(plane, **params), FULL))
        # The way down is by the factor, the way back from a whole number of pixels: together, they may scale a little.
        scale = params["scale"]
        shrink = [max(round(side * scale), 1) / (side * scale) for side in bits.shape]
        if shrink == [1, 1]:
            return bits
        return self._mapped(bits, _centred(shrink), bits.shape, cv2.BORDER_REPLICATE)


class _Resized(_ByArea):
    """Resizing of the whole or of a part."""

    def __call__(self, bits: Bits, **params: Any) -> Bits:
        """Return the bit map (H, W) in its new size."""
        flag = self._transform.interpolation
        if "crop_params" in params:  # CropAndPad
            size = params["shape"][:2]
            bits = self._own(bits, params, keep_size=False)
            if not self._transform.keep_size:
                return bits
        elif "crop_coords" in params:
            left, top, right, bottom = params["crop_coords"]
            size, bits = tuple(self._transform.size), bits[top:bottom, left:right]
        else:
            size = self._own(bits, params, mask_interpolation=cv2.INTER_NEAREST).shape
        shrink = [old / new for old, new in zip(bits.shape, size, strict=True)]
        if shrink == [1, 1]:
            return bits
        if getattr(self._transform, "area_for_downscale", None) and max(shrink) > 1:
            flag = cv2.INTER_AREA
        if flag in NEAREST:
            return cv2.resize(bits, size[::-1], interpolation=flag)  # type: ignore[return-value]
        if all(float(side).is_integer() for side in shrink):
            return self._averaged(bits, size, int(shrink[0]), int(shrink[1]))
        a, b, x, c, d, y = _centred(shrink)
        if flag == cv2.INTER_AREA and min(shrink) < 1 < max(shrink):
            x, y = x - _skew(size[1], shrink[1]), y - _skew(size[0], shrink[0])
        return self._mapped(bits, (a, b, x, c, d, y), size, cv2.BORDER_REPLICATE)

    def _averaged(self, bits: Bits, size: tuple[int, int], tall: int, wide: int) -> Bits:
        """Average over blocks of pixels."""
        found = np.zeros(size, bits.dtype)
        x, y, width, height = _box(bits)
        left, top, right, bottom = x // wide, y // tall, -(-(x + width) // wide), -(-(y + height) // tall)
        if width:
            found[top:bottom, left:right] = self._decided(
                bits[top * tall : bottom * tall, left * wide : right * wide],
                lambda plane: cv2.resize(plane, (right - left, bottom - top), interpolation=cv2.INTER_AREA),  # type: ignore
            )
        return found


class _Warped(_ByArea):
    """Affine maps; rotations and shifts stay nearest neighbour."""

    def __call__(self, bits: Bits, **params: Any) -> Bits:
        """Return the moved bit map (H, W)."""
        flag = self._transform.interpolation
        matrix: Matrix = tuple(params["matrix"][:2].ravel().tolist())
        a, b, _, c, d, _ = matrix
        turned = max(abs(a * a + b * b - 1), abs(c * c + d * d - 1), abs(a * c + b * d)) < 1e-6
        if flag in NEAREST or turned or abs(a * d - b * c) < 1e-6:
            nearest = flag if flag in NEAREST else cv2.INTER_NEAREST
            return self._own(bits, params, mask_interpolation=nearest)  # type: ignore[no-any-return]
        size = tuple(int(np.round(side)) for side in params["output_shape"])
        if self._transform.border_mode == cv2.BORDER_CONSTANT:
            return self._mapped(bits, matrix, size, cv2.BORDER_CONSTANT)
        soft = _softener(matrix)[0]  # what lies beyond the borders may be anywhere, so all is mapped
        return self._decided(bits, lambda plane: self._own(soft(plane), params, mask_interpolation=cv2.INTER_LINEAR))


def _box(bits: Bits) -> tuple[int, int, int, int]:
    """Return x, y, width and height of the part of a bit map that holds anything; zeros for an empty one."""
    return tuple(cv2.boundingRect(bits if bits.dtype == np.uint8 else (bits > 0).astype(np.uint8)))  # type: ignore


def _labels(bits: Bits) -> list[int]:
    """Return the distinct values of a bit map beside 0, in order."""
    top = int(bits.max())
    if top <= 1:
        return [1] * top
    if top <= 8:
        return [label for label in range(1, top) if (bits == label).any()] + [top]
    return [int(label) for label in np.flatnonzero(np.bincount(bits.ravel())) if label]


def _centred(shrink: list[float]) -> Matrix:
    """Return the matrix of a resizing, (x, y) of pixel centres, from old pixels in a new one along (rows, columns)."""
    tall, wide = shrink
    return 1 / wide, 0.0, (1 / wide - 1) / 2, 0.0, 1 / tall, (1 / tall - 1) / 2


def _skew(new: int, step: float) -> float:
    """Return by how many new pixels OpenCV's INTER_AREA misplaces an axis that shrinks while the other one grows."""
    if step <= 1:
        return 0.0
    at = np.arange(new)
    first = np.floor(at * step)
    sampled = first + at + 1 - (first + 1) / step  # between two old pixels: OpenCV takes no more
    return float(np.mean(sampled - (at + 0.5) * step + 0.5)) / step


def _softener(matrix: Matrix) -> tuple[Callable[[Plane], Plane], int]:
    """Return a blur that lets linear interpolation average over the area of a new pixel, and how far it reaches."""
    a, b, _, c, d, _ = matrix
    twelve = 12 * (a * d - b * c) ** 2
    wide, tall = (b * b + d * d) / twelve - TENT, (a * a + c * c) / twelve - TENT
    if max(wide, tall) < TENT / 10:
        return lambda plane: plane, 0
    x, y = _kernel(wide), _kernel(tall)
    reach = max(len(x), len(y)) // 2
    return lambda plane: cv2.sepFilter2D(plane, -1, x, y, borderType=cv2.BORDER_REPLICATE), reach  # type: ignore


def _winner(planes: list[Plane], labels: list[int], board: Plane, kind: Any) -> tuple[Bits, Plane]:
    """Return the label that covers most of each pixel, and how much it covers; see the module for ties."""
    most = np.full_like(planes[0], FULL)
    for plane in planes:
        cv2.subtract(most, plane, most)  # not below 0, where rounding would lead
    winner = np.zeros(most.shape, kind)
    for plane, label in zip(planes, labels, strict=True):
        np.copyto(winner, kind.type(label), where=plane + board > most)
        np.maximum(most, plane, out=most)
    return winner, most


def _by_channel(planes: list[Plane], labels: list[int], winner: Bits) -> Bits:
    """Return the channels that cover more than half of each pixel, as far as their combinations are known."""
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


def _chessboard(rows: int, columns: int) -> Plane:
    return _large_chessboard(-(-max(rows, columns) // 512) * 512)[:rows, :columns]


@functools.lru_cache(maxsize=4)
def _large_chessboard(side: int) -> Plane:
    return (np.add.outer(np.arange(side), np.arange(side)) & 1).astype(np.uint8)


def _kernel(variance: float) -> NDArray[np.float64]:
    """Return a box with lower ends: symmetric weights of a variance, in square pixels; [1] for hardly any."""
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
