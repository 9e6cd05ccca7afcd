"""Case and Dataset: what every reader gives back, checked once."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from segkit.datasets.reading import flaw_of_name
from segkit.errors import UserError
from segkit.types import Array

MOST_CHANNELS = 16


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One image with its masks.

    Attributes:
        name: unique in the dataset, e.g. "patient01/P01-0059"; it stands in tables and file names.
        patient: whose image it is; None where the data do not say.
        image: (H, W) uint8, uint16 or float32, one grey channel, as read.
        masks: (C, H, W) bool, one a channel of the dataset; they may overlap.
        spacing_mm: (row, column) distance between pixel centres; None where the data do not say.
    """

    name: str
    patient: str | None
    image: Array
    masks: Array
    spacing_mm: tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Cases with the same channels.

    Attributes:
        name: e.g. "rvsc".
        channels: what each mask shows, at most 16.
        cases: at least one.
        notes: what the user should know about the data, e.g. what was left out.

    Raises:
        UserError: a case breaks what `Case` says, or two share a name; the message names the case.
    """

    name: str
    channels: tuple[str, ...]
    cases: tuple[Case, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.cases:
            raise UserError(f"{self.name}: holds no cases.")
        if not 1 <= len(self.channels) <= MOST_CHANNELS:
            raise UserError(f"{self.name}: {len(self.channels)} channels; from 1 to {MOST_CHANNELS} are possible.")
        for what, names in (("channels", self.channels), ("cases", [case.name for case in self.cases])):
            name, count = Counter(names).most_common(1)[0]
            if count > 1:
                raise UserError(f"{self.name}: {count} {what} are called '{name}'. Names tell them apart.")
        for case in self.cases:
            _check(case, len(self.channels))


def _check(case: Case, channels: int) -> None:
    """Raise unless a case is what it should be."""
    import numpy as np

    for name in (case.name, case.patient or ""):
        flaw = flaw_of_name(name)
        if flaw:
            raise UserError(f"the name {name!a} of a case {flaw}. Rename it.")
    image, masks = case.image, case.masks
    if image.ndim != 2 or image.size == 0 or image.dtype not in (np.uint8, np.uint16, np.float32):
        raise UserError(
            f"{case.name}: its image is {image.dtype} {image.shape}; it should be (H, W), uint8, uint16 or float32."
        )
    if image.dtype == np.float32 and not np.isfinite(image).all():
        raise UserError(f"{case.name}: its image holds values that are not finite (NaN or infinity).")
    if masks.dtype != bool or masks.shape != (channels, *image.shape):
        raise UserError(
            f"{case.name}: its masks are {masks.dtype} {masks.shape}; "
            f"for {channels} channels of its image they should be bool {(channels, *image.shape)}."
        )
    if case.spacing_mm is not None and not all(math.isfinite(mm) and mm > 0 for mm in case.spacing_mm):
        raise UserError(f"{case.name}: its pixel spacing is {case.spacing_mm}; it should be two lengths in mm above 0.")
