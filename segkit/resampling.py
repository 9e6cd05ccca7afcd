"""Resampling of masks: by area, with the geometry of their image.

Nearest neighbour moves masks against their image, by up to half a pixel where they are scaled, and loses thin
structures. Here each label of a bit map (a combination of channels) becomes a plane of coverage, 0 to 254, that the
transform moves as it moves the image: averaged over the area of the new pixel where it shrinks, interpolated linearly
elsewhere. What a new pixel holds is then decided once:

- Exclusive classes: the label that covers most of it, background included, so that no gaps open between neighbours.
- Independent channels: each channel that covers more than half of it. Channels that do not overlap before do not
  overlap after, nested ones stay nested, and no combination arises that was not there: where one would, the pixel
  takes the label that covers most of it.
- Ties, as half-covered pixels of straight edges are when a size is halved: the lower label on one colour of a
  chessboard, the higher on the other, so that edges keep their place and structures their area.

Where the image itself is sampled by nearest neighbour, masks take the very pixels that the image takes.
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

FULL = 254  # an even number: half of it can be told from more and less
HALF = FULL // 2
NEAREST = (cv2.INTER_NEAREST, cv2.INTER_NEAREST_EXACT)
TENT = 1 / 6  # the variance of linear interpolation, square pixels


def follow_images(transform: Any, exclusive: bool) -> None:
    """Let a transform, and those inside a composition, resample masks by area, in place; see the module.

    Args:
        transform: of Albumentations; one that does not resample stays as it is.
        exclusive: whether channels are exclusive classes.
    """
    for inner in getattr(transform, "transforms", ()):
        follow_images(inner, exclusive)
    resamples = hasattr(transform, "mask_interpolation") and hasattr(transform, "apply_to_mask")
    fills = getattr(transform, "fill_mask", 0) not in (0, None)  # only code can set it: a label of its own
    if (resamples and not fills) or _lowers_resolution(transform):
        transform._key2func["mask"] = _ByArea(transform, exclusive)  # what Albumentations calls for masks


def _lowers_resolution(transform: Any) -> bool:
    """Return whether a transform is Downscale by nearest neighbour, which moves the image by more than a pixel."""
    pair = getattr(transform, "interpolation_pair", None)
    return isinstance(pair, dict) and not set(pair.values()).isdisjoint(NEAREST)


class _ByArea:
    """What a transform does to a bit map."""

    def __init__(self, transform: Any, exclusive: bool) -> None:
        self._transform, self._exclusive = transform, exclusive

    def __call__(self, bits: Bits, **params: Any) -> Bits:
        """Return the moved bit map.

        Args:
            bits: (H, W) uint8 or uint16.
            params: what the transform drew.
        """
        if _lowers_resolution(self._transform):
            pair = set(self._transform.interpolation_pair.values())
            if pair <= set(NEAREST):
                return self._transform.apply(bits, **params)  # type: ignore[no-any-return]
            return self._decided(bits, lambda plane: self._transform.apply(plane, **params))
        image_flag = getattr(self._transform, "interpolation", cv2.INTER_LINEAR)
        like_nearest = self._moved(bits, params, image_flag if image_flag in NEAREST else cv2.INTER_NEAREST)
        shrink = self._shrink(bits.shape, like_nearest.shape, params)
        if getattr(self._transform, "area_for_downscale", None) and max(shrink or (0, 0)) > 1:
            image_flag = cv2.INTER_AREA
        if image_flag in NEAREST:
            return like_nearest
        if shrink == (1.0, 1.0):
            return like_nearest  # cut out, no more
        if shrink and (image_flag == cv2.INTER_AREA or min(shrink) >= 1):
            return self._decided(bits, lambda plane: self._moved(plane, params, cv2.INTER_AREA))
        soften = _softener(shrink, params.get("matrix"))
        return self._decided(bits, lambda plane: self._moved(soften(plane), params, cv2.INTER_LINEAR))

    def _moved(self, plane: Any, params: dict[str, Any], flag: int) -> Any:
        kept = self._transform.mask_interpolation
        self._transform.mask_interpolation = flag
        try:
            return self._transform.apply_to_mask(plane, **params)
        finally:
            self._transform.mask_interpolation = kept

    def _shrink(
        self, old: tuple[int, ...], new: tuple[int, ...], params: dict[str, Any]
    ) -> tuple[float, float] | None:
        """Return the old pixels in a new one along (rows, columns); None for a transform that does not resize."""
        if "crop_coords" in params:
            left, top, right, bottom = params["crop_coords"]
            old = (bottom - top, right - left)
        elif "crop_params" in params:
            old = params["result_shape"]
        elif not hasattr(self._transform, "area_for_downscale"):
            return None
        return old[0] / new[0], old[1] / new[1]

    def _decided(self, bits: Bits, move: Callable[[Plane], Plane]) -> Bits:
        """Move the coverage of each label and decide; see the module."""
        labels = _labels(bits)
        planes = [move((bits == label) * np.uint8(FULL)) for label in labels]
        if not planes:
            return np.zeros(move(np.zeros(bits.shape, np.uint8)).shape, bits.dtype)
        board = _chessboard(planes[0].shape)
        if len(labels) == 1:
            return (planes[0] + board > HALF) * bits.dtype.type(labels[0])
        winner, most = _winner(planes, labels, board, bits.dtype)
        if self._exclusive:
            return winner
        if all(label & (label - 1) == 0 for label in labels):  # no channels overlap
            return winner * (most >= HALF)
        return _by_channel(planes, labels, winner)


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
        bit = 1 << channel
        covered = sum((plane.astype(np.int32) for plane, label in zip(planes, labels, strict=True) if label & bit), 0)
        on = (2 * covered > whole) | ((2 * covered == whole) & (winner & bit > 0))
        found |= on * winner.dtype.type(bit)
    return np.where(np.isin(found, [0, *labels]), found, winner)


def _labels(bits: Bits) -> list[int]:
    """Return the values of a bit map beside 0, in order."""
    return [int(label) for label in np.flatnonzero(np.bincount(bits.ravel())) if label]


@functools.lru_cache(maxsize=64)
def _chessboard(shape: tuple[int, ...]) -> Plane:
    return (np.add.outer(np.arange(shape[0]), np.arange(shape[1])) & 1).astype(np.uint8)


def _softener(shrink: tuple[float, float] | None, matrix: NDArray[np.float64] | None) -> Callable[[Plane], Plane]:
    """Return what lets linear interpolation average over the area of a new pixel: a blur of the same variance.

    Args:
        shrink: old pixels in a new one along (rows, columns), if the size changes.
        matrix: from old to new (x, y), if there is one.
    """
    spread = np.zeros(2)  # the variance of the new pixel's area along old (x, y)
    if shrink is not None:
        spread = np.array(shrink[::-1]) ** 2 / 12
    elif matrix is not None and abs(np.linalg.det(matrix[:2, :2])) > 1e-6:
        spread = (np.linalg.inv(matrix[:2, :2]) ** 2).sum(axis=1) / 12
    x, y = (_kernel(variance - TENT) for variance in spread)
    if len(x) == len(y) == 1:
        return lambda plane: plane
    return lambda plane: cv2.sepFilter2D(plane, -1, x, y, borderType=cv2.BORDER_REPLICATE)


def _kernel(variance: float) -> NDArray[np.float64]:
    """Return a box with lower ends: symmetric weights of a variance, in square pixels; [1] for hardly any."""
    if variance < TENT / 10:
        return np.ones(1)
    reach = 1
    while variance > reach * (reach + 1) / 3 and reach < 32:
        reach += 1
    inner = np.arange(1 - reach, reach)
    end = (variance * len(inner) - (inner**2).sum()) / (2 * (reach**2 - variance))
    weights = np.array([min(end, 1.0), *np.ones(len(inner)), min(end, 1.0)])
    return weights / weights.sum()
