"""Images and masks in two folders: PNG, TIFF, JPEG, BMP or DICOM images, a mask of the same name for each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le

from segkit.components.datasets.case import Case, Dataset, flaw_of_channels
from segkit.components.datasets.images import KINDS, Colours, agree, read_levels, read_picture
from segkit.components.datasets.kinds import VOLUMES, volume
from segkit.components.datasets.reading import entries, files_below, inside, is_folder, open_root, shortened
from segkit.errors import UserError, counted, ended
from segkit.types import Positive

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Label = Annotated[int, Ge(1), Le(65535)]
ONE_STRUCTURE = "foreground"
DEPTH = 4  # folders below `images` and `masks`
COLOURED = "turned into grey (0.299 red + 0.587 green + 0.114 blue): one channel is read"


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
    level a structure, 0 for none; saved as RGB, their three channels are equal. Of a PNG with a palette of colours
    that begins with black, as in Pascal VOC, the indices are the levels.

    Args:
        root: the folder that holds both.
        images: the folder of the images, below `root`.
        masks: the folder of the masks, below `root`.
        labels: each structure's grey level in the masks, e.g. { wall = 1, cavity = 2 }. Without it, masks show one
            structure, "foreground", as 0 and 1 or 0 and 255.
        patient: regular expression that finds the patient in an image's name without its ending; its first group if it
            has one. Without it the patient is the first folder below `images`; images beside such folders have none.
        spacing_mm: (row, column) distance between pixel centres; DICOM images may state their own.

    Raises:
        UserError: an image without a mask or the reverse, other sizes, unexpected levels, damage; the file is named.
    """
    top = open_root(root)
    names = _channels(labels)
    pattern = _pattern(patient)
    skipped: list[str] = []
    pictures = _by_stem(top, images, skipped)
    truths = _by_stem(top, masks, skipped)
    if not pictures:
        raise UserError(f"{top / images}: {_what_instead(top / images)}")
    _check_pairs(top, pictures, truths, images, masks)
    cases, coloured = [], []
    colours: dict[int, tuple[tuple[int, int, int], Path]] = {}
    for stem, path in pictures.items():
        picture = read_picture(path)
        mask, found = _read_mask(truths[stem], path, picture.pixels.shape, labels)
        agree(colours, found, truths[stem])
        cases.append(Case(stem, _patient(stem, pattern, path), picture.pixels, mask, spacing_mm or picture.spacing_mm))
        coloured += [stem] if picture.coloured else []
    notes = [f"{counted(len(skipped), 'other file')} left out, no image: {shortened(skipped)}."] if skipped else []
    if coloured:
        notes.append(f"{counted(len(coloured), 'coloured image')} {COLOURED}: {shortened(coloured)}.")
    return Dataset("image_folder", names, tuple(cases), tuple(notes))


def _channels(labels: dict[str, int] | None) -> tuple[str, ...]:
    if labels is None:
        return (ONE_STRUCTURE,)
    if not labels or len(set(labels.values())) < len(labels):
        raise UserError(f"labels: {labels} should give each structure a grey level of its own, and name at least one.")
    flaw = flaw_of_channels(tuple(labels))
    if flaw:
        raise UserError(f"labels: {flaw}.")
    return tuple(labels)


