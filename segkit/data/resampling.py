"""Resampling of masks: by area, with the geometry of their image.

Nearest neighbour moves masks against their image where both are scaled, by up to half a pixel, and loses thin
structures. Here each label of a bit map (a combination of channels) becomes a plane of coverage, which is averaged over
the area of the new pixel where it shrinks (over blocks of pixels for whole factors, else by linear interpolation after
a blur that together vary as that area does), and interpolated linearly where it grows. What a new pixel holds is then
decided once (`segkit.data.coverage`).

Distortions by maps, and rotations by so little that whole structures lie at one fraction of a pixel, interpolate
slightly smoothed coverage; other rotations and perspectives stay nearest neighbour, which rounds to all sides alike.
Where the image itself is sampled by nearest neighbour, masks take the very pixels that the image takes.
"""

from __future__ import annotations

import abc
import functools
import math
from typing import Any

import cv2
import numpy as np

from segkit.data.coverage import FULL, Bits, Matrix, Plane, decided, labels_in, slight, smoothed, softener

NEAREST = (cv2.INTER_NEAREST, cv2.INTER_NEAREST_EXACT)


def follow_images(transform: Any, exclusive: bool) -> None:
    """Let a transform, and those inside a composition, resample masks by area, in place; see the module.

    One that does not scale stays as it is, and so does one of a plugin that has its own `apply_to_mask`.

    Args:
        transform: of Albumentations.
        exclusive: whether channels are exclusive classes.
    """
    import albumentations

    for inner in getattr(transform, "transforms", ()):
        follow_images(inner, exclusive)
    follower = next((by for kinds, by in _followers() if isinstance(transform, kinds)), None)
    if follower is None:
        return
    is_dual = isinstance(transform, albumentations.DualTransform)
    own = is_dual and not type(transform).apply_to_mask.__module__.startswith("albumentations.")
    fills = getattr(transform, "fill_mask", None) not in (0, None)  # with a label of its own; only code can say so
    if not own and not fills:
        transform._key2func["mask"] = follower(transform, exclusive)  # is called with the mask and what was drawn


def displaces(transform: Any) -> bool:
    """Return whether a resizing, or a lowering of resolution, samples images by nearest neighbour."""
    pair = getattr(transform, "interpolation_pair", {"": getattr(transform, "interpolation", None)})
    return not set(pair.values()).isdisjoint(NEAREST)


class _ByArea(abc.ABC):
    """What a transform does to a bit map; called with what the transform drew."""

    def __init__(self, transform: Any, exclusive: bool) -> None:
        self._transform, self._exclusive = transform, exclusive

    @abc.abstractmethod
    def __call__(self, bits: Bits, **params: Any) -> Bits:
        """Return the bit map (H, W) that belongs to the transformed image."""

    def _own(self, bits: Any, params: dict[str, Any], **attributes: Any) -> Any:
        """Return what Albumentations makes of a mask, with some of the transform's attributes changed for the call."""
        kept = {name: getattr(self._transform, name) for name in attributes}
        vars(self._transform).update(attributes)
        try:
            return self._transform.apply_to_mask(bits, **params)
        finally:
            vars(self._transform).update(kept)

    def _linear(self, plane: Plane, params: dict[str, Any]) -> Plane:
        """Return what Albumentations makes of a plane of coverage."""
        return self._own(plane, params, mask_interpolation=cv2.INTER_LINEAR)  # type: ignore[no-any-return]

    def _mapped(self, bits: Bits, matrix: Matrix, size: tuple[int, ...], border: int) -> Bits:
        """Map the part that holds anything, into pictures of a size (rows, columns)."""
        found = np.zeros(size, bits.dtype)
        x, y, width, height = _box(bits)
        if not width:
            return found
        soft, reach = softener(matrix)
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
        found[low[1] : high[1], low[0] : high[0]] = decided(
            bits[top:bottom, left:right],
            lambda plane: cv2.warpAffine(soft(plane), part, window, flags=cv2.INTER_LINEAR, borderMode=border),  # type: ignore
            self._exclusive,
        )
        return found


