"""Metrics: one number per case and channel, from the predicted and the true mask at native resolution.

A case is an image, with masks (H, W), or a volume, with masks (D, H, W); every metric is computed on the whole case.

The predicted mask holds the probabilities of one half or more, or the likeliest of exclusive classes. A metric of the
probabilities themselves is registered with `uses="probability"` and gets them, float32.

One rule for empty masks holds for every metric but `soft_dice` and the volumes, which describe a mask: a structure
neither present nor predicted is undefined (NaN; counted, never averaged), and a missed structure or a false positive on
empty truth gets the worst value. So the mean never improves because something was missed.
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
MANY = 200_000  # edge voxels, above which a distance map takes less time than a search tree


metrics = Registry(
    "metric",
    "metrics",
    home=__name__,
    handed=("prediction", "truth", "spacing_mm"),
    called=True,
    traits={
        "final_only": bool,
        "lower_is_better": bool,
        "descriptive": bool,
        "uses": ("mask", "probability"),
        "best": float,
        "unit": ("", "mm", "ml"),
    },
)


def lower_is_better(metric: F) -> F:
    """Mark a metric, as plugins of segkit 0.1 do; `register("name", lower_is_better=True)` is the same."""
    metric.lower_is_better = True  # type: ignore[attr-defined]
    return metric


def direction(name: str) -> int | None:
    """Return 1 if larger values of the named metric are better, -1 if smaller ones are.

    None if neither is (a descriptive metric), and for an unknown name.
    """
    if name not in metrics or metrics[name].traits["descriptive"]:
        return None
    entry = metrics[name]
    return -1 if entry.traits["lower_is_better"] or getattr(entry.factory, "lower_is_better", False) else 1


def best_value(name: str) -> float | None:
    """Return the value of the named metric for a structure that is correctly left empty, None if it declares none.

    A study gives it to variants that leave such a case empty, so that they beat those that mark something there.
    """
    return metrics[name].traits["best"] if name in metrics else None


def unit(name: str) -> str:
    """Return the unit of the named metric: "mm", "ml", or "" for a number without one and for an unknown name."""
    return str(metrics[name].traits["unit"]) if name in metrics else ""


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
        prediction: (H, W) or (D, H, W) bool.
        truth: bool, of the same shape.
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
        prediction: (H, W) or (D, H, W) probability, float32.
        truth: bool, of the same shape.
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


def _nearest(start: Mask, end: Mask, corner: list[int], spacing: tuple[float, ...]) -> Floats:
    """Return the exact distance from each pixel of one edge to the nearest of another; `corner` is that of both."""
    import numpy as np
    from scipy import ndimage
    from scipy.spatial import cKDTree

    if start.ndim > 2 and np.count_nonzero(start) > MANY:
        return np.asarray(ndimage.distance_transform_edt(~end, sampling=spacing)[start])
    here, there = ((np.argwhere(edge) + np.array(corner)) * np.array(spacing) for edge in (start, end))
    tree = cKDTree(there, compact_nodes=False, balanced_tree=False)  # twice as fast, for points on a grid
    return np.asarray(tree.query(here)[0])


def _surface_distance(
    prediction: Mask, truth: Mask, spacing_mm: Spacing, reduce: Callable[[Floats, Floats], float]
) -> float:
    """Reduce the distances from each edge pixel of one mask to the nearest of the other, both ways, to one number.

    An edge pixel has a neighbour, of 4 in an image and of 6 in a volume, outside the mask or the image. If one mask is
    empty, the distance is the diagonal of the image or volume; if both are, NaN.
    """
    import numpy as np
    from scipy import ndimage

    mask, spacing = hard(prediction), spacing_mm or (1.0,) * truth.ndim
    if not mask.any() or not truth.any():
        diagonal = math.hypot(*(size * mm for size, mm in zip(truth.shape, spacing, strict=True)))
        return diagonal if mask.any() or truth.any() else math.nan
    (box,) = ndimage.find_objects((mask | truth).view(np.uint8))  # the smallest that holds both
    found, true = (part[box] & ~ndimage.binary_erosion(part[box]) for part in (mask, truth))
    corner = [part.start for part in box]
    return float(reduce(_nearest(found, true, corner, spacing), _nearest(true, found, corner, spacing)))


@metrics.register("hausdorff", lower_is_better=True, best=0.0, unit="mm")
def hausdorff(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """Hausdorff distance between the outlines or surfaces, in mm (in pixels where the data have no spacing).

    The largest distance from an edge pixel of one mask to the nearest edge pixel of the other, between pixel centres
    (Huttenlocher et al. 1993, eq. 1). A missed structure and a false positive on empty truth count as the diagonal of
    the image or volume; both empty is undefined (NaN).

    Args:
        prediction: (H, W) or (D, H, W) bool.
        truth: bool, of the same shape.
        spacing_mm: distance between pixel centres along each axis, or None.
    """
    return _surface_distance(prediction, truth, spacing_mm, lambda *ways: max(way.max() for way in ways))


@metrics.register("hd95", lower_is_better=True, best=0.0, unit="mm")
def hd95(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """95th percentile Hausdorff distance, in mm (in pixels where the data have no spacing).

    The larger of the two directed 95th percentiles of the distances between the edges (not the percentile of both
    directions pooled, which is smaller), linearly interpolated. Empty masks and arguments as for `hausdorff`.
    """
    import numpy as np

    return _surface_distance(prediction, truth, spacing_mm, lambda *ways: max(np.percentile(way, 95) for way in ways))


@metrics.register("assd", lower_is_better=True, best=0.0, unit="mm")
def assd(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """Average symmetric surface distance, in mm (in pixels where the data have no spacing).

    The mean over the edge pixels of both masks of the distance to the other edge (Heimann et al. 2009, IEEE TMI 28).
    Empty masks and arguments as for `hausdorff`.
    """
    return _surface_distance(prediction, truth, spacing_mm, lambda a, b: (a.sum() + b.sum()) / (a.size + b.size))


def _voxel_ml(mask: Mask, spacing_mm: Spacing) -> float:
    """Return the volume of a voxel in ml (1000 mm3), NaN for an image and without spacing."""
    return math.prod(spacing_mm) / 1000 if spacing_mm is not None and mask.ndim == 3 else math.nan


@metrics.register("volume_ml", descriptive=True, unit="ml")
def volume_ml(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """Volume of the predicted mask, in ml (1000 mm3).

    It describes, so that no value is better than another. An empty prediction has a volume of 0, also on empty truth.
    Undefined (NaN) for images, and for volumes without spacing.

    Args:
        prediction: (D, H, W) bool.
        truth: not used.
        spacing_mm: (slice, row, column) distance between voxel centres, or None.
    """
    return _counts(prediction, truth)[0] * _voxel_ml(truth, spacing_mm)


@metrics.register("volume_difference_ml", descriptive=True, unit="ml")
def volume_difference_ml(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """Volume of the predicted mask minus that of the true one, in ml (1000 mm3).

    Negative where the prediction is too small: the mean over cases is the bias, and no value is better than another.
    Empty masks have a volume of 0, so that it is defined for them too, and 0 if both are empty. Undefined (NaN) for
    images, and for volumes without spacing.

    Arguments as for `volume_ml`.
    """
    predicted, true, _ = _counts(prediction, truth)
    return (predicted - true) * _voxel_ml(truth, spacing_mm)
