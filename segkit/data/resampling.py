"""Resampling of masks: by area, with the geometry of their image.

Nearest-neighbour scaling moves masks against their image by up to half a pixel, and loses thin structures. Here each
label of a bit map (a combination of channels) becomes a plane of coverage. Shrinking averages it over the area of the
new pixel: over blocks of pixels for whole factors, else by a blur and linear interpolation, which together have that
area's variance. Growing interpolates it linearly. The new labels are then decided once (`segkit.data.coverage`).

Distortions by maps, and rotations so slight that whole structures lie at one fraction of a pixel, interpolate slightly
smoothed coverage; other rotations and perspectives stay nearest neighbour, whose rounding has no direction. If the
image itself is sampled by nearest neighbour, masks take the same pixels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np

from segkit.data.coverage import (
    FULL,
    Bits,
    Matrix,
    Plane,
    is_rigid,
    is_slight,
    labels_in,
    relabelled,
    smoothed,
    softener,
    softening,
)

NEAREST = (cv2.INTER_NEAREST, cv2.INTER_NEAREST_EXACT)
Follower = Callable[..., Bits]
"""Takes a transform, whether channels are exclusive, a bit map (H, W) and drawn values; returns the new bit map."""


def follow_images(transform: Any, exclusive: bool) -> None:
    """Make a transform of Albumentations, and those inside a composition, resample masks by area, in place.

    Transforms that do not scale, and plugins' transforms with their own `apply_to_mask`, are left as they are.
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
        transform._key2func["mask"] = functools.partial(follower, transform, exclusive)


def displaces(transform: Any) -> bool:
    """Return whether a transform resizes images, or lowers their resolution, by nearest neighbour."""
    pair = getattr(transform, "interpolation_pair", {"": getattr(transform, "interpolation", None)})
    return not set(pair.values()).isdisjoint(NEAREST)


def _by_library(transform: Any, bits: Any, params: dict[str, Any], **attributes: Any) -> Any:
    """Return the mask transformed by Albumentations, with some attributes of the transform replaced for the call."""
    kept = {name: getattr(transform, name) for name in attributes}
    vars(transform).update(attributes)
    try:
        return transform.apply_to_mask(bits, **params)
    finally:
        vars(transform).update(kept)


def _linear(
    transform: Any, exclusive: bool, bits: Bits, params: dict[str, Any], soft: Callable[[Plane], Plane]
) -> Bits:
    """Move blurred coverage by Albumentations' linear interpolation."""
    linear = functools.partial(_by_library, transform, params=params, mask_interpolation=cv2.INTER_LINEAR)
    return relabelled(bits, lambda plane: linear(soft(plane)), exclusive)


class Window(NamedTuple):
    """The part of a bit map that is resampled, and of the result that it goes to: from `low` to `high`, (x, y)."""

    part: tuple[slice, slice]
    low: tuple[int, int]
    high: tuple[int, int]


def window(bits: Bits, matrix: Matrix, size: tuple[int, ...]) -> Window | None:
    """Return what of a bit map holds labels, and where that goes in a result; None if nowhere.

    Args:
        bits: (H, W).
        matrix: from old to new (x, y).
        size: of the result, (rows, columns).
    """
    x, y, width, height = box(bits)
    if not width:
        return None
    reach = max(map(len, softening(matrix))) // 2
    left, top = max(x - reach - 1, 0), max(y - reach - 1, 0)
    right, bottom = min(x + width + reach + 1, bits.shape[1]), min(y + height + reach + 1, bits.shape[0])
    a, b, c, d, e, f = matrix
    columns = [a * x + b * y + c for x in (left - 1, right) for y in (top - 1, bottom)]
    rows = [d * x + e * y + f for x in (left - 1, right) for y in (top - 1, bottom)]
    low = max(math.floor(min(columns)), 0), max(math.floor(min(rows)), 0)
    high = min(math.ceil(max(columns)) + 1, size[1]), min(math.ceil(max(rows)) + 1, size[0])
    if low[0] >= high[0] or low[1] >= high[1]:
        return None
    return Window((slice(top, bottom), slice(left, right)), low, high)


