"""Overlaps: what share of pixels the predicted and the true mask have in common.

Each is a function of counts, which the masks of a case are asked for once, wherever these are.
"""

from __future__ import annotations

import math

from segkit.components.metrics.counts import Counts, counts
from segkit.components.metrics.slot import metrics
from segkit.types import Mask, Spacing


def _dice(found: Counts, spacing_mm: Spacing = None) -> float:
    return 2 * found.both / (found.predicted + found.true) if found.predicted + found.true else math.nan


@metrics.register("dice", best=1.0, of_counts=_dice)
def dice(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """Dice coefficient of the predicted mask; the headline.

    2 |P and T| / (|P| + |T|), 0 to 1 (Dice 1945). A missed structure and a false positive on empty truth are 0; both
    empty is undefined (NaN).

    Args:
        prediction: (H, W) or (D, H, W) bool.
        truth: bool, of the same shape.
        spacing_mm: not used.
    """
    return _dice(counts(prediction, truth))


def _iou(found: Counts, spacing_mm: Spacing = None) -> float:
    either = found.predicted + found.true - found.both
    return found.both / either if either else math.nan


@metrics.register("iou", best=1.0, of_counts=_iou)
def iou(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """Intersection over union (Jaccard index) of the predicted mask.

    |P and T| / |P or T|, 0 to 1 (Jaccard 1912). A missed structure and a false positive on empty truth are 0; both
    empty is undefined (NaN).

    Arguments as for `dice`.
    """
    return _iou(counts(prediction, truth))


def _precision(found: Counts, spacing_mm: Spacing = None) -> float:
    if found.predicted:
        return found.both / found.predicted
    return 0.0 if found.true else math.nan


@metrics.register("precision", best=1.0, of_counts=_precision)
def precision(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """Share of the predicted pixels that are true (positive predictive value).

    |P and T| / |P|, 0 to 1. A missed structure is 0, although the quotient is undefined: otherwise a model would gain
    by predicting nothing. Both empty is undefined (NaN).

    Arguments as for `dice`.
    """
    return _precision(counts(prediction, truth))


def _recall(found: Counts, spacing_mm: Spacing = None) -> float:
    return _precision(Counts(found.true, found.predicted, found.both, found.size))  # the two masks trade places


@metrics.register("recall", best=1.0, of_counts=_recall)
def recall(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """Share of the true pixels that are predicted (sensitivity).

    |P and T| / |T|, 0 to 1. A false positive on empty truth is 0, although the quotient is undefined: one rule for
    all overlaps. Both empty is undefined (NaN).

    Arguments as for `dice`.
    """
    return _recall(counts(prediction, truth))


def _specificity(found: Counts, spacing_mm: Spacing = None) -> float:
    outside = found.size - found.true
    return (outside - (found.predicted - found.both)) / outside if outside else math.nan


@metrics.register("specificity", best=1.0, of_counts=_specificity)
def specificity(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """Share of the pixels outside the truth that are left out of the prediction (true negative rate).

    |not P and not T| / |not T|, 0 to 1. It is defined for empty masks too, and 1 wherever nothing is predicted: read it
    beside `recall`. Since it counts the background, a larger image around the same masks raises it. Undefined (NaN)
    where the truth fills the image.

    Arguments as for `dice`.
    """
    return _specificity(counts(prediction, truth))
