"""Postprocess: the decided masks of a case become other masks of that case, e.g. without the parts that are too small.

A component takes the masks of all structures, (C, H, W) or of a volume (C, D, H, W) bool, the spacing and the names of
the structures, and returns masks of the same shape. A volume is one case: its parts and holes are those of the whole.

Two pixels are connected if they share an edge or a corner (8 neighbours in an image, 26 in a volume).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import MinLen

from segkit.errors import suggest
from segkit.registry.component import Component
from segkit.registry.faults import fault
from segkit.registry.registry import Registry
from segkit.types import Mask, Positive, Spacing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Names = Annotated[tuple[str, ...], MinLen(1)]

postprocessors = Registry(
    "postprocess", "postprocessors", home=__name__, handed=("masks", "spacing_mm", "names"), called=True
)


def applied(postprocess: Component, masks: Mask, spacing_mm: Spacing, names: Sequence[str]) -> Mask:
    """Return what a postprocess makes of the masks of a case, checked.

    Args:
        postprocess: of a recipe.
        masks: (C, H, W) or (C, D, H, W) bool. They are not changed.
        spacing_mm: (row, column) or (slice, row, column), or None.
        names: of the C structures.

    Raises:
        ComponentError: it fails, or returns something other than masks of that shape.
    """
    import numpy as np

    given = masks.view()
    given.flags.writeable = False  # one that writes to it fails, with its line
    found = postprocess(given, spacing_mm, tuple(names))
    if not isinstance(found, np.ndarray):
        hint = ": is a `return` missing?" if found is None else ""
        raise fault(postprocess, f"must return an array of masks, got {type(found).__name__}{hint}.")
    if found.shape != masks.shape or found.dtype != bool:
        got = f"{found.dtype} {found.shape}"
        raise fault(postprocess, f"must return masks like those that it is given, bool {masks.shape}, got {got}.")
    return found


@postprocessors.register("largest_part")
def largest_part(masks: Mask, spacing_mm: Spacing, names: tuple[str, ...], *, channels: Names | None = None) -> Mask:
    """Keep the largest connected part of each structure; of equal ones the first.

    Pixels that share an edge or a corner are connected: 8 neighbours in an image, 26 in a volume.

    Args:
        masks: (C, H, W) or (C, D, H, W) bool.
        spacing_mm: not used.
        names: of the C structures.
        channels: the structures that it applies to; all by default.
    """

    def largest(mask: Mask) -> Mask:
        parts, sizes = _parts(mask)
        return parts == sizes.argmax() + 1 if len(sizes) > 1 else mask

    return _each(masks, names, channels, largest)


@postprocessors.register("fill_holes")
def fill_holes(
    masks: Mask,
    spacing_mm: Spacing,
    names: tuple[str, ...],
    *,
    per_slice: bool = False,
    channels: Names | None = None,
) -> Mask:
    """Fill the holes of each structure: what cannot be reached from the border through edges (of voxels, faces).

    Where classes exclude each other, only background is filled: what is of another class stays it.

    Args:
        masks: (C, H, W) or (C, D, H, W) bool.
        spacing_mm: not used.
        names: of the C structures.
        per_slice: fill each slice of a volume by itself, so that a tunnel through slices is filled too.
        channels: the structures that it applies to; all by default.
    """
    import numpy as np
    from scipy import ndimage

    def fill(mask: Mask) -> Mask:
        if per_slice and mask.ndim == 3:
            return np.stack([ndimage.binary_fill_holes(plane) for plane in mask])
        return np.asarray(ndimage.binary_fill_holes(mask))

    return _each(masks, names, channels, fill)


@postprocessors.register("remove_small")
def remove_small(
    masks: Mask,
    spacing_mm: Spacing,
    names: tuple[str, ...],
    *,
    size: Positive,
    unit: Literal["pixels", "mm2", "ml"],
    channels: Names | None = None,
) -> Mask:
    """Remove the connected parts of each structure that are smaller than a size.

    Pixels that share an edge or a corner are connected: 8 neighbours in an image, 26 in a volume.

    Args:
        masks: (C, H, W) or (C, D, H, W) bool.
        spacing_mm: (row, column) or (slice, row, column); needed for mm2 and ml.
        names: of the C structures.
        size: the smallest that stays.
        unit: "pixels" (of a volume, voxels), "mm2" for images, or "ml" (1000 mm3) for volumes.
        channels: the structures that it applies to; all by default.

    Raises:
        ValueError: mm2 for a volume, ml for an image, or either for data without spacing.
    """
    import numpy as np

    smallest = size / _pixel(unit, masks.ndim - 1, spacing_mm) * (1 - 1e-9)  # a part of just this size stays

    def large(mask: Mask) -> Mask:
        parts, sizes = _parts(mask)
        return np.concatenate([[False], sizes >= smallest])[parts] if (sizes < smallest).any() else mask

    return _each(masks, names, channels, large)


def _pixel(unit: str, axes: int, spacing_mm: Spacing) -> float:
    """Return the size of a pixel or voxel in a unit."""
    if unit == "pixels":
        return 1.0
    own, kind = ("mm2", "images") if axes == 2 else ("ml", "volumes")
    if unit != own:
        raise ValueError(f'unit: the cases are {kind}, which have no size in {unit}: set "{own}" or "pixels".')
    if spacing_mm is None:
        raise ValueError(f'unit: the data state no spacing, so sizes in {unit} are not known: set "pixels".')
    return math.prod(spacing_mm) / (1 if axes == 2 else 1000)


def _parts(mask: Mask) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the number of each pixel's connected part, from 1, and the sizes of the parts."""
    import numpy as np
    from scipy import ndimage

    found, _ = ndimage.label(mask, np.ones((3,) * mask.ndim))
    return found, np.bincount(found.ravel())[1:]


def _each(masks: Mask, names: tuple[str, ...], channels: Names | None, change: Callable[[Mask], Mask]) -> Mask:
    """Return masks of which the chosen ones are changed, each within the smallest box that holds it."""
    import numpy as np
    from scipy import ndimage

    for name in channels or ():
        if name not in names:
            raise ValueError(f"channels: no structure is called '{name}'. {suggest(name, names)}")
    found: Mask = np.array(masks)
    for name, mask in zip(names, found, strict=True):
        if channels is None or name in channels:
            for box in ndimage.find_objects(mask.view(np.uint8)):
                mask[box] = change(mask[box])
    return found