def _mapped(exclusive: bool, bits: Bits, matrix: Matrix, size: tuple[int, ...], border: int) -> Bits:
    """Map the part that holds labels, into a bit map of a size (rows, columns)."""
    found = np.zeros(size, bits.dtype)
    place = window(bits, matrix, size)
    if place is None:
        return found
    part, low, high = place
    left, top, (a, b, c, d, e, f), soft = part[1].start, part[0].start, matrix, softener(matrix)
    moved = np.array([[a, b, a * left + b * top + c - low[0]], [d, e, d * left + e * top + f - low[1]]])
    found[low[1] : high[1], low[0] : high[0]] = relabelled(
        bits[part],
        lambda plane: cv2.warpAffine(
            soft(plane), moved, (high[0] - low[0], high[1] - low[1]), flags=cv2.INTER_LINEAR, borderMode=border
        ),  # type: ignore
        exclusive,
    )
    return found


def _downscaled(transform: Any, exclusive: bool, bits: Bits, **params: Any) -> Bits:
    """Downscale: masks stay sharp, but shift with the image."""
    if displaces(transform):
        return relabelled(bits, lambda plane: np.minimum(transform.apply(plane, **params), FULL), exclusive)
    # The image shrinks by the factor, and grows again from a whole number of pixels: in all, it may scale a little.
    scale = params["scale"]
    shrink = [max(round(side * scale), 1) / (side * scale) for side in bits.shape]
    if shrink == [1, 1]:
        return bits
    return _mapped(exclusive, bits, centred(shrink), bits.shape, cv2.BORDER_REPLICATE)


def _resized(transform: Any, exclusive: bool, bits: Bits, **params: Any) -> Bits:
    """Resizing of the whole image or a part."""
    flag = transform.interpolation
    if "crop_params" in params:  # CropAndPad
        size = params["shape"][:2]
        bits = _by_library(transform, bits, params, keep_size=False)
        if not transform.keep_size:
            return bits
    elif "crop_coords" in params:
        left, top, right, bottom = params["crop_coords"]
        size, bits = tuple(transform.size), bits[top:bottom, left:right]
    else:
        size = _by_library(transform, bits, params, mask_interpolation=cv2.INTER_NEAREST).shape
    shrink = [old / new for old, new in zip(bits.shape, size, strict=True)]
    if shrink == [1, 1]:
        return bits
    if getattr(transform, "area_for_downscale", None) and max(shrink) > 1:
        flag = cv2.INTER_AREA
    if flag in NEAREST:
        return cv2.resize(bits, size[::-1], interpolation=flag)  # type: ignore[return-value]
    if all(float(side).is_integer() for side in shrink):
        return _averaged(exclusive, bits, size, int(shrink[0]), int(shrink[1]))
    a, b, x, c, d, y = centred(shrink)
    if flag == cv2.INTER_AREA and min(shrink) < 1:
        x, y = x - _skew(bits.shape[1], size[1]), y - _skew(bits.shape[0], size[0])
    return _mapped(exclusive, bits, (a, b, x, c, d, y), size, cv2.BORDER_REPLICATE)


def _averaged(exclusive: bool, bits: Bits, size: tuple[int, int], tall: int, wide: int) -> Bits:
    found = np.zeros(size, bits.dtype)
    x, y, width, height = box(bits)
    left, top, right, bottom = x // wide, y // tall, -(-(x + width) // wide), -(-(y + height) // tall)
    if width:
        found[top:bottom, left:right] = relabelled(
            bits[top * tall : bottom * tall, left * wide : right * wide],
            lambda plane: cv2.resize(plane, (right - left, bottom - top), interpolation=cv2.INTER_AREA),  # type: ignore
            exclusive,
        )
    return found


def _affine(transform: Any, exclusive: bool, bits: Bits, **params: Any) -> Bits:
    """Affine maps and rotations; those that do not scale stay nearest neighbour, except for slight ones."""
    matrix: Matrix = tuple(np.asarray(params["matrix"])[:2].ravel().tolist())
    a, b, _, c, d, _ = matrix
    is_sampled = is_rigid(matrix) and not is_slight(matrix)
    if transform.interpolation in NEAREST or is_sampled or abs(a * d - b * c) < 1e-6:
        return _nearest(transform, bits, params)
    if transform.border_mode == cv2.BORDER_CONSTANT and not getattr(transform, "crop_border", False):
        size = tuple(int(np.round(side)) for side in params.get("output_shape", bits.shape))
        return _mapped(exclusive, bits, matrix, size, cv2.BORDER_CONSTANT)
    # Beyond the borders, labels may be repeated anywhere, so everything is mapped.
    return _linear(transform, exclusive, bits, params, softener(matrix))


