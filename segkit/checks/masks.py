"""What the masks of a folder hold, levels or colours, and the recipe lines that name them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from segkit.components.datasets.case import MOST_CHANNELS
from segkit.components.datasets.decoding import Colour
from segkit.components.datasets.masks import BLACK, ColouredMaskError, agree, as_hex, read_colours, read_levels
from segkit.components.datasets.nifti_files import ENDINGS, read_geometry, read_labels
from segkit.components.datasets.reading import collected
from segkit.components.datasets.structures import values_in
from segkit.errors import UserError

MOST_LEVELS = 12  # of a picture that is a label map
MOST_VALUES = 256  # of a NIfTI label map


class MaskStatistics:
    """Statistics of the masks that can be read.

    Attributes:
        levels: how many masks hold each grey level.
        colours: how many masks hold each colour.
        empty: how many masks show nothing.
    """

    def __init__(self) -> None:
        self.levels, self.colours, self.empty = Counter[float](), Counter[Colour](), 0
        self._pixels = Counter[Colour]()
        self._palettes: dict[Path, dict[int, Colour]] = {}
        self._coloured: list[Path] = []
        self._flaws: list[str] = []
        self._one_structure = True

    def add(self, path: Path) -> tuple[int, ...]:
        """Read a mask; return its shape.

        Raises:
            UserError: it cannot be read.
        """
        import numpy as np

        if path.name.lower().endswith(ENDINGS):
            return self._add_label_map(path)
        try:
            levels, self._palettes[path] = read_levels(path, stacks=True)
        except ColouredMaskError as error:
            return self._add_colours(path, error)
        found = set(np.unique(levels).tolist())
        self._add_levels(path, found, _flaw_of_levels(found, path))
        return levels.shape

    def _add_label_map(self, path: Path) -> tuple[int, ...]:
        labels: Any = read_labels(read_geometry(path))
        found = values_in(labels)
        many = len(found) > MOST_VALUES
        self._add_levels(path, found, f"holds {len(found)} values: an image, not a label map?" if many else "")
        return tuple(labels.shape)

    def _add_levels(self, path: Path, found: AbstractSet[float], flaw: str) -> None:
        self._flaws += [f"{path}: {flaw}"] if flaw else []
        self.levels.update(() if flaw else found)
        self._one_structure &= bool(flaw) or found <= {0, 1} or found <= {0, 255}
        self.empty += found == {0}

    def _add_colours(self, path: Path, error: UserError) -> tuple[int, ...]:
        shape, found = read_colours(path)
        if len(found) > MOST_LEVELS:
            raise error
        self._coloured.append(path)
        self.colours.update(colour for colour, _ in found)
        self._pixels.update(dict(found))
        return shape

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the masks, each with its file, once all were added."""
        yield from self._flaws
        disagreement: list[str] = []
        with collected(disagreement):
            agree(self._palettes.items())
        yield from disagreement
        if len(self.levels.keys() - {0}) > MOST_CHANNELS:
            yield (
                f"the masks hold {len(self.levels)} values, and at most {MOST_CHANNELS} structures are read: name "
                "those that count in `labels`, the others in `background`."
            )
        if self.levels.keys() - {0}:
            yield from (f"{path}: a mask in colours, where others have grey levels." for path in self._coloured)

    def are_label_maps(self) -> bool:
        """Return whether a recipe can name the levels, or the colours."""
        return 0 < len(self.levels or self.colours) <= MOST_VALUES

    def facts(self) -> dict[str, str]:
        """Return a description of the levels, or of the colours, by name."""
        levels = ", ".join(f"{level:g} (in {self.levels[level]})" for level in sorted(self.levels)[: 1 + MOST_CHANNELS])
        levels += f" and {more} more" if (more := len(self.levels) - 1 - MOST_CHANNELS) > 0 else ""
        colours = ", ".join(f"{as_hex(colour)} (in {count})" for colour, count in sorted(self.colours.items()))
        return {"mask levels": levels or "none"} if levels or not colours else {"mask colours": colours}

    def labels(self) -> dict[str, Any]:
        """Return the parameters of a reader that name the structures; none for a single one of level 1 or 255."""
        levels = {f"structure_{int(level)}": int(level) for level in sorted(self.levels) if level}
        if levels or not self.colours:
            named = dict(list(levels.items())[:MOST_CHANNELS])
            others = [level for name, level in levels.items() if name not in named]
            more = {"background": others} if others else {}
            return {} if self._one_structure else {"labels": named, **more}
        ground = BLACK if BLACK in self.colours else self._pixels.most_common(1)[0][0]
        numbered = enumerate(sorted(self.colours.keys() - {ground}), 1)
        labels = {f"structure_{number}": as_hex(colour) for number, colour in numbered}
        return {**({"background": as_hex(ground)} if ground != BLACK else {}), "labels": labels}


def _flaw_of_levels(found: set[float], mask: Path) -> str:
    """Return why a mask is not a label map, or ""."""
    if len(found) > (2 if mask.suffix.lower() in (".jpg", ".jpeg") else MOST_LEVELS):
        return f"holds {len(found)} levels: not a label map. Was it scaled, or saved as JPEG?"
    if any(level < 0 or level > 65535 or level != int(level) for level in found):
        return "holds levels that are not whole numbers from 0 to 65535."
    return ""
