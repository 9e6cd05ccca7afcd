"""What the values or the colours of masks stand for, and the masks of label maps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le

from segkit.components.datasets.case import flaw_of_channels
from segkit.errors import UserError, first_few
from segkit.types import Array

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_LABEL = 65535
Label = Annotated[int, Ge(1), Le(MOST_LABEL)]
Part = Annotated[int, Ge(0), Le(255)]
WrittenColour = tuple[Part, Part, Part] | str
ONE_STRUCTURE = "foreground"
HEX = re.compile(r"#[0-9a-fA-F]{6}")
NOT_WHOLE = 1e-3  # how far a label may lie from a whole number, for files that store them scaled
MANY = 8  # values in a message; more colours come from smoothing
OF_PICTURES = "Add them to `labels`, or correct the mask."
NEEDS_LABELS = "A label map holds whole numbers from 0 to 65,535: is it an image, or probabilities?"


@dataclass(frozen=True)
class Structures:
    """The structures that masks show; regions may share values, so that their masks overlap.

    Attributes:
        values: of each structure in a label map, by its name; colours are 0xrrggbb. None at all if each structure has a
            file of its own.
        background: values that belong to none.
        stated: whether someone named the values; otherwise the only structure has the value 1, or 255.
        coloured: whether the values are colours.
        remedy: what to do about other values.
    """

    values: Mapping[str, tuple[int, ...]]
    background: frozenset[int] = frozenset({0})
    stated: bool = True
    coloured: bool = False
    remedy: str = "Add them to `labels`, or to `background` if they are none."

    @property
    def names(self) -> tuple[str, ...]:
        """The channels of the dataset."""
        return tuple(self.values)

    def masks(self, maps: Sequence[tuple[NDArray[Any], Path]]) -> NDArray[np.bool_]:
        """Return the masks (C, ...) of one label map of unsigned integers, or of a map of each structure.

        Args:
            maps: with their files, for messages.

        Raises:
            UserError: one holds other values; the message names them and the known ones.
        """
        import numpy as np

        if not any(self.values.values()):
            return np.stack([_one_mask(labels, path) for labels, path in maps])
        ((labels, path),) = maps
        found = values_in(labels)
        if not self.stated:
            _check_one(found, path)
            return np.stack([labels != 0])
        if unknown := found - self.background.union(*self.values.values()):
            named = [("none", self.background), *self.values.items()]
            known = ", ".join(f"{self._listed(values).replace(', ', ' and ')} ({name})" for name, values in named)
            many = " Many colours come from JPEG, or from smoothing." if self.coloured and len(unknown) > MANY else ""
            raise UserError(
                f"{path}: holds unexpected values ({self._listed(unknown)}). Known are {known}. {self.remedy}{many}"
            )
        masks = np.zeros((len(self.values), *labels.shape), bool)
        for mask, values in zip(masks, self.values.values(), strict=True):
            for value in found.intersection(values):
                mask |= labels == value
        return masks

    def _listed(self, values: Iterable[int]) -> str:
        return first_few((as_hex(value) if self.coloured else str(value) for value in sorted(values)), MANY)


def _check_one(found: set[int], path: Path) -> None:
    if not (found <= {0, 1} or found <= {0, 255}):
        raise UserError(
            f"{path}: holds more values than 0 and 1, or 0 and 255, of one structure "
            f"({first_few(map(str, sorted(found)), MANY)}). For several structures name their values: labels = "
            "{ wall = 1, cavity = 2 }."
        )


def _one_mask(labels: NDArray[Any], path: Path) -> Array:
    """Return the mask of a file that shows one structure, with 0 and one other value."""
    if len(found := values_in(labels) - {0}) > 1:
        raise UserError(
            f"{path}: holds several values, though it is the mask of one structure "
            f"({first_few(map(str, sorted(found)), MANY)}). If it is a label map, name it alone, and give `labels`."
        )
    mask: Array = labels != 0
    return mask


def values_in(labels: NDArray[Any]) -> set[int]:
    """Return the values of an array of unsigned integers."""
    import numpy as np

    if labels.dtype.itemsize > 2:
        return set(np.unique(labels).tolist())
    counts = np.zeros(int(labels.max()) + 1, np.int64)
    for part in labels if labels.ndim > 2 else labels[None]:  # bincount makes 64-bit copies
        counts += np.bincount(part.ravel(order="K"), minlength=len(counts))
    return set(np.flatnonzero(counts).tolist())


def label_map(values: NDArray[Any], path: Path) -> Array:
    """Return the values of a file as a label map, uint8 or uint16.

    Raises:
        UserError: they are not whole numbers from 0 to 65,535.
    """
    import numpy as np

    if values.dtype in (np.uint8, np.uint16):
        return values
    if values.dtype.kind == "f":
        whole = np.rint(values)
        if wrong := int((np.abs(whole - values) > NOT_WHOLE).sum()):
            shown = f"{wrong:,} of {values.size:,}"
            raise UserError(f"{path}: holds values that are not whole numbers ({shown}). {NEEDS_LABELS}")
        values = whole
    lowest, highest = float(values.min()), float(values.max())
    if lowest < 0 or highest > MOST_LABEL:
        raise UserError(f"{path}: holds values that are no labels ({lowest:g} to {highest:g}). {NEEDS_LABELS}")
    return values.astype(np.uint16)


def structures_of(labels: Mapping[str, Label | tuple[Label, ...]] | None, background: Sequence[int] = ()) -> Structures:
    """Return the structures of a recipe's `labels`, whose lists are regions; without them, one, "foreground".

    Raises:
        UserError: two structures are the same, or have no values, or one counts as background too.
    """
    if labels is None:
        if background:
            raise UserError("background: belongs to `labels`, which name the structures; give both.")
        return Structures({ONE_STRUCTURE: (1,)}, stated=False)
    values = {name: (found,) if isinstance(found, int) else tuple(found) for name, found in labels.items()}
    sets = [frozenset(found) for found in values.values()]
    if not sets or not all(sets) or len(set(sets)) < len(sets):
        raise UserError(f"labels: {labels} must give at least one structure, and each a value, or values, of its own.")
    if flaw := flaw_of_channels(tuple(values)):
        raise UserError(f"labels: {flaw}.")
    if both := set(background).intersection(*[set().union(*sets)]):
        raise UserError(f"background: {first_few(map(str, sorted(both)))} is a structure in `labels` too.")
    return Structures(values, frozenset({0, *background}))


def structures_in_pictures(
    labels: Mapping[str, Label | WrittenColour] | None, background: WrittenColour | None
) -> Structures:
    """Return the structures of a recipe's `labels` of pictures, whose lists and texts are colours.

    Raises:
        UserError: two have one value or colour, or some a value and others a colour, or a text is no colour.
    """
    written = {name: label for name, label in (labels or {}).items() if not isinstance(label, int)}
    if not written:
        if background is not None:
            raise UserError('background: counts only if labels are colours, e.g. labels = { wall = "#ff0000" }.')
        levels = {name: label for name, label in (labels or {}).items() if isinstance(label, int)}
        return replace(structures_of(None if labels is None else levels), remedy=OF_PICTURES)
    if len(written) < len(labels or {}):
        raise UserError("labels: give every structure a grey level, or every structure a colour.")
    if flaw := flaw_of_channels(tuple(written)):
        raise UserError(f"labels: {flaw}.")
    colours = {name: code_of(f"labels.{name}", label) for name, label in written.items()}
    ground = 0 if background is None else code_of("background", background)
    if len({ground, *colours.values()}) <= len(colours):
        listed = ", ".join(f"{name} {as_hex(colour)}" for name, colour in colours.items())
        raise UserError(f"labels: each structure needs a colour of its own, got background {as_hex(ground)}, {listed}.")
    return Structures(
        {name: (colour,) for name, colour in colours.items()}, frozenset({ground}), coloured=True, remedy=OF_PICTURES
    )


def one_file_each(masks: Mapping[str, str], parameter: str, *given: object) -> Structures:
    """Return the structures that have a mask file each, by the parameter of a recipe that names them.

    Raises:
        UserError: there are none, a name cannot be used, or some of `labels` and `background` are `given`.
    """
    if any(given):
        raise UserError(f"labels and background: belong to label maps, but `{parameter}` names one for each structure.")
    if flaw := "name at least one structure" if not masks else flaw_of_channels(tuple(masks)):
        raise UserError(f"{parameter}: {flaw}.")
    return Structures(dict.fromkeys(masks, ()))


def code_of(name: str, written: WrittenColour) -> int:
    """Return 0xrrggbb of a colour that a recipe gives under a name."""
    if not isinstance(written, str):
        red, green, blue = written
        return red << 16 | green << 8 | blue
    if not HEX.fullmatch(written):
        raise UserError(f'{name}: {written!r} is no colour. Write "#ff0000", or [255, 0, 0].')
    return int(written[1:], 16)


def as_hex(colour: int) -> str:
    """Return a colour 0xrrggbb as a recipe may write it: "#rrggbb"."""
    return f"#{colour:06x}"
