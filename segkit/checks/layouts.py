"""The layout of a dataset folder, from the names of its files."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from segkit.checks.guess import Guess
from segkit.components.datasets.formats.kinds import DICOM, IMAGES, advice_on, volume
from segkit.components.datasets.image_folder import MASK_SUFFIX, MASK_WORDS, name_of_image
from segkit.components.datasets.reading import is_folder
from segkit.errors import counted, first_few
from segkit.recipe import toml

SUNNYBROOK = re.compile(r"(^|/)(SCD[0-9]{7}|SCD_ManualContours|SCD_IMAGES_[0-9]+|contours-manual/IRCCI-expert)/", re.I)
ACDC = re.compile(r"(^|/)patient[0-9]{3}/patient[0-9]{3}_(frame[0-9]+(_gt)?|4d)\.nii(\.gz)?$")
NNUNET = re.compile(r"(^|/)(imagesTr|labelsTr)/")
ENDING = re.compile(r"\.(nii\.gz|tar\.gz|[^./]*)$")
PAIR_DEPTH = 2  # levels below the root at which folders of images and masks are searched
SCAN_DEPTH = 7
UNNAMED = (
    "none that the name of its file or folder shows to be the mask of another. Name masks case1_seg.nii.gz beside "
    "case1.nii.gz, or labels/case1.nii.gz beside images/case1.nii.gz; or state the patterns: [data.nifti] images = "
    '"{patient}.nii.gz", masks = "{patient}_seg.nii.gz".'
)
WITHOUT_MASKS = (
    "Convert each series and its masks to NIfTI (dcm2niix), for the dataset nifti; or list images and masks in a CSV, "
    "for the dataset table."
)
MOST_FOLDERS = 60  # of one parent that are compared


@dataclass(frozen=True)
class Pair:
    """A folder of images and one of masks, relative to the root, and the number of names that they share.

    `alike` are further folders of images that share as many with the masks, which may be further inputs.
    """

    images: str
    masks: str
    common: int
    alike: tuple[str, ...] = ()


def stem(file: str) -> str | None:
    """Return the path of an image file without its ending; None for other files."""
    head, dot, ending = file.rpartition(".")
    return head if dot and f".{ending.lower()}" in IMAGES else None


def pairs(files: Iterable[str]) -> list[Pair]:
    """Return the folders of images beside a folder of masks with the same names, the largest first."""
    stems: dict[str, set[str]] = defaultdict(set)
    for file in files:
        name = stem(file)
        parts = name.split("/") if name else []
        for depth in range(1, min(PAIR_DEPTH, len(parts) - 1) + 1):
            stems["/".join(parts[:depth])].add("/".join(parts[depth:]))
    beside: dict[str, list[str]] = defaultdict(list)
    for folder in stems:
        beside[folder.rpartition("/")[0]].append(folder)
    found = []
    for folders in beside.values():
        masks = [folder for folder in folders if is_mask(folder)][:MOST_FOLDERS]
        images = [folder for folder in folders if not is_mask(folder)][:MOST_FOLDERS]
        shared = [Pair(one, other, _shared(stems[one], stems[other])) for one, other in product(images, masks)]
        best = max(shared, key=lambda pair: pair.common, default=None)
        if best:
            same = [pair.images for pair in shared if (pair.masks, pair.common) == (best.masks, best.common)]
            found.append(replace(best, alike=tuple(folder for folder in same if folder != best.images)))
    return sorted((pair for pair in found if pair.common), key=lambda pair: (-pair.common, pair.images.count("/")))


def _shared(images: set[str], masks: set[str]) -> int:
    return len(images & {name_of_image(name, images) for name in masks})


def guess_image_folder(root: Path, files: Sequence[str]) -> Guess | None:
    """Return how the dataset `image_folder` reads the folder; None if no images and masks share names."""
    found = pairs(files)
    if not found:
        return None
    best, *others = found
    folders = {name: folder for name, folder in (("images", best.images), ("masks", best.masks)) if folder != name}
    masks = tuple(root / file for file in files if file.startswith(f"{best.masks}/") and stem(file))
    listed = first_few((f"{pair.images} with {pair.masks}" for pair in others), 3)
    more = (
        f"{counted(len(others), 'more pair')} of folders, which the lines below leave out: {listed}. One pair is "
        "read: put all images below one folder, one for each patient, and the masks below another in the same way."
    )
    inputs = {folder.rpartition("/")[2].lower(): folder for folder in (best.images, *best.alike)}
    line = f"# images = {toml.format_value(inputs)}  # {len(inputs)} inputs of the same names? Then use this line."
    return Guess(
        "image_folder",
        {"root": str(root), **folders},
        masks,
        notes=(more,) if others else (),
        hints=(line,) if best.alike else (),
    )


def is_mask(folder: str) -> bool:
    """Return whether a folder's name says that it holds masks."""
    return any(word in folder.rpartition("/")[2].lower() for word in MASK_WORDS)


