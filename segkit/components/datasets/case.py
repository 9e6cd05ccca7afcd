"""Case and Dataset: what every reader gives back, checked once."""

from __future__ import annotations

import math
import numbers
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from segkit.components.datasets.reading import flaw_of_name
from segkit.errors import ContractError, counted, first_unprintable
from segkit.types import Array

MOST_CHANNELS = 16
LONGEST_NAME = 100  # characters of a channel's, in tables and file names
TAKEN = {  # as names of channels
    "all": "tables call the mean over channels so",
    "overlay": "a picture of all masks is called so",
}


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
        ContractError: a case breaks what `Case` says, or two share a name; the message names the case.
    """

    name: str
    channels: tuple[str, ...]
    cases: tuple[Case, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what, items in (("cases", self.cases), ("channels", self.channels)):
            if not isinstance(items, tuple | list):
                raise ContractError(f"{self.name}: its {what} are a {type(items).__name__}; they should be a tuple.")
        _check_names(self)
        if not self.cases:
            raise ContractError(f"{self.name}: holds no cases.")
        if not 1 <= len(self.channels) <= MOST_CHANNELS:
            raise ContractError(f"{self.name}: {len(self.channels)} channels; from 1 to {MOST_CHANNELS} are possible.")
        flaw = flaw_of_channels(self.channels)
        if flaw:
            raise ContractError(f"{self.name}: {flaw}.")
        name, count = Counter(case.name for case in self.cases).most_common(1)[0]
        if count > 1:
            raise ContractError(f"{self.name}: {count} cases are called '{name}'. Names tell them apart.")
        for case in self.cases:
            _check(case, len(self.channels))


def flaw_of_channels(names: Sequence[str]) -> str:
    """Return what is wrong with the names of channels, which stand in tables and file names; "" where nothing is."""
    for name in names:
        if not name.strip():
            return "a channel has an empty name. Call it what it shows, as in wall or cavity"
        if name != name.strip() or first_unprintable(name) or set(name) & set("/\\"):
            what = (
                f"the character {first_unprintable(name)}"
                if first_unprintable(name)
                else "a slash, or white space at an end"
            )
            return f"the channel name {name!a} holds {what}, and cannot stand in tables and file names. Rename it"
        if len(name) > LONGEST_NAME:
            return f"the channel name {name[:20]}... has {len(name):,} characters; at most {LONGEST_NAME} are possible"
        if name.casefold() in TAKEN:
            return f"a channel cannot be called '{name}': {TAKEN[name.casefold()]}. Rename it"
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        return f"{count} channels are called '{name}'. Names tell them apart"
    folded = Counter(unicodedata.normalize("NFKC", name).casefold() for name in names)
    twins = [name for name in names if folded[unicodedata.normalize("NFKC", name).casefold()] > 1]
    if twins:
        return f"channels are called {' and '.join(map(repr, twins))}, the same but for case. Rename one"
    return ""


def _check_names(dataset: Dataset) -> None:
    """Raise unless cases are cases, and names text."""
    for item in dataset.cases:
        if not isinstance(item, Case):
            raise ContractError(f"{dataset.name}: a case is a {type(item).__name__}; it should be a segkit Case.")
        if not isinstance(item.name, str) or not isinstance(item.patient, str | None):
            kinds = f"{type(item.name).__name__} and {type(item.patient).__name__}"
            raise ContractError(f"{item.name!r}: its name and patient are {kinds}; they should be text.")
    if not all(isinstance(channel, str) for channel in dataset.channels):
        raise ContractError(f"{dataset.name}: its channels are {dataset.channels!r}; they should be text.")


def _check(case: Case, channels: int) -> None:
    """Raise unless a case is what it should be."""
    import numpy as np

    for name in (case.name, case.patient or ""):
        flaw = flaw_of_name(name)
        if flaw:
            raise ContractError(f"the name {name!a} of a case {flaw}. Rename it.")
    image, masks = case.image, case.masks
    for what, array in (("image is", image), ("masks are", masks)):
        if not isinstance(array, np.ndarray):
            raise ContractError(f"{case.name}: its {what} a {type(array).__name__}; it should be a numpy array.")
    if image.ndim != 2 or image.size == 0 or image.dtype not in (np.uint8, np.uint16, np.float32):
        raise ContractError(
            f"{case.name}: its image is {image.dtype} {image.shape}; it should be (H, W), uint8, uint16 or float32."
        )
    if image.dtype == np.float32 and not np.isfinite(image).all():
        raise ContractError(f"{case.name}: its image holds values that are not finite (NaN or infinity).")
    if masks.dtype != bool or masks.shape != (channels, *image.shape):
        raise ContractError(
            f"{case.name}: its masks are {masks.dtype} {masks.shape}; "
            f"for {counted(channels, 'channel')} of its image they should be bool {(channels, *image.shape)}."
        )
    if case.spacing_mm is not None and not _is_spacing(case.spacing_mm):
        raise ContractError(
            f"{case.name}: its pixel spacing is {case.spacing_mm}; it should be two lengths in mm above 0."
        )


def _is_spacing(value: Any) -> bool:
    lengths = list(value) if isinstance(value, tuple | list) else []
    good = [mm for mm in lengths if isinstance(mm, numbers.Real) and math.isfinite(mm) and float(mm) > 0]
    return len(lengths) == len(good) == 2
