"""Volumes of masks in ml, which describe: no value is better than another."""

from __future__ import annotations

import math

from segkit.components.metrics.counts import Counts, counts
from segkit.components.metrics.slot import metrics
from segkit.types import Mask, Spacing


def _voxel_ml(spacing_mm: Spacing) -> float:
    """Return the volume of a voxel in ml (1000 mm3), NaN for an image and without spacing."""
    return math.prod(spacing_mm) / 1000 if spacing_mm is not None and len(spacing_mm) == 3 else math.nan


def _volume(found: Counts, spacing_mm: Spacing) -> float:
    return found.predicted * _voxel_ml(spacing_mm)


def _difference(found: Counts, spacing_mm: Spacing) -> float:
    return (found.predicted - found.true) * _voxel_ml(spacing_mm)


@metrics.register("volume_ml", descriptive=True, unit="ml", of_counts=_volume)
def volume_ml(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """Volume of the predicted mask, in ml (1000 mm3).

    It describes, so that no value is better than another. An empty prediction has a volume of 0, also on empty truth.
    Undefined (NaN) for images, and for volumes without spacing.

    Args:
        prediction: (D, H, W) bool.
        truth: not used.
        spacing_mm: (slice, row, column) distance between voxel centres, or None.
    """
    return _volume(counts(prediction, truth), spacing_mm if truth.ndim == 3 else None)


@metrics.register("volume_difference_ml", descriptive=True, unit="ml", of_counts=_difference)
def volume_difference_ml(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """Volume of the predicted mask minus that of the true one, in ml (1000 mm3).

    Negative where the prediction is too small: the mean over cases is the bias, and no value is better than another.
    Empty masks have a volume of 0, so that it is defined for them too, and 0 if both are empty. Undefined (NaN) for
    images, and for volumes without spacing.

    Arguments as for `volume_ml`.
    """
    return _difference(counts(prediction, truth), spacing_mm if truth.ndim == 3 else None)
