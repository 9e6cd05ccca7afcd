"""Distances between the edges of masks: exact, Euclidean, between the centres of edge pixels, in mm."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from segkit.components.metrics.counts import hard
from segkit.components.metrics.slot import metrics
from segkit.types import Mask, Positive, Spacing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MANY = 200_000  # edge voxels, above which a distance map takes less time than a search tree


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
    prediction: Mask,
    truth: Mask,
    spacing_mm: Spacing,
    reduce: Callable[[Floats, Floats], float],
    missed: float | None = None,
) -> float:
    """Reduce the distances from each edge pixel of one mask to the nearest of the other, both ways, to one number.

    An edge pixel has a neighbour, of 4 in an image and of 6 in a volume, outside the mask or the image. If one mask is
    empty, the number is `missed`, by default the diagonal of the image or volume; if both are, NaN.
    """
    import numpy as np
    from scipy import ndimage

    mask, spacing = hard(prediction), spacing_mm or (1.0,) * truth.ndim
    if not mask.any() or not truth.any():
        diagonal = math.hypot(*(size * mm for size, mm in zip(truth.shape, spacing, strict=True)))
        worst = diagonal if missed is None else missed
        return worst if mask.any() or truth.any() else math.nan
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

    The mean over the edge pixels of both masks of the distance to the other edge (Heimann et al. 2009, IEEE TMI 28), so
    that the longer edge counts for more; `masd` counts both alike. Empty masks and arguments as for `hausdorff`.
    """
    return _surface_distance(prediction, truth, spacing_mm, lambda a, b: (a.sum() + b.sum()) / (a.size + b.size))


@metrics.register("masd", lower_is_better=True, best=0.0, unit="mm")
def masd(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """Mean average surface distance, in mm (in pixels where the data have no spacing).

    The mean of the two directed means: from the edge pixels of each mask to the other edge (Maier-Hein et al. 2024,
    Nature Methods 21, MASD). Both edges count alike, however long they are; `assd` pools their pixels. What medpy calls
    assd is this one. Empty masks and arguments as for `hausdorff`.
    """
    return _surface_distance(prediction, truth, spacing_mm, lambda a, b: (a.mean() + b.mean()) / 2)


@metrics.register("nsd", best=1.0)
def nsd(prediction: Mask, truth: Mask, spacing_mm: Spacing, *, tolerance_mm: Positive = 2.0) -> float:
    """Normalized surface Dice: share of both edges that lies within a tolerance of the other edge.

    (|edge P within the tolerance| + |edge T within the tolerance|) / (|edge P| + |edge T|), 0 to 1 (Nikolov et al.
    2018, arXiv:1809.04430). Edge pixels are counted, those of `hd95`, as MONAI does; the authors' own program weighs
    them by the surface that each stands for. A missed structure and a false positive on empty truth are 0; both empty
    is undefined (NaN).

    Args:
        prediction: (H, W) or (D, H, W) bool.
        truth: bool, of the same shape.
        spacing_mm: distance between pixel centres along each axis, or None.
        tolerance_mm: largest distance that counts as none, in mm (in pixels where the data have no spacing), e.g. how
            far two readers' outlines lie apart.
    """
    import numpy as np

    most = tolerance_mm * (1 + 1e-9)  # a distance of exactly the tolerance is within it, however it was rounded

    def share(*ways: Floats) -> float:
        return sum(np.count_nonzero(way <= most) for way in ways) / sum(way.size for way in ways)

    return _surface_distance(prediction, truth, spacing_mm, share, missed=0.0)
