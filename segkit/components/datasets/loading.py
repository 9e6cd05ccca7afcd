"""Cases of image files: what can be said without their pixels, and how the pixels are read later."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import MaxLen, MinLen

from segkit.components.datasets.case import Case, CaseFiles, Dataset, flaw_of_channels, unlabelled_notes
from segkit.components.datasets.formats.dicom_header import read_format
from segkit.components.datasets.formats.images import may_be_coloured, read_picture, read_pictures
from segkit.components.datasets.formats.kinds import is_named_dicom
from segkit.components.datasets.formats.masks import Palette, agree, read_colours, read_levels
from segkit.components.datasets.reading import DatasetError, size_text
from segkit.components.datasets.structures import Structures
from segkit.errors import UserError, counted, first_few
from segkit.types import Array, Mask, Positive

Lengths = Annotated[tuple[Positive, ...], MinLen(2), MaxLen(3)]
"""Spacing in mm along (row, column), or (slice, row, column)."""
RGB = ("red", "green", "blue")
ONE_INPUT = ("image",)
PROBES = 8  # images that are decoded to see whether they show colours
COLOURED = "turned into grey (0.299 red + 0.587 green + 0.114 blue): one channel is read"
CONTRADICTS = (
    "a coloured image among grey ones. Say whether colours count: grey = true makes every image grey; grey = false "
    "reads red, green and blue of every image, where an image has one file."
)


def stated_spacing(path: Path) -> tuple[float, ...] | None:
    """Return the spacing in mm that a file's header states; None if it states none, or cannot be read."""
    if is_named_dicom(path) and os.path.isfile(path):  # a pipe would never end
        with suppress(UserError):  # reading the pixels reports it
            return read_format(path).spacing_mm
    return None


def shows_colours(images: Sequence[Path]) -> bool:
    """Return whether images show colours: by their headers, then by the pixels of a few, spread over the list."""
    maybe = [path for path in images if os.path.isfile(path) and may_be_coloured(path)]
    step = max(1, len(maybe) / PROBES)
    for number in range(min(PROBES, len(maybe))):
        with suppress(UserError):  # reading the case reports it
            if read_picture(maybe[int(number * step)], grey=False).coloured:
                return True
    return False


def input_names(images: str | Mapping[str, str], grey: bool | None, parameter: str) -> tuple[str, ...]:
    """Return the names of the inputs that a parameter of a recipe names, such as `images`.

    Raises:
        UserError: there are none, or a name cannot be used.
    """
    if isinstance(images, str):
        return RGB if grey is False else ONE_INPUT
    flaw = "name at least one input" if not images else flaw_of_channels(tuple(images), "input")
    if flaw:
        raise UserError(f"{parameter}: {flaw}.")
    if grey is False and len(images) > 1:
        raise UserError("grey: images of several inputs are grey each; leave it out.")
    return RGB if grey is False else tuple(images)


@dataclass(eq=False)
class Loader:
    """Makes the cases of a data set of image files, and reads them; one for all its cases.

    Attributes:
        structures: what masks stand for.
        inputs: their names; one file for three of them is read in colours.
        grey: whether colour becomes grey in files of one input; None refuses it.
        spacing_mm: of every case, whatever its files state.
    """

    structures: Structures
    inputs: tuple[str, ...]
    grey: bool | None
    spacing_mm: tuple[float, ...] | None = None
    _palettes: dict[Path, Palette] = field(default_factory=dict)
    _coloured: set[str] = field(default_factory=set)

    def dataset(
        self, name: str, found: Sequence[CaseFiles], problems: Sequence[str], notes: Sequence[str] = ()
    ) -> Dataset:
        """Return the dataset of the cases that were found; images of one input that show colours have three.

        Raises:
            DatasetError: there are problems.
        """
        if problems and not found:
            raise DatasetError(problems)
        if self.inputs == ONE_INPUT and self.grey is None and shows_colours([case.images[0] for case in found]):
            self.inputs = RGB
        cases = tuple(map(self._case, found))
        data = Dataset(
            name, self.structures.names, cases, (*notes, *unlabelled_notes(found)), self.inputs, self.conclude
        )
        if problems:
            raise DatasetError(problems, data)
        return data

    def _case(self, found: CaseFiles) -> Case:
        spacing = found.spacing_mm or self.spacing_mm or next(filter(None, map(stated_spacing, found.images)), None)
        load = functools.partial(self._load, found.name, found.images, found.masks, len(spacing or ()))
        files, labelled = (*found.images, *found.masks), bool(found.masks)
        return Case(
            found.name, found.patient, None, None, spacing, tags=found.tags, load=load, files=files, labelled=labelled
        )

    def conclude(self) -> list[str]:
        """Return notes on what was read, once all cases were.

        Raises:
            DatasetError: palettes that disagree.
        """
        try:
            agree(sorted(self._palettes.items()))
        except UserError as error:
            raise DatasetError([str(error)]) from None
        names = sorted(self._coloured)
        return [f"{counted(len(names), 'coloured image')} {COLOURED}: {first_few(names)}."] if names else []

    def _load(
        self, name: str, images: tuple[Path, ...], masks: tuple[Path, ...], axes: int
    ) -> tuple[Array, Mask | None]:
        in_colours = len(images) < len(self.inputs)
        picture = read_pictures(images, grey=not in_colours)
        if picture.coloured and not in_colours:
            if self.grey is None:
                raise UserError(f"{images[0]}: {CONTRADICTS}")
            self._coloured.add(name)
        image, truth = picture.pixels, self._masks(masks)
        pixels = image.shape[1:] if image.ndim > 2 else image.shape
        if truth is not None and truth.shape[1:] != pixels:
            sizes = size_text(truth.shape[1:]), size_text(pixels)
            raise UserError(f"{masks[0]}: the mask has {sizes[0]} pixels, its image has {sizes[1]}.")
        if axes == 3 and len(pixels) == 2:  # a stack of one slice
            image = image.reshape(-1, 1, *pixels)
            truth = truth[:, None] if truth is not None else None
        if axes == 2 and len(pixels) == 3:
            raise UserError(f"{images[0]}: a stack of {pixels[0]} slices: spacing_mm needs (slice, row, column).")
        return image, truth

    def _masks(self, paths: tuple[Path, ...]) -> Mask | None:
        found: list[tuple[Array, Path]] = []
        for path in paths:
            if self.structures.coloured:
                found.append((read_colours(path), path))
                continue
            levels, palette = read_levels(path)
            if palette:
                self._palettes[path] = palette
            if found and levels.shape != found[0][0].shape:
                sizes = size_text(levels.shape), size_text(found[0][0].shape)
                raise UserError(f"{path}: the mask has {sizes[0]} pixels, {paths[0]} has {sizes[1]}.")
            found.append((levels, path))
        return self.structures.masks(found) if found else None
