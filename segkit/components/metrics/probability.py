"""Metrics of the probabilities themselves, before masks are decided."""

from __future__ import annotations

from segkit.components.metrics.slot import metrics
from segkit.types import Mask, Positive, Probability, Spacing


@metrics.register("soft_dice", uses="probability", best=1.0)
def soft_dice(prediction: Probability, truth: Mask, spacing_mm: Spacing, *, epsilon: Positive = 1.0) -> float:
    """Dice of the probabilities themselves, as the first study reported it.

    2 (sum(p t) + e / 2) / (sum(p) + sum(t) + e), 0 to 1 (Milletari et al. 2016, with unsquared sums and `epsilon`). It
    is defined for every case: with nothing predicted on empty truth it is close to 1, which flatters many empty masks.

    Args:
        prediction: (H, W) or (D, H, W) probability, float32.
        truth: bool, of the same shape.
        spacing_mm: not used.
        epsilon: keeps the quotient finite, in pixels.
    """
    import numpy as np

    overlap = float(np.sum(prediction, where=truth, dtype=np.float64))
    total = float(np.sum(prediction, dtype=np.float64)) + int(np.count_nonzero(truth))
    return 2 * (overlap + epsilon / 2) / (total + epsilon)


@metrics.register("brier", uses="probability", lower_is_better=True, best=0.0)
def brier(prediction: Probability, truth: Mask, spacing_mm: Spacing) -> float:
    """Brier score: how far the probabilities are from the truth, squared; it rewards calibrated ones.

    mean((p - t)^2) over all pixels of the image or volume, 0 (certain and right) to 1 (Brier 1950, of one event). It is
    defined for every case, also for empty masks. Since it counts the background, a larger image around the same
    structure lowers it.

    Args:
        prediction: (H, W) or (D, H, W) probability, float32.
        truth: bool, of the same shape.
        spacing_mm: not used.
    """
    import numpy as np

    return float(np.mean(np.square(prediction - truth.astype(np.float32)), dtype=np.float64))
