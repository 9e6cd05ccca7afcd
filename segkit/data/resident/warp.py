"""Moving pixels on a device: each sample's chain of geometric transforms becomes one sampling of its slice.

Images are interpolated linearly, or take the nearest pixel if a transform says so. Masks are resampled as on the CPU
(`segkit.data.resampling`): by coverage averaged over the area of a new pixel, or by nearest neighbour where a map only
shifts, turns or mirrors.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segkit.components.device_forms.form import Size
from segkit.data.coverage import is_rigid, is_slight, softening


class Source(NamedTuple):
    """Slices one after another on a device.

    Attributes:
        images: (P, I) uint8 or float32, the pixels of all.
        bits: (P,) uint8 or int32, their bit maps.
    """

    images: Tensor
    bits: Tensor


@dataclass(frozen=True)
class Stage:
    """A geometric transform of a recipe, as it was drawn for each sample of a batch.

    Attributes:
        matrices: (N, 3, 3), from (x, y, 1) of the result to that of what is transformed.
        sizes: (N, 2), rows and columns of what is transformed.
        border: how that is continued beyond its border, as in `BORDERS`; "" if no result shows it.
        fill: the level beyond a constant border.
        nearest: (N,), whether the nearest pixel is taken.
    """

    matrices: NDArray[np.float64]
    sizes: NDArray[np.int64]
    border: str
    fill: float
    nearest: NDArray[np.bool_]


class Grid(NamedTuple):
    """Slices in a source, (N, 1, 1) int64: the place of each one's first pixel, rows and columns."""

    begins: Tensor
    rows: Tensor
    columns: Tensor


class Places(NamedTuple):
    """Where the pixels of a result lie in their slices.

    Attributes:
        x, y: (N, H, W) float32, within the slice.
        inside: (N, H, W), how much of the pixel lies within all borders that are filled; None for all of it.
        filled: (N, H, W), the level that comes from beyond them.
    """

    x: Tensor
    y: Tensor
    inside: Tensor | None
    filled: Tensor | None


def joined(stages: Sequence[Stage]) -> list[Stage]:
    """Return stages, in their order, of which those without a border are one with the one before: fewer operations."""
    found: list[Stage] = []
    for stage in stages:
        if found and not stage.border:
            before = found[-1]
            matrices = before.matrices @ stage.matrices
            found[-1] = Stage(matrices, before.sizes, before.border, before.fill, before.nearest | stage.nearest)
        else:
            found.append(stage)
    return found


def places(stages: Sequence[Stage], size: Size, put: Callable[[Any], Tensor]) -> Places:
    """Return where the pixels of a result of some size lie in what the first stage transforms.

    Args:
        stages: in order.
        size: of the result.
        put: moves an array to the device.
    """
    inside = filled = None
    rows, columns = (put(np.arange(side, dtype=np.float32)) for side in size)
    y, x = rows[None, :, None], columns[None, None, :]
    for stage in reversed(stages):
        maps = put(stage.matrices[:, :2].astype(np.float32))[..., None, None]
        x, y = (maps[:, at, 0] * x + maps[:, at, 1] * y + maps[:, at, 2] for at in (0, 1))
        if stage.nearest.any():
            whole = put(stage.nearest)[:, None, None]
            x, y = torch.where(whole, x.round(), x), torch.where(whole, y.round(), y)
        high = put(stage.sizes.astype(np.float32) - 1)[..., None, None]
        if stage.border == "constant":
            part = _within(x, high[:, 1]) * _within(y, high[:, 0])
            if stage.fill:
                beyond = stage.fill * (1 - part)
                beyond = beyond if inside is None else inside * beyond
                filled = beyond if filled is None else filled + beyond
            inside = part if inside is None else inside * part
        else:
            x, y = _folded(x, high[:, 1], stage.border), _folded(y, high[:, 0], stage.border)
        x, y = x.clamp_min(0).minimum(high[:, 1]), y.clamp_min(0).minimum(high[:, 0])
    return Places(x, y, inside, filled)


def _within(place: Tensor, high: Tensor) -> Tensor:
    """Return the share of a linear interpolation that lies from 0 to `high`."""
    return (place + 1).minimum(high + 1 - place).clamp(0, 1)


def _folded(place: Tensor, high: Tensor, border: str) -> Tensor:
    """Return places beyond the border where the image is continued from."""
    if border == "reflect_101":
        return high - (high - place.remainder((2 * high).clamp_min(1))).abs()
    if border == "reflect":
        side = high + 1
        return side - (side - (place + 0.5).remainder(2 * side)).abs() - 0.5
    return place


def takes_pixels(stages: Sequence[Stage]) -> bool:
    """Return whether all samples of a batch take pixels as they are, since their maps lead from pixel to pixel."""
    return all(bool(stage.nearest.all()) or np.array_equal(stage.matrices, stage.matrices.round()) for stage in stages)