def _pattern(patient: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(patient) if patient is not None else None
    except re.error as error:
        raise UserError(f"patient: {patient!r} is no regular expression: {ended(error)}") from None


def _patient(stem: str, pattern: re.Pattern[str] | None, path: Path) -> str | None:
    """Return the patient that an image's name or folder says."""
    folder, _, name = stem.rpartition("/")
    if pattern is None:
        return folder.split("/")[0] or None
    match = pattern.search(name)
    found = (match[1] if pattern.groups else match[0]) if match else None
    if not found:
        raise UserError(f"{path}: patient = {pattern.pattern!r} finds no patient in {name!r}.")
    return found


def _by_stem(root: Path, below: str, skipped: list[str]) -> dict[str, Path]:
    """Return the image files of a folder by their path in it, without the ending."""
    folder = root / below
    if not is_folder(folder):
        raise UserError(f"{folder}: no such folder. Here are: {shortened(path.name for path in entries(root))}.")
    inside(root, folder)
    found: dict[str, Path] = {}
    for path in files_below(root, folder, DEPTH):
        if path.suffix.lower() not in KINDS:
            skipped.append(path.relative_to(root).as_posix())
            continue
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise UserError(f"{found[stem]} and {path}: two files of one name. Which one counts? Remove the other.")
        found[stem] = inside(root, path)
    return found


def _what_instead(folder: Path) -> str:
    """Return what is in a folder without images."""
    paths = list(files_below(folder.resolve(), folder, DEPTH))
    kinds = [kind for path in paths if (kind := volume(path.name))]
    if kinds:
        return f"{counted(len(kinds), f'{kinds[0]} volume')}, no images; {VOLUMES}."
    listed = f"Here are: {shortened(path.name for path in paths)}." if paths else "It is empty."
    return f"holds no images (PNG, TIFF, JPEG, BMP, DICOM). {listed}"


def _check_pairs(root: Path, pictures: dict[str, Path], truths: dict[str, Path], images: str, masks: str) -> None:
    """Raise unless every image has a mask and every mask an image."""
    lines = []
    for these, those, word, folder in ((pictures, truths, "mask", masks), (truths, pictures, "image", images)):
        alone = [stem for stem in these if stem not in those]
        if alone:
            listed = shortened(str(these[stem]) for stem in alone)
            hint = _same_name(root / folder / alone[0]) if those else f" {folder}: {_what_instead(root / folder)}"
            lines.append(f"{counted(len(alone), 'file')} without {word} of the same name in {folder}/: {listed}.{hint}")
    if lines:
        raise UserError("\n".join(lines))


def _same_name(wanted: Path) -> str:
    """Return a sentence about what has the name, without its ending, of a file that is missing."""
    for path in entries(wanted.parent) if is_folder(wanted.parent) else ():
        if path.name.startswith(f"{wanted.name}."):
            if is_folder(path):
                return f" {path} is a folder."
            kind = volume(path.name)
            return f" {path} is a {kind} volume; {VOLUMES}." if kind else f" {path} is of a kind that is not read."
    return ""


def _read_mask(
    path: Path, image: Path, shape: tuple[int, ...], labels: dict[str, int] | None
) -> tuple[NDArray[np.bool_], Colours]:
    """Return the masks (C, H, W) of a file, checked against its image and the labels, and the colours of a palette.

    Args:
        path: the file.
        image: the image's file, for messages.
        shape: the image's, (H, W).
        labels: the grey level of each structure, or None for one structure of level 1 or 255.

    Raises:
        UserError: it cannot be read, has another size, or holds other levels.
    """
    import numpy as np

    levels, colours = read_levels(path)
    if levels.shape != shape:
        raise UserError(
            f"{path}: the mask has {levels.shape[0]} x {levels.shape[1]} pixels, "
            f"its image {image} has {shape[0]} x {shape[1]}."
        )
    found = set(np.unique(levels).tolist())
    if labels is None:
        if not (found <= {0, 1} or found <= {0, 255}):
            raise UserError(
                f"{path}: holds the levels {_listed(found)}; a mask of one structure holds 0 and 1, or 0 and 255. "
                "For several, name their levels: labels = { wall = 1, cavity = 2 }."
            )
        one: NDArray[np.bool_] = np.asarray(levels != 0)[np.newaxis]
        return one, colours
    unexpected = found - {0, *labels.values()}
    if unexpected:
        known = ", ".join(f"{level} ({name})" for name, level in labels.items())
        raise UserError(f"{path}: holds unexpected levels: {_listed(unexpected)}; known are 0 (none), {known}.")
    return np.stack([levels == level for level in labels.values()]), colours


def _listed(levels: set[float]) -> str:
    return shortened((f"{level:g}" for level in sorted(levels)), 8)
