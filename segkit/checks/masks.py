"""What the masks of a folder hold, levels or colours, and the recipe lines that name them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segkit.components.datasets.case import MOST_CHANNELS
from segkit.components.datasets.formats.kinds import is_nifti
from segkit.components.datasets.formats.masks import ColouredMaskError, Palette, agree, read_colours, read_levels
from segkit.components.datasets.formats.nifti_files import read_geometry, read_labels
from segkit.components.datasets.reading import collected
from segkit.components.datasets.structures import as_hex, values_in
from segkit.errors import UserError

MOST_LEVELS = 12  # of a picture that is a label map
MOST_VALUES = 256  # of a NIfTI label map
BLACK = 0


class MaskStatistics:
    """Which levels, or which colours, the masks hold that can be read."""

    def __init__(self) -> None:
        self._levels, self._colours = Counter[int](), Counter[int]()  # in how many masks
        self._pixels = Counter[int]()  # of each colour
        self._palettes: dict[Path, Palette] = {}
        self._coloured: list[Path] = []
        self._flaws: list[str] = []
        self._one_structure = True

    def add(self, path: Path) -> None:
        """Read a mask.

        Raises:
            UserError: it cannot be read.
        """
        if is_nifti(path):
            self._add_levels(path, values_in(read_labels(read_geometry(path))), MOST_VALUES)
            return
        try:
            levels, self._palettes[path] = read_levels(path)
        except ColouredMaskError as error:
            self._add_colours(path, error)
            return
        self._add_levels(path, values_in(levels), 2 if path.suffix.lower() in (".jpg", ".jpeg") else MOST_LEVELS)

    def _add_levels(self, path: Path, found: set[int], most: int) -> None:
        if len(found) > most:
            self._flaws.append(f"{path}: holds {len(found)} levels: not a label map. Was it scaled, or saved as JPEG?")
            return
        self._levels.update(found)
        self._one_structure &= found <= {0, 1} or found <= {0, 255}

    def _add_colours(self, path: Path, error: UserError) -> None:
        import numpy as np

        colours, counts = (found.tolist() for found in np.unique(read_colours(path), return_counts=True))
        if len(colours) > MOST_LEVELS:
            raise error
        self._coloured.append(path)
        self._colours.update(colours)
        self._pixels.update(dict(zip(colours, counts, strict=True)))

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the masks, each with its file, once all were added."""
        yield from self._flaws
        disagreement: list[str] = []
        with collected(disagreement):
            agree(self._palettes.items())
        yield from disagreement
        if len(self._levels.keys() - {0}) > MOST_CHANNELS:
            yield (
                f"the masks hold {len(self._levels)} values, and at most {MOST_CHANNELS} structures are read: name "
                "those that count in `labels`, the others in `background`."
            )
        if self._levels.keys() - {0}:
            yield from (f"{path}: a mask in colours, where others have grey levels." for path in self._coloured)

    def are_label_maps(self) -> bool:
        """Return whether a recipe can name the levels, or the colours."""
        return 0 < len(self._levels or self._colours) <= MOST_VALUES

    def facts(self) -> dict[str, str]:
        """Return a description of the levels, or of the colours, by name."""
        levels = ", ".join(f"{level} (in {self._levels[level]})" for level in sorted(self._levels)[: 1 + MOST_CHANNELS])
        levels += f" and {more} more" if (more := len(self._levels) - 1 - MOST_CHANNELS) > 0 else ""
        colours = ", ".join(f"{as_hex(colour)} (in {count})" for colour, count in sorted(self._colours.items()))
        return {"mask levels": levels or "none"} if levels or not colours else {"mask colours": colours}

    def labels(self) -> dict[str, Any]:
        """Return the parameters of a reader that name the structures; none for a single one of level 1 or 255."""
        levels = sorted(self._levels.keys() - {0})
        if levels or not self._colours:
            named, others = levels[:MOST_CHANNELS], levels[MOST_CHANNELS:]
            more = {"background": others} if others else {}
            return {} if self._one_structure else {"labels": {f"structure_{level}": level for level in named}, **more}
        ground = BLACK if BLACK in self._colours else self._pixels.most_common(1)[0][0]
        numbered = enumerate(sorted(self._colours.keys() - {ground}), 1)
        labels = {f"structure_{number}": as_hex(colour) for number, colour in numbered}
        return {**({"background": as_hex(ground)} if ground != BLACK else {}), "labels": labels}
