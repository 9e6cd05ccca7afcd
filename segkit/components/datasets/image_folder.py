"""Images and masks in two folders: PNG, TIFF, JPEG, BMP or DICOM images, a mask of the same name for each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le

from segkit.components.datasets import reading
from segkit.components.datasets.case import Case, Dataset, flaw_of_channels
from segkit.components.datasets.decoding import VOLUMES, Colour, volume
from segkit.components.datasets.images import KINDS, Picture, agree, describe_other_content, read_levels, read_picture
from segkit.errors import UserError, counted, first_few, sentence
from segkit.types import Array, Positive

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Label = Annotated[int, Ge(1), Le(65535)]
DOT = re.compile(r"(?<!^)\.")
ONE_STRUCTURE = "foreground"
DEPTH = 4  # folders below `images` and `masks`
COLOURED = "turned into grey (0.299 red + 0.587 green + 0.114 blue): one channel is read"


@dataclass(frozen=True, eq=False)
class Pair:
    """An image and its mask.

    Attributes:
        name: their path below both folders, without suffix.
        image: the image's file.
        mask: the mask's file; None if there is none.
        picture: the image; None if it cannot be read.
        levels: the mask (H, W) as stored; None if it is missing or cannot be read.
    """

    name: str
    image: Path
    mask: Path | None
    picture: Picture | None
    levels: Array | None


def image_folder(
    *,
    root: Path,
    images: str = "images",
    masks: str = "masks",
    labels: dict[str, Label] | None = None,
    patient: str | None = None,
    spacing_mm: tuple[Positive, Positive] | None = None,
) -> Dataset:
    """Images and masks of the same name in two folders, patients in sub-folders or in the names.

    `root/images/patient01/a.png` has the mask `root/masks/patient01/a.png`; the kinds of file may differ. Images are
    PNG, TIFF, JPEG, BMP or DICOM of 8 to 16 bits or float; colour becomes grey, alpha is dropped. Masks hold one grey
    level per structure, 0 for none; saved as RGB, their three channels are equal. If a PNG has a palette of colours
    that begins with black, as in Pascal VOC, its indices are the levels.

    Args:
        root: the folder that holds both.
        images: the folder of the images, below `root`.
        masks: the folder of the masks, below `root`.
        labels: each structure's grey level in the masks, e.g. { wall = 1, cavity = 2 }. Without it, masks show one
            structure, "foreground", as 0 and 1 or 0 and 255.
        patient: regular expression that finds the patient in an image's name without its suffix; its first group if it
            has one. Without it the patient is the first folder below `images`; images beside such folders have none.
        spacing_mm: (row, column) distance between pixel centres; DICOM images may state their own.

    Raises:
        UserError: an image without a mask or the reverse, other sizes, unexpected levels, damage; the file is named.
    """
    top = reading.open_root(root)
    names = _channels(labels)
    pattern = _pattern(patient)
    problems: list[str] = []
    skipped: list[Path] = []
    cases, coloured = [], []
    for pair in read_pairs(top, images, masks, problems, skipped):
        with reading.collected(problems):
            whose = _patient(pair.name, pattern, pair.image)
            if pair.picture and pair.levels is not None:
                truth = _masks(str(pair.mask), pair.levels, labels)
                cases.append(Case(pair.name, whose, pair.picture.pixels, truth, spacing_mm or pair.picture.spacing_mm))
                coloured += [pair.name] if pair.picture.coloured else []
    if problems:
        raise reading.DatasetError(problems)
    notes = []
    if skipped:
        listed = first_few(path.relative_to(top).as_posix() for path in skipped)
        notes.append(f"{counted(len(skipped), 'non-image file')} left out: {listed}.")
    if coloured:
        notes.append(f"{counted(len(coloured), 'coloured image')} {COLOURED}: {first_few(coloured)}.")
    return Dataset("image_folder", names, tuple(cases), tuple(notes))


def read_pairs(root: Path, images: str, masks: str, problems: list[str], skipped: list[Path]) -> Iterator[Pair]:
    """Yield the images of a folder, each with the mask of the same name in another.

    Args:
        root: the folder that holds both, links resolved.
        images: the folder of the images, below `root`.
        masks: the folder of the masks, below `root`.
        problems: receives the problems of single files.
        skipped: receives the files that are not images.

    Raises:
        UserError: one of the folders is missing, or contains no images.
    """
    pictures, truths = (_by_stem(root, below, problems, skipped) for below in (images, masks))
    for below, files in ((images, pictures), (masks, truths)):
        if not files and not problems:
            names = [path.name for path in reading.files_below(root, root / below, DEPTH)]
            raise UserError(f"{root / below}: contains no images. {describe_other_content(root / below, names)}")
    problems += _unpaired(root, pictures, truths, masks, "mask", skipped)
    problems += _unpaired(root, truths, pictures, images, "image", skipped)
    known: dict[int, tuple[Colour, Path]] = {}
    for name, path in pictures.items():
        picture = levels = None
        with reading.collected(problems):
            picture = read_picture(reading.inside(root, path))
        mask = truths.get(name)
        if mask:
            with reading.collected(problems):
                levels, colours = read_levels(reading.inside(root, mask))
                if picture and levels.shape != picture.pixels.shape:
                    sizes = [f"{rows} x {columns}" for rows, columns in (levels.shape, picture.pixels.shape)]
                    problems.append(f"{mask}: the mask has {sizes[0]} pixels, its image has {sizes[1]}.")
                agree(known, colours, mask)
        yield Pair(name, path, mask, picture, levels)


def _channels(labels: dict[str, int] | None) -> tuple[str, ...]:
    if labels is None:
        return (ONE_STRUCTURE,)
    if not labels or len(set(labels.values())) < len(labels):
        raise UserError(f"labels: {labels} must give at least one structure, and each a grey level of its own.")
    flaw = flaw_of_channels(tuple(labels))
    if flaw:
        raise UserError(f"labels: {flaw}.")
    return tuple(labels)


def _pattern(patient: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(patient) if patient is not None else None
    except re.error as error:
        raise UserError(f"patient: {patient!r} is not a regular expression: {sentence(error)}") from None


def _patient(stem: str, pattern: re.Pattern[str] | None, path: Path) -> str | None:
    """Return the patient from an image's name or folder."""
    folder, _, name = stem.rpartition("/")
    if pattern is None:
        return folder.split("/")[0] or None
    match = pattern.search(name)
    found = (match[1] if pattern.groups else match[0]) if match else None
    if not found:
        raise UserError(f"{path}: patient = {pattern.pattern!r} finds no patient in {name!r}.")
    return found


