"""Pixel counts of masks, which overlaps and volumes are made of."""

from __future__ import annotations

from typing import NamedTuple

from segkit.types import Array, Mask


class Counts(NamedTuple):
    """Numbers of pixels, or of voxels: predicted, true, both, and in all."""

    predicted: int
    true: int
    both: int
    size: int


def hard(prediction: Array) -> Mask:
    """Return the predicted mask: as it is, or where independent probabilities are 0.5 or more."""
    found: Mask = prediction if prediction.dtype == bool else prediction >= 0.5  # type: ignore
    return found


def counts(prediction: Mask, truth: Mask) -> Counts:
    """Return the counts of a predicted and a true mask."""
    import numpy as np

    mask = hard(prediction)
    return Counts(
        int(np.count_nonzero(mask)), int(np.count_nonzero(truth)), int(np.count_nonzero(mask & truth)), truth.size
    )
