"""Images and masks in two folders: PNG, TIFF, JPEG, BMP or DICOM images, a mask of the same name for each."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from segkit.components.datasets import reading
from segkit.components.datasets.case import CaseFiles, Dataset
from segkit.components.datasets.formats.kinds import IMAGES, advice_on, describe_other_content, volume
from segkit.components.datasets.loading import Lengths, Loader, input_names
from segkit.components.datasets.patterns import find_patient, patient_expression
from segkit.components.datasets.structures import Label, WrittenColour, structures_in_pictures
from segkit.errors import UserError, counted, first_few

DOT = re.compile(r"(?<!^)\.")
DEPTH = 4  # folders below `images` and `masks`
MASK_WORDS = ("mask", "label", "seg", "truth", "gt", "annot", "manual", "roi")
MASK_SUFFIX = re.compile(rf"(.*?)[-_. ]*({'|'.join(MASK_WORDS)})[a-z]*[-_. ]*[0-9]*", re.IGNORECASE)


def image_folder(
    *,
    root: Path,
    images: str | dict[str, str] = "images",
    masks: str = "masks",
    labels: dict[str, Label | WrittenColour] | None = None,
    background: WrittenColour | None = None,
    grey: bool | None = None,
    patient: str | None = None,
    spacing_mm: Lengths | None = None,
) -> Dataset:
    """Images and masks of the same name in two folders, patients in sub-folders or in the names.

    `root/images/patient01/a.png` has the mask `root/masks/patient01/a.png`, or one whose name ends in _mask,
    _segmentation or the like, as in `a_mask.png`; the kinds of file may differ. Images are PNG, TIFF, JPEG, BMP or
    DICOM of 8 to 16 bits or float; images in colour have three inputs, alpha is dropped. A TIFF of several pages is a
    volume. Masks hold one grey level or colour per structure, 0 or black for none; saved as RGB with equal channels
    they are grey. If a PNG has a palette of colours that begins with black, as in Pascal VOC, its indices are the
    levels.

    Args:
        root: the folder that holds both.
        images: the folder of the images, below `root`; or one an input, with the same names in each, e.g.
            { t1 = "t1", t2 = "t2" }.
        masks: the folder of the masks, below `root`.
        labels: each structure's grey level in the masks, e.g. { wall = 1, cavity = 2 }, or its colour, as in
            { wall = "#ff0000", cavity = [0, 255, 0] }. Without it, masks show one structure, "foreground", as 0 and 1
            or 0 and 255.
        background: the colour of no structure, where labels are colours; black if it is not given.
        grey: true turns colour into grey, false reads red, green and blue of every image. Without it, images are read
            as red, green and blue if a few of them show colours.
        patient: regular expression that finds the patient in an image's name without its suffix; its first group if it
            has one. Without it the patient is the first folder below `images`; images beside such folders have none.
        spacing_mm: (row, column) distance between pixel centres, of volumes (slice, row, column); DICOM images may
            state their own.

    Raises:
        UserError: an image without a mask or the reverse, other sizes, unexpected levels, damage; the file is named.
    """
    top = reading.open_root(root)
    structures = structures_in_pictures(labels, background)
    loader = Loader(structures, input_names(images, grey, "images"), grey, spacing_mm)
    expression = patient_expression(patient)
    problems: list[str] = []
    skipped: list[Path] = []
    found = []
    for case in find_pairs(top, images, masks, problems, skipped):
        with reading.collected(problems):
            folder, _, name = case.name.rpartition("/")
            whose = find_patient(expression, name, case.images[0]) if expression else folder.split("/")[0] or None
            found.append(replace(case, patient=whose))
    notes = []
    if skipped:
        listed = first_few(path.relative_to(top).as_posix() for path in skipped)
        notes.append(f"{counted(len(skipped), 'non-image file')} left out: {listed}.")
    return loader.dataset("image_folder", found, problems, notes)


def find_pairs(
    root: Path, images: str | Mapping[str, str], masks: str, problems: list[str], skipped: list[Path]
) -> list[CaseFiles]:
    """Return the images of a folder, or of one an input, each with its mask; no file is opened.

    Args:
        root: the folder that holds all, links resolved.
        images: the folders of the images, below `root`.
        masks: the folder of the masks, below `root`.
        problems: receives the problems of single files.
        skipped: receives the files that are not images.

    Raises:
        UserError: one of the folders is missing, or contains no images.
    """
    folders = [images] if isinstance(images, str) else list(images.values())
    *pictures, truths = (_by_stem(root, below, problems, skipped) for below in (*folders, masks))
    for below, files in zip((*folders, masks), (*pictures, truths), strict=True):
        if not files and not problems:
            names = [path.name for path in reading.files_below(root, root / below, DEPTH)]
            raise UserError(f"{root / below}: contains no images. {describe_other_content(root / below, names)}")
    first, *others = pictures
    truths = _by_image(truths, first, problems)
    problems += _unpaired(root, first, truths, masks, "mask", skipped)
    problems += _unpaired(root, truths, first, folders[0], "image", skipped)
    for below, files in zip(folders[1:], others, strict=True):
        problems += _unpaired(root, first, files, below, "image", skipped)
        problems += _unpaired(root, files, first, folders[0], "image", skipped)
    found = []
    for name in first:
        if all(name in files for files in (*pictures, truths)):
            with reading.collected(problems):
                *paths, mask = (reading.inside(root, files[name]) for files in (*pictures, truths))
                found.append(CaseFiles(name, None, tuple(paths), (mask,)))
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
        if path.suffix.lower() not in IMAGES:
            skipped.append(path)
        elif found.setdefault(stem, path) != path:
            problems.append(f"{path}: has the name of {found[stem]}. Which one counts? Remove the other.")
    return found


def _by_image(masks: dict[str, Path], images: dict[str, Path], problems: list[str]) -> dict[str, Path]:
    """Return masks by the names of their images."""
    found: dict[str, Path] = {}
    for name, path in masks.items():
        image = name_of_image(name, images)
        if found.setdefault(image, path) != path:
            remedy = "Keep one; masks of one structure each are listed in a CSV, for the dataset table."
            problems.append(f"{path}: a second mask of {images[image]}, beside {found[image]}. {remedy}")
    return found


def name_of_image(mask: str, images: Container[str]) -> str:
    """Return the name of a mask's image: the mask's own, or without an ending such as _mask where only that exists."""
    match = None if mask in images else MASK_SUFFIX.fullmatch(mask)
    return match[1] if match and match[1] in images else mask


def _unpaired(
    root: Path, these: dict[str, Path], those: dict[str, Path], below: str, word: str, skipped: list[Path]
) -> Iterator[str]:
    """Yield a message for each file without a partner in the folder `below`, and what else has its name there."""
    others = {
        str(path.with_name(path.name[: dot.start()])): path for path in skipped for dot in DOT.finditer(path.name)
    }
    for name in [name for name in these if name not in those]:
        wanted = str(root / below / name)
        folder = next((wanted + ending for ending in IMAGES if reading.is_folder(Path(wanted + ending))), None)
        hint = f" {folder} is a folder." if folder else ""
        if wanted in others:
            kind = volume(others[wanted].name)
            what = f"a {kind} volume; {advice_on(kind)}" if kind else "of a kind that is not read"
            hint = f" {others[wanted]} is {what}."
        yield f"{these[name]}: has no {word} of the same name in {below}/.{hint}"