def sample_images(source: Source, at: Places, grid: Grid, *, whole: bool) -> Tensor:
    """Return images (N, H, W, I) float32, interpolated linearly; without that if places are whole pixels."""
    begins, rows, columns = grid
    left, top = at.x.floor(), at.y.floor()
    by_x, by_y = (at.x - left)[..., None], (at.y - top)[..., None]
    left, top = left.long(), top.long()
    above = begins + top * columns
    if whole:
        found = source.images[above + left].float()
    else:
        right, below = (left + 1).minimum(columns - 1), begins + (top + 1).minimum(rows - 1) * columns
        high, low = (
            torch.lerp(source.images[line + left].float(), source.images[line + right].float(), by_x)
            for line in (above, below)
        )
        found = torch.lerp(high, low, by_y)
    if at.inside is not None:
        found = found * at.inside[..., None]
    return found if at.filled is None else found + at.filled[..., None]


def weights_of(stages: Sequence[Stage]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return how coverage is averaged for the samples of a batch that do not take the nearest pixel.

    Returns:
        weights (M, 2, 2 R + 1) of pixels around the one that is sampled, along x and y; the places of these samples.
    """
    nearest = functools.reduce(np.logical_or, [stage.nearest for stage in stages])
    matrices = stages[0].matrices
    for stage in stages[1:]:
        matrices = matrices @ stage.matrices
    kernels: dict[int, Any] = {}
    for place, (matrix, inverse) in enumerate(zip(matrices, np.linalg.inv(matrices), strict=True)):
        forward = tuple(inverse[:2].ravel().tolist())
        if not nearest[place] and (not is_rigid(forward) or is_slight(forward)):
            kernels[place] = _blocks(matrix) or softening(forward)
    reach = max((len(kernel) for pair in kernels.values() for kernel in pair), default=0) // 2
    weights = np.zeros((len(kernels), 2, 2 * reach + 1), np.float32)
    for row, pair in enumerate(kernels.values()):
        for axis, kernel in enumerate(pair):
            own = len(kernel) // 2
            weights[row, axis, reach - own : reach + own + 1] = kernel
    return weights, np.array(list(kernels), np.int64)


def _blocks(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the weights along x and y with which linear interpolation averages blocks; None where none are shrunk."""
    found = []
    for scale, other, shift in (matrix[0], matrix[1][[1, 0, 2]]):
        side = abs(scale)
        if other or side != round(side) or (shift - (side - 1) / 2) % 1:
            return None
        kernel = np.zeros(int(side) - 1 + int(side) % 2)  # of an even side, every other pixel, since two are averaged
        kernel[:: 2 - int(side) % 2] = 1
        found.append(kernel / kernel.sum())
    return (found[0], found[1]) if max(map(len, found)) > 1 or matrix[0, 0] == 2 or matrix[1, 1] == 2 else None


def sample_coverage(
    source: Source, labels: Sequence[int], at: Places, grid: Grid, weights: Tensor, averaged: Tensor
) -> list[Tensor]:
    """Return how much of each pixel each label covers, (N, H, W) from 0 to 1.

    Args:
        labels: the values of bit maps that count.
        weights, averaged: of `weights_of`, on the device.
    """
    if len(averaged) == len(at.x):
        found = _average(source, labels, at.x, at.y, grid, weights)
    else:
        begins, rows, columns = grid
        bits = source.bits[begins + _nearest(at.y, rows) * columns + _nearest(at.x, columns)]
        found = [(bits == label).float() for label in labels]
        if len(averaged):
            some = Grid(*(each[averaged] for each in grid))
            parts = _average(source, labels, at.x[averaged], at.y[averaged], some, weights)
            found = [plane.index_copy_(0, averaged, part) for plane, part in zip(found, parts, strict=True)]
    return found if at.inside is None else [plane * at.inside for plane in found]


def _nearest(place: Tensor, side: Tensor) -> Tensor:
    """Return the nearest pixel to each place, of two the next one."""
    first = place.floor()
    return (first + (place - first >= 0.5)).long().minimum(side - 1)


def _average(source: Source, labels: Sequence[int], x: Tensor, y: Tensor, grid: Grid, weights: Tensor) -> list[Tensor]:
    """Return the coverage of labels around places, averaged with weights."""
    begins, rows, columns = grid
    across, down = _taps(x, columns, weights[:, 0]), _taps(y, rows, weights[:, 1])
    lines = [(begins + row * columns, share) for row, share in down]
    found = [torch.zeros_like(x) for _ in labels]
    for (line, row_share), (column, share) in itertools.product(lines, across):
        bits, both = source.bits[line + column], row_share * share
        for plane, label in zip(found, labels, strict=True):
            plane.addcmul_(bits == label, both)
    return found


def _taps(place: Tensor, side: Tensor, weights: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return pixels and their shares, from `reach` before each place to `reach` after the next one."""
    first, reach = place.floor(), weights.shape[1] // 2
    padded, part, first = torch.nn.functional.pad(weights, (1, 1))[..., None, None], place - first, first.long()
    return [
        ((first + (at - reach)).clamp_min(0).minimum(side - 1), torch.lerp(padded[:, at + 1], padded[:, at], part))
        for at in range(weights.shape[1] + 1)
    ]