def _nearest(transform: Any, bits: Bits, params: dict[str, Any]) -> Bits:
    """Sample by nearest neighbour, in the same way as the image if it is so sampled."""
    flag = transform.interpolation if transform.interpolation in NEAREST else cv2.INTER_NEAREST
    return _by_library(transform, bits, params, mask_interpolation=flag)  # type: ignore[no-any-return]


def _distorted(transform: Any, exclusive: bool, bits: Bits, **params: Any) -> Bits:
    """Distortions by maps of coordinates, which scale little."""
    if transform.interpolation in NEAREST:
        return _nearest(transform, bits, params)
    if transform.border_mode != cv2.BORDER_CONSTANT:
        return _linear(transform, exclusive, bits, params, smoothed)
    from_x, from_y = params["map_x"], params["map_y"]
    found = np.zeros(from_x.shape, bits.dtype)
    x, y, width, height = box(bits)
    near = cv2.bitwise_and(cv2.inRange(from_x, x - 2, x + width + 1), cv2.inRange(from_y, y - 2, y + height + 1))
    left, top, wide, tall = cv2.boundingRect(near)
    if width and wide:
        window = np.s_[top : top + tall, left : left + wide]
        x, y, right, bottom = max(x - 2, 0), max(y - 2, 0), x + width + 2, y + height + 2
        maps = (from_x[window] - x).astype(np.float32), (from_y[window] - y).astype(np.float32)
        found[window] = relabelled(
            bits[y:bottom, x:right],
            lambda plane: cv2.remap(smoothed(plane), *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT),  # type: ignore
            exclusive,
        )
    return found


def _morphed(transform: Any, exclusive: bool, bits: Bits, **params: Any) -> Bits:
    """Dilation and erosion of each channel, not of the labels.

    Where that would make a new combination of channels, a pixel keeps its label or takes the lowest that grows there.
    """
    labels, kind = labels_in(bits), bits.dtype.type
    found, kept = np.zeros_like(bits), np.zeros_like(bits)
    for channel in range(max(labels, default=0).bit_length()):
        found |= transform.apply(((bits >> channel) & 1).astype(np.uint8), **params) * kind(1 << channel)
    new = ~np.isin(found, [0, *labels])
    if new.any():
        for label in reversed(labels):
            kept[transform.apply((bits == label).astype(np.uint8), **params) > 0] = label
        found[new] = np.where(bits > 0, bits, kept)[new]
    return found


@functools.cache
def _followers() -> tuple[tuple[Any, Follower], ...]:
    """Return which of Albumentations' transforms are replaced for masks, and by what."""
    import albumentations as a

    scaling = (a.Resize, a.LongestMaxSize, a.SmallestMaxSize, a.RandomScale, a.RandomResizedCrop, a.RandomSizedCrop)
    distorting = (a.ElasticTransform, a.GridDistortion, a.OpticalDistortion, a.PiecewiseAffine, a.ThinPlateSpline)
    return (
        (a.Downscale, _downscaled),
        ((*scaling, a.CropAndPad), _resized),
        ((a.Affine, a.Rotate), _affine),
        (distorting, _distorted),
        (a.Morphological, _morphed),
    )


def box(bits: Bits) -> tuple[int, int, int, int]:
    """Return x, y, width and height of the part of a bit map that holds labels; zeros for an empty one."""
    return tuple(cv2.boundingRect(bits if bits.dtype == np.uint8 else (bits > 0).astype(np.uint8)))  # type: ignore


def centred(shrink: list[float]) -> Matrix:
    """Return a resizing's matrix for pixel centres (x, y), given the old pixels per new one along (rows, columns)."""
    tall, wide = shrink
    return 1 / wide, 0.0, (1 / wide - 1) / 2, 0.0, 1 / tall, (1 / tall - 1) / 2


@functools.lru_cache(maxsize=1024)
def _skew(old: int, new: int) -> float:
    """Return by how many new pixels OpenCV's INTER_AREA shifts an axis if either of the two grows."""
    sampled = cv2.resize(np.arange(old, dtype=np.float32)[None], (new, 2), interpolation=cv2.INTER_AREA)[0]
    wanted = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)
    return float(np.mean(sampled - wanted)) * new / old