class _Lowered(_ByArea):
    """Downscale: masks stay sharp, but go where the image goes."""

    def __call__(self, bits: Bits, **params: Any) -> Bits:
        """Return the moved bit map (H, W)."""
        if displaces(self._transform):
            return decided(
                bits, lambda plane: np.minimum(self._transform.apply(plane, **params), FULL), self._exclusive
            )
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
        if flag == cv2.INTER_AREA and min(shrink) < 1:
            x, y = x - _skew(bits.shape[1], size[1]), y - _skew(bits.shape[0], size[0])
        return self._mapped(bits, (a, b, x, c, d, y), size, cv2.BORDER_REPLICATE)

    def _averaged(self, bits: Bits, size: tuple[int, int], tall: int, wide: int) -> Bits:
        """Average over blocks of pixels."""
        found = np.zeros(size, bits.dtype)
        x, y, width, height = _box(bits)
        left, top, right, bottom = x // wide, y // tall, -(-(x + width) // wide), -(-(y + height) // tall)
        if width:
            found[top:bottom, left:right] = decided(
                bits[top * tall : bottom * tall, left * wide : right * wide],
                lambda plane: cv2.resize(plane, (right - left, bottom - top), interpolation=cv2.INTER_AREA),  # type: ignore
                self._exclusive,
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
        if flag in NEAREST or (turned and not slight(matrix)) or abs(a * d - b * c) < 1e-6:
            nearest = flag if flag in NEAREST else cv2.INTER_NEAREST
            return self._own(bits, params, mask_interpolation=nearest)  # type: ignore[no-any-return]
        size = tuple(int(np.round(side)) for side in params["output_shape"])
        if self._transform.border_mode == cv2.BORDER_CONSTANT:
            return self._mapped(bits, matrix, size, cv2.BORDER_CONSTANT)
        soft = softener(matrix)[0]  # what lies beyond the borders may be anywhere, so all is mapped
        return decided(bits, lambda plane: self._linear(soft(plane), params), self._exclusive)


class _Distorted(_ByArea):
    """Maps of coordinates that scale little, if at all."""

    def __call__(self, bits: Bits, **params: Any) -> Bits:
        """Return the moved bit map (H, W)."""
        flag = self._transform.interpolation
        if flag in NEAREST:
            return self._own(bits, params, mask_interpolation=flag)  # type: ignore[no-any-return]
        if self._transform.border_mode != cv2.BORDER_CONSTANT:
            return decided(bits, lambda plane: self._linear(smoothed(plane), params), self._exclusive)
        from_x, from_y = params["map_x"], params["map_y"]
        found = np.zeros(from_x.shape, bits.dtype)
        x, y, width, height = _box(bits)
        near = cv2.bitwise_and(cv2.inRange(from_x, x - 2, x + width + 1), cv2.inRange(from_y, y - 2, y + height + 1))
        left, top, wide, tall = cv2.boundingRect(near)
        if width and wide:
            window = np.s_[top : top + tall, left : left + wide]
            x, y, right, bottom = max(x - 2, 0), max(y - 2, 0), x + width + 2, y + height + 2
            maps = (from_x[window] - x).astype(np.float32), (from_y[window] - y).astype(np.float32)
            found[window] = decided(
                bits[y:bottom, x:right],
                lambda plane: cv2.remap(smoothed(plane), *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT),  # type: ignore
                self._exclusive,
            )
        return found


class _Rotated(_ByArea):
    """Rotations, which stay nearest neighbour but for the slightest."""

    def __call__(self, bits: Bits, **params: Any) -> Bits:
        """Return the moved bit map (H, W)."""
        flag = self._transform.interpolation
        matrix: Matrix = tuple(np.asarray(params["matrix"])[:2].ravel().tolist())
        if flag not in NEAREST and slight(matrix):
            if self._transform.border_mode == cv2.BORDER_CONSTANT and not self._transform.crop_border:
                return self._mapped(bits, matrix, bits.shape, cv2.BORDER_CONSTANT)
            return decided(bits, lambda plane: self._linear(smoothed(plane), params), self._exclusive)
        return self._own(bits, params, mask_interpolation=flag if flag in NEAREST else cv2.INTER_NEAREST)  # type: ignore


class _Grown(_ByArea):
    """Dilation and erosion: of each channel, not of the numbers that stand for their combinations."""

    def __call__(self, bits: Bits, **params: Any) -> Bits:
        """Return the bit map (H, W) of the grown or shrunken channels.

        Where they would meet in a combination that was not there, a pixel keeps its label, or takes the lowest that
        grows into it.
        """
        labels, kind = labels_in(bits), bits.dtype.type
        found, kept = np.zeros_like(bits), np.zeros_like(bits)
        for channel in range(max(labels, default=0).bit_length()):
            found |= self._transform.apply(((bits >> channel) & 1).astype(np.uint8), **params) * kind(1 << channel)
        new = ~np.isin(found, [0, *labels])
        if new.any():
            for label in reversed(labels):
                grown = self._transform.apply((bits == label).astype(np.uint8), **params) > 0
                kept[grown] = label
            found[new] = np.where(bits > 0, bits, kept)[new]
        return found


@functools.cache
def _followers() -> tuple[tuple[Any, type[_ByArea]], ...]:
    """Return which of Albumentations' transforms are followed, and how."""
    import albumentations as a

    scaling = (a.Resize, a.LongestMaxSize, a.SmallestMaxSize, a.RandomScale, a.RandomResizedCrop, a.RandomSizedCrop)
    distorting = (a.ElasticTransform, a.GridDistortion, a.OpticalDistortion, a.PiecewiseAffine, a.ThinPlateSpline)
    return (
        (a.Downscale, _Lowered),
        ((*scaling, a.CropAndPad), _Resized),
        (a.Affine, _Warped),
        (distorting, _Distorted),
        (a.Rotate, _Rotated),
        (a.Morphological, _Grown),
    )


def _box(bits: Bits) -> tuple[int, int, int, int]:
    """Return x, y, width and height of the part of a bit map that holds anything; zeros for an empty one."""
    return tuple(cv2.boundingRect(bits if bits.dtype == np.uint8 else (bits > 0).astype(np.uint8)))  # type: ignore


def _centred(shrink: list[float]) -> Matrix:
    """Return the matrix of a resizing, (x, y) of pixel centres, from old pixels in a new one along (rows, columns)."""
    tall, wide = shrink
    return 1 / wide, 0.0, (1 / wide - 1) / 2, 0.0, 1 / tall, (1 / tall - 1) / 2


@functools.lru_cache(maxsize=1024)
def _skew(old: int, new: int) -> float:
    """Return by how many new pixels OpenCV's INTER_AREA misplaces an axis where it, or the other one, grows."""
    sampled = cv2.resize(np.arange(old, dtype=np.float32)[None], (new, 2), interpolation=cv2.INTER_AREA)[0]
    wanted = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)
    return float(np.mean(sampled - wanted)) * new / old
