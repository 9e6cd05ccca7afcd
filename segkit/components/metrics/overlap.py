"""Overlaps: what share of pixels the predicted and the true mask have in common."""

from __future__ import annotations

import math

from segkit.components.metrics.counts import counts, hard
from segkit.components.metrics.slot import metrics
from segkit.types import Mask, Spacing


@metrics.register("dice", best=1.0)
def dice(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """Dice coefficient of the predicted mask; the headline.

    2 |P and T| / (|P| + |T|), 0 to 1 (Dice 1945). A missed structure and a false positive on empty truth are 0; both
    empty is undefined (NaN).

    Args:
        prediction: (H, W) or (D, H, W) bool.
        truth: bool, of the same shape.
        spacing_mm: not used.
    """
    predicted, true, both = counts(prediction, truth)
    return 2 * both / (predicted + true) if predicted + true else math.nan


@metrics.register("iou", best=1.0)
def iou(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """Intersection over union (Jaccard index) of the predicted mask.

    |P and T| / |P or T|, 0 to 1 (Jaccard 1912). A missed structure and a false positive on empty truth are 0; both
    empty is undefined (NaN).

    Arguments as for `dice`.
    """
    predicted, true, both = counts(prediction, truth)
    return both / (predicted + true - both) if predicted + true else math.nan


@metrics.register("precision", best=1.0)
def precision(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """Share of the predicted pixels that are true (positive predictive value).

    |P and T| / |P|, 0 to 1. A missed structure is 0, although the quotient is undefined: otherwise a model would gain
    by predicting nothing. Both empty is undefined (NaN).

    Arguments as for `dice`.
    """
    predicted, true, both = counts(prediction, truth)
    if predicted:
        return both / predicted
    return 0.0 if true else math.nan


@metrics.register("recall", best=1.0)
def recall(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """Share of the true pixels that are predicted (sensitivity).

    |P and T| / |T|, 0 to 1. A false positive on empty truth is 0, although the quotient is undefined: one rule for
    all overlaps. Both empty is undefined (NaN).

    Arguments as for `dice`.
    """
    return precision(truth, hard(prediction), spacing_mm)  # the two masks trade places


@metrics.register("specificity", best=1.0)
def specificity(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """Share of the pixels outside the truth that are left out of the prediction (true negative rate).

    |not P and not T| / |not T|, 0 to 1. It is defined for empty masks too, and 1 wherever nothing is predicted: read it
    beside `recall`. Since it counts the background, a larger image around the same masks raises it. Undefined (NaN)
    where the truth fills the image.

    Arguments as for `dice`.
    """
    predicted, true, both = counts(prediction, truth)
    outside = truth.size - true
    return (outside - (predicted - both)) / outside if outside else math.nan
