"""Cases that have been read: what is known of each, and where its slices are stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from segkit.data.fitting import Kind
from segkit.data.store import Slices, unpack_masks
from segkit.types import Mask


@dataclass(frozen=True)
class StoredCase:
    """A case in a store.

    Attributes:
        name, patient, spacing_mm, tags: as of `Case`.
        labelled: whether it has masks.
        shape: of its image and masks, (H, W) or (D, H, W).
        first: the number of its first slice.
        digest: of its image as read, to find twins; "" if all pixels are equal.
        present: the channels that are not empty.
        overlapping: whether masks overlap.
    """

    name: str
    patient: str | None
    spacing_mm: tuple[float, ...] | None
    tags: Mapping[str, str]
    labelled: bool
    shape: tuple[int, ...]
    first: int
    digest: str
    present: tuple[int, ...]
    overlapping: bool

    @property
    def slices(self) -> range:
        """The numbers of its slices."""
        return range(self.first, self.first + (self.shape[0] if len(self.shape) == 3 else 1))

    def slice_name(self, number: int) -> str:
        """Return the name of a slice in messages: of the case, with the slice of a volume counted from 1."""
        return self.name if len(self.shape) == 2 else f"{self.name}, slice {number - self.first + 1}"


@dataclass(frozen=True, eq=False)
class Data:
    """A data set that has been read: what is known of its cases, and their slices after intensity.

    Attributes:
        name, channels, inputs, notes: as of `Dataset`.
        fingerprint: sha256 (hex) of channels, inputs, names, patients, pixels, masks and spacing, in the order of the
            cases; it depends neither on where the files lie nor on the machine.
        slices: of all cases, in order.
        prepared: the slices after transforms, by these; see `segkit.data.preparing`.
        progress: called while they are made, with the number of slices done, and of all.
    """

    name: str
    channels: tuple[str, ...]
    inputs: tuple[str, ...]
    cases: tuple[StoredCase, ...]
    notes: tuple[str, ...]
    fingerprint: str
    slices: Slices
    prepared: dict[str, Slices] = field(default_factory=dict)
    progress: Callable[[int, int], None] = lambda done, total: None

    @property
    def kind(self) -> Kind:
        """What transforms get."""
        low, high = self.slices.bounds
        return Kind(len(self.inputs), self.slices.dtype, low >= 0 and high <= 1)  # type: ignore[arg-type]

    def masks(self, number: int) -> Mask:
        """Return the masks of a case, (C, H, W) or (C, D, H, W)."""
        case = self.cases[number]
        bits = np.stack([self.slices.bits(n) for n in case.slices]).reshape(case.shape)
        return unpack_masks(bits, len(self.channels))

    def names_of_slices(self) -> list[str]:
        """Return the name of each slice, for messages."""
        return [case.slice_name(number) for case in self.cases for number in case.slices]