def _by_stem(root: Path, below: str, problems: list[str], skipped: list[Path]) -> dict[str, Path]:
    """Return the image files of a folder by their path in it, without suffix."""
    folder = root / below
    if not reading.is_folder(folder):
        raise UserError(
            f"{folder}: no such folder. {root} holds {first_few(path.name for path in reading.entries(root))}."
        )
    reading.inside(root, folder)
    found: dict[str, Path] = {}
    for path in reading.files_below(root, folder, DEPTH, problems):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if path.suffix.lower() not in KINDS:
            skipped.append(path)
        elif found.setdefault(stem, path) != path:
            problems.append(f"{path}: has the name of {found[stem]}. Which one counts? Remove the other.")
    return found


def _unpaired(
    root: Path, these: dict[str, Path], those: dict[str, Path], below: str, word: str, skipped: list[Path]
) -> Iterator[str]:
    """Yield a message for each file without a partner in the folder `below`, and what else has its name there."""
    others = {
        str(path.with_name(path.name[: dot.start()])): path for path in skipped for dot in DOT.finditer(path.name)
    }
    for name in [name for name in these if name not in those]:
        wanted = str(root / below / name)
        folder = next((wanted + ending for ending in KINDS if reading.is_folder(Path(wanted + ending))), None)
        hint = f" {folder} is a folder." if folder else ""
        if wanted in others:
            kind = volume(others[wanted].name)
            hint = f" {others[wanted]} is {f'a {kind} volume; {VOLUMES}' if kind else 'of a kind that is not read'}."
        yield f"{these[name]}: has no {word} of the same name in {below}/.{hint}"


def _masks(path: str, levels: Array, labels: dict[str, int] | None) -> NDArray[np.bool_]:
    """Return the masks (C, H, W) of a mask's levels; without labels, of one structure of level 1 or 255."""
    import numpy as np

    found = set(np.unique(levels).tolist())
    if labels is None:
        if not (found <= {0, 1} or found <= {0, 255}):
            raise UserError(
                f"{path}: contains the levels {_listed(found)}; a mask of one structure holds 0 and 1, or 0 and 255. "
                "For several, name their levels: labels = { wall = 1, cavity = 2 }."
            )
        return np.stack([levels != 0])
    unexpected = found - {0, *labels.values()}
    if unexpected:
        known = ", ".join(f"{level} ({name})" for name, level in labels.items())
        raise UserError(f"{path}: contains unexpected levels: {_listed(unexpected)}; known are 0 (none), {known}.")
    return np.stack([levels == level for level in labels.values()])


def _listed(levels: set[float]) -> str:
    return first_few((f"{level:g}" for level in sorted(levels)), 8)
