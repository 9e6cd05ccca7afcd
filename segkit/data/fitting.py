"""Fitting: which transforms of Albumentations take the images that the data and the intensity give.

No list says it reliably, so each transform is tried on a small image of that kind: it may fail or warn, change the type
or the number of inputs, clip values to 0..1, or work in 8 bits whatever it is given.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segkit.errors import counted
from segkit.registry.component import Component
from segkit.registry.faults import parts_of

SIDE = 64  # pixels of the images on which transforms are tried
SEEDS = 3
TRIED = (1, 2, 3, 4)  # numbers of inputs
Image = NDArray[np.uint8] | NDArray[np.float32]


@dataclass(frozen=True)
class Kind:
    """What transforms get: images (H, W) of one input, (H, W, I) of several.

    Attributes:
        inputs: how many an image has.
        dtype: "uint8" or "float32".
        bounded: of float32: whether all values are from 0 to 1, as with `bits = 32`; those of `zscore` are not.
    """

    inputs: int = 1
    dtype: Literal["uint8", "float32"] = "uint8"
    bounded: bool = True


GREY = Kind()


def unfit(components: Sequence[Component], kind: Kind, place: str = "transforms.train") -> list[str]:
    """Return a sentence for each transform that cannot take what it gets, with what to do; none if all can.

    Compositions are looked into. Transforms are built anew and draw from generators of their own. Those of plugins are
    not run, but where images have one input, those registered with `colour=True` are refused. What fails for another
    reason, e.g. a crop larger than the small image, is left to the data.

    Args:
        components: the transforms of a recipe.
        kind: of the images after the intensity.
        place: the components' path in the recipe.
    """
    parts = (part for component in components for part in parts_of(component) if "transforms" not in part.arguments)
    return list(dict.fromkeys(f"{place}: {part.name} {text}" for part in parts if (text := _flaw(part, kind))))


def example(kind: Kind) -> Image:
    """Return an image of many levels, (H, W) or (H, W, I); half of the values are below 0 if it is not bounded."""
    random, slopes = np.random.default_rng(0), 1 / (1 + 0.2 * np.arange(kind.inputs))
    ramp = np.add.outer(np.arange(SIDE), np.arange(SIDE))[..., None] * slopes
    levels = 50 + ramp + random.uniform(0, 30, ramp.shape)
    image = levels if kind.inputs > 1 else levels[..., 0]
    if kind.dtype == "uint8":
        return image.astype(np.uint8)
    return (image / 255 if kind.bounded else (image - 140) / 20).astype(np.float32)


def _flaw(component: Component, kind: Kind) -> str:
    """Return what keeps a transform from taking images of a kind, and what to do; "" if nothing does."""
    if _takes(component, kind):
        return ""
    eight = replace(kind, dtype="uint8")
    if _takes(component, eight):
        advice = 'set intensity = "percentile" (or window, minmax)'
        if _takes(component, replace(kind, dtype="float32", bounded=True)):
            return f"takes 8 bits, or values from 0 to 1, and gets others: {advice}; bits = 32 keeps their full depth."
        return f"takes 8-bit images, and gets float32: {advice}, of 8 bits."
    takes = [inputs for inputs in TRIED if _takes(component, replace(eight, inputs=inputs))]
    if not takes:
        return ""
    wanted = "several inputs" if takes == [2, 3, 4] else f"{' or '.join(map(str, takes))} inputs"
    return f"takes images of {wanted}, and gets those of {counted(kind.inputs, 'input')}: leave it out."


def _takes(component: Component, kind: Kind) -> bool:
    """Try a transform: it leaves the type, the inputs and the range of an image as they are."""
    if component.entry.traits["colour"] and kind.inputs == 1:
        return False
    if component.entry.foreign:
        return True
    transform, image = component(), example(kind)
    transform.p = 1.0
    for seed in range(SEEDS):
        transform.set_random_seed(seed)
        found = _tried(transform, image)
        if found is None or not _is_alike(found, image, kind):
            return False
    return True


def _tried(transform: Any, image: Image) -> Any:
    """Return the transformed image, None if that fails."""
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[20:40, 20:40] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "not applicable to grayscale" and the like
        try:
            return transform(image=image.copy(), mask=mask)["image"]
        except Exception:
            return None


def _is_alike(found: Any, image: Image, kind: Kind) -> bool:
    if found.dtype != image.dtype or found.shape[2:] != image.shape[2:] or not np.isfinite(found).all():
        return False
    if kind.dtype == "uint8" or found.min() == found.max():  # of a flat image nothing can be said
        return True
    levels = found * np.float32(255)
    return bool((np.abs(levels - levels.round()) > 1e-3).any()) and (kind.bounded or bool(found.min() < 0))
