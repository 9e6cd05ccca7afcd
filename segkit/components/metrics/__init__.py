"""Metrics: one number per case and channel, from the predicted and the true mask at native resolution.

A case is an image, with masks (H, W), or a volume, with masks (D, H, W); every metric is computed on the whole case.

The predicted mask holds the probabilities of one half or more, or the likeliest of exclusive classes. A metric of the
probabilities themselves is registered with `uses="probability"` and gets them, float32.

One rule for empty masks holds for every metric but `soft_dice`, `brier` and `specificity`, which look at all pixels,
and the volumes, which describe a mask: a structure neither present nor predicted is undefined (NaN; counted, never
averaged), and a missed structure or a false positive on empty truth gets the worst value. So the mean never improves
because something was missed.
"""

from __future__ import annotations

from segkit.components.metrics.counts import Counts, counts, hard
from segkit.components.metrics.overlap import dice, iou, precision, recall, specificity
from segkit.components.metrics.probability import brier, soft_dice
from segkit.components.metrics.slot import as_number, best_value, direction, lower_is_better, metrics, unit
from segkit.components.metrics.surface import assd, hausdorff, hd95, masd, nsd
from segkit.components.metrics.volume import volume_difference_ml, volume_ml

__all__ = [
    "Counts",
    "as_number",
    "assd",
    "best_value",
    "brier",
    "counts",
    "dice",
    "direction",
    "hard",
    "hausdorff",
    "hd95",
    "iou",
    "lower_is_better",
    "masd",
    "metrics",
    "nsd",
    "precision",
    "recall",
    "soft_dice",
    "specificity",
    "unit",
    "volume_difference_ml",
    "volume_ml",
]