def count_endings(files: Iterable[str]) -> str:
    """Return the number of files of each extension."""
    counts = Counter(_ending(file) for file in files)
    shown = ", ".join(f"{count} {ending}" for ending, count in counts.most_common(6))
    return shown + (f" and {counted(len(counts) - 6, 'more kind')}" if len(counts) > 6 else "")


def _ending(file: str) -> str:
    match = ENDING.search(file.lower())
    return match[0] if match else "without ending"


def explain_unknown(root: Path, files: list[str]) -> str:
    """Return why no reader can read a folder, and what to do."""
    if not files:
        hidden = sum(path.name.startswith(".") for path in root.iterdir())
        folders = sum(is_folder(path) and not path.name.startswith(".") for path in root.iterdir())
        content = f"holds {counted(folders, 'folder')}, but no files" if folders else "is empty"
        return content + (f", but for {counted(hidden, 'hidden file')}." if hidden else ".")
    volumes = Counter(kind for file in files if (kind := volume(file)))
    images = [name for file in files if (name := stem(file))]
    advice = (
        "Lay them out as images/PATIENT/1.png and masks/PATIENT/1.png, each mask named as its image; or list images "
    )
    advice += "and masks in a CSV, for the dataset table; or write a reader: segkit new data NAME."
    if volumes:
        kind = volumes.most_common(1)[0][0]
        acdc = "the layout of ACDC (patient001/patient001_frame01.nii.gz): "
        acdc = acdc if any(ACDC.search(file) for file in files) else ""
        what = f"{acdc}{counted(sum(volumes.values()), f'{kind} volume')}"
        return f"{what}, but {UNNAMED}" if kind == "NIfTI" else f"{what}; {advice_on(kind)}."
    if not images:
        return f"no known layout: no images (PNG, TIFF, JPEG, BMP, DICOM), but {count_endings(files)}."
    known = set(images)
    mask = next((name for name in images if (match := MASK_SUFFIX.fullmatch(name)) and match[1] in known), None)
    if mask:
        return f"images and masks are in one folder ({mask} is a mask): put the masks into another. {advice}"
    if all(_ending(file) in DICOM for file in files if stem(file)):
        held = f"{counted(len(images), 'DICOM image')}, but no masks and no contours (PXXcontours-manual)."
        return f"{held} {WITHOUT_MASKS}"
    alike = _alike(files)
    if alike:
        listed = " and ".join(alike)
        return f"{listed} hold files of the same names. Which are masks? Call that folder masks. {advice}"
    many = counted(len(images), "image")
    return f"no known layout: {many} ({count_endings(files)}), but no masks of the same names. {advice}"


def _alike(files: list[str]) -> list[str]:
    """Return two top-level folders that share names of images, or []."""
    seen: dict[str, str] = {}
    for file in files:
        folder, _, name = (stem(file) or "").partition("/")
        if name and seen.setdefault(name, folder) != folder:
            return [seen[name], folder]
    return []
