"""Label maps to masks: which values are which structure, and values that are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
Labels = dict[str, Label | tuple[Label, ...]]
ONE_STRUCTURE = "foreground"


@dataclass(frozen=True)
class Structures:
    """The structures that label maps show; regions may share values, so that their masks overlap.

    Attributes:
        values: of each structure, by its name.
        background: further values that belong to none, beside 0.
        stated: whether someone named the values; otherwise the only structure has the value 1, or 255.
        remedy: what to do about other values.
    """

    values: Mapping[str, tuple[int, ...]]
    background: frozenset[int] = frozenset()
    stated: bool = True
    remedy: str = "Add them to `labels`, or to `background` if they are none."

    @property
    def names(self) -> tuple[str, ...]:
        """The channels of the dataset."""
        return tuple(self.values)

    def masks(self, labels: NDArray[Any], path: Path) -> NDArray[np.bool_]:
        """Return the masks (C, ...) of a label map of unsigned integers.

        Raises:
            UserError: it holds other values; the message names them and the known ones.
        """
        import numpy as np

        found = values_in(labels)
        if not self.stated:
            self._check_one(found, path)
            return np.stack([labels != 0])
        unknown = found - {0} - self.background - set().union(*self.values.values())
        if unknown:
            known = ", ".join(f"{' and '.join(map(str, values))} ({name})" for name, values in self.values.items())
            others = f"; {first_few(map(str, sorted(self.background)), 8)} count as background" * bool(self.background)
            raise UserError(
                f"{path}: holds unexpected values ({first_few(map(str, sorted(unknown)), 8)}). Known are 0 (none), "
                f"{known}{others}. {self.remedy}"
            )
        masks = np.empty((len(self.values), *labels.shape), bool)
        for mask, (first, *further) in zip(masks, self.values.values(), strict=True):
            np.equal(labels, first, out=mask)
            for value in further:
                mask |= labels == value
        return masks

    def _check_one(self, found: set[int], path: Path) -> None:
        if not (found <= {0, 1} or found <= {0, 255}):
            raise UserError(
                f"{path}: holds more values than 0 and 1, or 0 and 255, of one structure "
                f"({first_few(map(str, sorted(found)), 8)}). For several structures name their values: labels = {{ "
                "wall = 1, cavity = 2 }."
            )


def values_in(labels: NDArray[Any]) -> set[int]:
    """Return the values of an array of unsigned integers."""
    import numpy as np

    counts = np.zeros(int(labels.max()) + 1, np.int64)
    for part in labels if labels.ndim > 2 else labels[None]:  # bincount makes 64-bit copies
        counts += np.bincount(part.ravel(order="K"), minlength=len(counts))
    return set(np.flatnonzero(counts).tolist())


def structures_of(labels: Labels | None, background: Sequence[int] = ()) -> Structures:
    """Return the structures of a recipe's `labels`; without them, one, "foreground".

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
    return Structures(values, frozenset(background))


def one_mask(labels: NDArray[Any], path: Path) -> Array:
    """Return the mask of a file that shows one structure, with 0 and one other value.

    Raises:
        UserError: it holds several values.
    """
    if len(found := values_in(labels) - {0}) > 1:
        raise UserError(
            f"{path}: holds several values, though it is the mask of one structure "
            f'({first_few(map(str, sorted(found)), 8)}). If it is a label map, name it alone, masks = "PATTERN", and '
            "give `labels`."
        )
    mask: Array = labels != 0
    return mask
