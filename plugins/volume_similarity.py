"""A metric with its undefined case stated."""

from __future__ import annotations

import math

from segkit import metrics
from segkit.types import Mask, Spacing


@metrics.register("volume_similarity", best=1.0)
def volume_similarity(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """Volumetric similarity: 1 - | |P| - |T| | / (|P| + |T|), 0 to 1; where the masks lie does not matter.

    1 says that the areas agree, not that the masks overlap: read it beside Dice. A missed structure and a false
    positive on empty truth are 0; both empty is undefined (NaN), which is counted but never averaged.

    Args:
        prediction: (H, W) or (D, H, W) bool, P.
        truth: bool, of the same shape, T.
        spacing_mm: not used: the size of a pixel cancels.

    Source: Taha & Hanbury 2015 (Metrics for evaluating 3D medical image segmentation), volume based metrics.
    """
    predicted, true = int(prediction.sum()), int(truth.sum())
    return 1 - abs(predicted - true) / (predicted + true) if predicted + true else math.nan
