"""Metrics: one number per case and channel, from the predicted and the true mask at native resolution.

The predicted mask holds the probabilities of one half or more, or the likeliest of exclusive classes. A metric of the
probabilities themselves is registered with `uses="probability"` and gets them, float32.

One rule for empty masks holds for every metric but `soft_dice`: a structure neither present nor predicted is undefined
(NaN; counted, never averaged), and a missed structure or a false positive on empty truth gets the worst value. So the
mean never improves because something was missed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from segkit.registry.registry import Registry
from segkit.types import Array, Mask, Positive, Probability, Spacing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

F = TypeVar("F", bound=Callable[..., Any])


metrics = Registry(
    "metric",
    "metrics",
    home=__name__,
    handed=("prediction", "truth", "spacing_mm"),
    called=True,
    traits={"final_only": bool, "lower_is_better": bool, "uses": ("mask", "probability"), "best": float},
)


def lower_is_better(metric: F) -> F:
    """Mark a metric, as plugins of segkit 0.1 do; `register("name", lower_is_better=True)` is the same."""
    metric.lower_is_better = True  # type: ignore[attr-defined]
    return metric


def direction(name: str) -> int | None:
    """Return 1 if larger values of the named metric are better, -1 if smaller ones are, None for an unknown name."""
    if name not in metrics:
        return None
    entry = metrics[name]
    return -1 if entry.traits["lower_is_better"] or getattr(entry.factory, "lower_is_better", False) else 1


def best_value(name: str) -> float | None:
    """Return the value of the named metric for a structure that is correctly left empty, None if it declares none.

    A study gives it to variants that leave such a case empty, so that they beat those that mark something there.
    """
    return metrics[name].traits["best"] if name in metrics else None


def as_number(value: Any) -> float:
    """Return a metric's result as a float.

    Raises:
        ValueError: it is not a number of Python, numpy or torch; the message says what it is.
    """
    try:
        plain = value.item() if hasattr(value, "item") else value
        if not isinstance(plain, str | bytes | bytearray):
            return float(plain)
    except (TypeError, ValueError, RuntimeError):
        pass
    if value is None:
        raise ValueError("must return a number, got None: is a `return` missing?")
    shape = f" of shape {tuple(value.shape)}" if getattr(value, "shape", ()) else ""
    raise ValueError(f"must return a number, got {type(value).__name__}{shape}: use `float(...)`.")


def hard(prediction: Array) -> Mask:
    """Return the predicted mask: as it is, or where independent probabilities are 0.5 or more."""
    found: Mask = prediction if prediction.dtype == bool else prediction >= 0.5  # type: ignore
    return found


def _counts(prediction: Mask, truth: Mask) -> tuple[int, int, int]:
    """Return the numbers of pixels predicted, true, and both."""
    import numpy as np

    mask = hard(prediction)
    return int(np.count_nonzero(mask)), int(np.count_nonzero(truth)), int(np.count_nonzero(mask & truth))


@metrics.register("dice", best=1.0)
def dice(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """Dice coefficient of the predicted mask; the headline.

    2 |P and T| / (|P| + |T|), 0 to 1 (Dice 1945). A missed structure and a false positive on empty truth are 0; both
    empty is undefined (NaN).

    Args:
        prediction: (H, W) bool.
        truth: (H, W) bool.
        spacing_mm: not used.
    """
    predicted, true, both = _counts(prediction, truth)
    return 2 * both / (predicted + true) if predicted + true else math.nan


@metrics.register("soft_dice", uses="probability", best=1.0)
def soft_dice(prediction: Probability, truth: Mask, spacing_mm: Spacing, *, epsilon: Positive = 1.0) -> float:
    """Dice of the probabilities themselves, as the first study reported it.

    2 (sum(p t) + e / 2) / (sum(p) + sum(t) + e), 0 to 1 (Milletari et al. 2016, with unsquared sums and `epsilon`). It
    is defined for every case: with nothing predicted on empty truth it is close to 1, which flatters many empty masks.

    Args:
        prediction: (H, W) probability, float32.
        truth: (H, W) bool.
        spacing_mm: not used.
        epsilon: keeps the quotient finite, in pixels.
    """
    import numpy as np

    overlap = float(np.sum(prediction, where=truth, dtype=np.float64))
    total = float(np.sum(prediction, dtype=np.float64)) + int(np.count_nonzero(truth))
    return 2 * (overlap + epsilon / 2) / (total + epsilon)


@metrics.register("iou", best=1.0)
def iou(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """Intersection over union (Jaccard index) of the predicted mask.

    |P and T| / |P or T|, 0 to 1 (Jaccard 1912). A missed structure and a false positive on empty truth are 0; both
    empty is undefined (NaN).

    Arguments as for `dice`.
    """
    predicted, true, both = _counts(prediction, truth)
    return both / (predicted + true - both) if predicted + true else math.nan


@metrics.register("precision", best=1.0)
def precision(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """Share of the predicted pixels that are true (positive predictive value).

    |P and T| / |P|, 0 to 1. A missed structure is 0, although the quotient is undefined: otherwise a model would gain
    by predicting nothing. Both empty is undefined (NaN).

    Arguments as for `dice`.
    """
    predicted, true, both = _counts(prediction, truth)
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


def _edge(mask: Mask, spacing: tuple[float, float]) -> Floats:
    """Return the (N, 2) positions of the mask's edge pixels: those with a 4-neighbour outside the mask or the image."""
    import numpy as np

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    inner = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    around = inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    points: Floats = (np.argwhere(inner[1:-1, 1:-1] & ~around) + np.array([top, left])) * np.array(spacing)
    return points


