"""Pixel counts of masks, which overlaps and volumes are made of."""

from __future__ import annotations

from segkit.types import Array, Mask


def hard(prediction: Array) -> Mask:
    """Return the predicted mask: as it is, or where independent probabilities are 0.5 or more."""
    found: Mask = prediction if prediction.dtype == bool else prediction >= 0.5  # type: ignore
    return found


def counts(prediction: Mask, truth: Mask) -> tuple[int, int, int]:
    """Return the numbers of pixels predicted, true, and both."""
    import numpy as np

    mask = hard(prediction)
    return int(np.count_nonzero(mask)), int(np.count_nonzero(truth)), int(np.count_nonzero(mask & truth))
