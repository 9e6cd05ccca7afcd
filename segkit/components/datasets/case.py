"""Case and Dataset: what every reader returns, checked once."""

from __future__ import annotations

import math
import numbers
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from segkit.components.datasets.reading import flaw_of_name
from segkit.errors import ContractError, counted, first_unprintable
from segkit.types import Array

MOST_CHANNELS = 16
LONGEST_NAME = 100  # characters of a channel's, in tables and file names
TAKEN = {"all": "the mean over channels", "overlay": "a picture of all masks"}  # names that tables and files use


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One image with its masks.

    Attributes:
        name: unique in the dataset, e.g. "patient01/P01-0059"; used in tables and file names.
        patient: whose image it is; None if the data do not say.
        image: (H, W) uint8, uint16 or float32, one grey channel, as read.
        masks: (C, H, W) bool, one per channel of the dataset; they may overlap.
        spacing_mm: (row, column) distance between pixel centres; None if the data do not say.
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
        ContractError: a case is not as `Case` describes, or two share a name; the message names the case.
    """

    name: str
    channels: tuple[str, ...]
    cases: tuple[Case, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what, items in (("cases", self.cases), ("channels", self.channels)):
            if not isinstance(items, tuple | list):
                raise ContractError(f"{self.name}: its {what} must be a tuple, got {type(items).__name__}.")
        _check_names(self)
        if not self.cases:
            raise ContractError(f"{self.name}: has no cases.")
        if not 1 <= len(self.channels) <= MOST_CHANNELS:
            raise ContractError(f"{self.name}: must have from 1 to {MOST_CHANNELS} channels, got {len(self.channels)}.")
        flaw = flaw_of_channels(self.channels)
        if flaw:
            raise ContractError(f"{self.name}: {flaw}.")
        name, count = Counter(case.name for case in self.cases).most_common(1)[0]
        if count > 1:
            raise ContractError(f"{self.name}: {count} cases are called '{name}'. Names must be unique.")
        for case in self.cases:
            _check(case, len(self.channels))


def flaw_of_channels(names: Sequence[str]) -> str:
    """Return what is wrong with the names of channels, which tables and file names use; "" if nothing is."""
    for name in names:
        control = first_unprintable(name)
        if not name.strip():
            return "a channel has an empty name. Name it after what it shows, e.g. wall or cavity"
        if control or name != name.strip() or set(name) & set("/\\"):
            what = f"the character {control}" if control else "a slash, or white space at an end"
            return f"the channel name {name!a} holds {what}, which tables and file names cannot have. Rename it"
        if len(name) > LONGEST_NAME:
            return f"the channel name {name[:20]}... has {len(name):,} characters; at most {LONGEST_NAME} are allowed"
        if name.casefold() in TAKEN:
            return f"a channel cannot be called '{name}': this is the name of {TAKEN[name.casefold()]}. Rename it"
    folded = [unicodedata.normalize("NFKC", name).casefold() for name in names]
    twins = [name for name, key in zip(names, folded, strict=True) if folded.count(key) > 1]
    if twins:
        return f"channels are called {' and '.join(map(repr, twins))}; names must differ in more than case. Rename one"
    return ""


def _check_names(dataset: Dataset) -> None:
    """Raise unless cases are of type Case, and names are text."""
    for item in dataset.cases:
        if not isinstance(item, Case):
            raise ContractError(f"{dataset.name}: each case must be a segkit Case, got {type(item).__name__}.")
        if not isinstance(item.name, str) or not isinstance(item.patient, str | None):
            kinds = f"{type(item.name).__name__} and {type(item.patient).__name__}"
            raise ContractError(f"{item.name!r}: its name and patient must be strings, got {kinds}.")
    if not all(isinstance(channel, str) for channel in dataset.channels):
        raise ContractError(f"{dataset.name}: its channels must be strings, got {dataset.channels!r}.")


def _check(case: Case, channels: int) -> None:
    """Raise unless a case is as its class describes."""
    import numpy as np

    for name in (case.name, case.patient or ""):
        flaw = flaw_of_name(name)
        if flaw:
            raise ContractError(f"the name {name!a} of a case {flaw}. Rename it.")
    image, masks = case.image, case.masks
    for what, array in (("image", image), ("masks", masks)):
        if not isinstance(array, np.ndarray):
            raise ContractError(f"{case.name}: its {what} must be a numpy array, got {type(array).__name__}.")
    if image.ndim != 2 or image.size == 0 or image.dtype not in (np.uint8, np.uint16, np.float32):
        raise ContractError(
            f"{case.name}: its image must be (H, W), uint8, uint16 or float32, got {image.dtype} {image.shape}."
        )
    if image.dtype == np.float32 and not np.isfinite(image).all():
        raise ContractError(f"{case.name}: its image contains values that are not finite (NaN or infinity).")
    if masks.dtype != bool or masks.shape != (channels, *image.shape):
        raise ContractError(
            f"{case.name}: its masks must be bool {(channels, *image.shape)} for {counted(channels, 'channel')} of its "
            f"image, got {masks.dtype} {masks.shape}."
        )
    spacing = case.spacing_mm if isinstance(case.spacing_mm, tuple | list) else ()
    positive = [isinstance(mm, numbers.Real) and 0 < float(mm) < math.inf for mm in spacing]
    if case.spacing_mm is not None and positive != [True, True]:
        raise ContractError(f"{case.name}: its pixel spacing must be two lengths in mm above 0, got {case.spacing_mm}.")