def _outline_distance(
    prediction: Mask, truth: Mask, spacing_mm: Spacing, reduce: Callable[[Floats, Floats], float]
) -> float:
    """Reduce the distances from each edge pixel of one mask to the nearest of the other, both ways, to one number.

    If one mask is empty, the distance is the image's diagonal; if both are, NaN.
    """
    from scipy.spatial import cKDTree

    mask, spacing = hard(prediction), spacing_mm or (1.0, 1.0)
    if not mask.any() or not truth.any():
        diagonal = math.hypot(truth.shape[0] * spacing[0], truth.shape[1] * spacing[1])
        return diagonal if mask.any() or truth.any() else math.nan
    found, true = _edge(mask, spacing), _edge(truth, spacing)
    return float(reduce(cKDTree(true).query(found)[0], cKDTree(found).query(true)[0]))


@metrics.register("hausdorff", lower_is_better=True, best=0.0)
def hausdorff(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """Hausdorff distance between the outlines, in mm (in pixels where the data have no spacing).

    The largest distance from an edge pixel of one mask to the nearest edge pixel of the other, between pixel centres
    (Huttenlocher et al. 1993, eq. 1). A missed structure and a false positive on empty truth count as the image's
    diagonal; both empty is undefined (NaN).

    Args:
        prediction: (H, W) bool.
        truth: (H, W) bool.
        spacing_mm: (row, column) distance between pixel centres, or None.
    """
    return _outline_distance(prediction, truth, spacing_mm, lambda *ways: max(way.max() for way in ways))


@metrics.register("hd95", lower_is_better=True, best=0.0)
def hd95(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """95th percentile Hausdorff distance, in mm (in pixels where the data have no spacing).

    The larger of the two directed 95th percentiles of the distances between the outlines (not the percentile of both
    directions pooled, which is smaller), linearly interpolated. Empty masks and arguments as for `hausdorff`.
    """
    import numpy as np

    return _outline_distance(prediction, truth, spacing_mm, lambda *ways: max(np.percentile(way, 95) for way in ways))


@metrics.register("assd", lower_is_better=True, best=0.0)
def assd(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """Average symmetric surface distance, in mm (in pixels where the data have no spacing).

    The mean over the edge pixels of both masks of the distance to the other outline (Heimann et al. 2009, IEEE TMI 28).
    Empty masks and arguments as for `hausdorff`.
    """
    return _outline_distance(prediction, truth, spacing_mm, lambda a, b: (a.sum() + b.sum()) / (a.size + b.size))
