"""The Right Ventricle Segmentation Challenge's layout: DICOM frames, contour files, a list a patient."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from segkit.components.datasets.case import Case, Dataset
from segkit.components.datasets.contours import fill, outside, outside_notes, parse_list, read_contour
from segkit.components.datasets.dicom import read_dicom
from segkit.components.datasets.reading import (
    MOST_TEXT,
    entries,
    files_below,
    inside,
    is_folder,
    once,
    open_root,
    read_bytes,
    shortened,
)
from segkit.errors import UserError, counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Structure = Literal["wall", "cavity", "endocardium", "epicardium"]
Kind = Literal["i", "o"]

CONTOUR = re.compile(r"(?P<frame>.+)-(?P<kind>[a-z][0-9]?)contour(?:-manual)?\.txt", re.IGNORECASE)
LIST = re.compile(r".*list\.txt", re.IGNORECASE)
PARTS = re.compile(r".*(dicom|contours).*", re.IGNORECASE)
NEEDED: dict[str, tuple[Kind, ...]] = {
    "wall": ("i", "o"), "cavity": ("i",), "endocardium": ("i",), "epicardium": ("o",),
}  # fmt: skip
DEPTH = 3  # folders between the root and a patient's
LINE_KINDS: dict[Kind, str] = {"i": "inner", "o": "outer"}


@dataclass
class Patient:
    """What a patient's folder holds.

    Attributes:
        root: the dataset's folder.
        folder: the patient's; its name is the patient's.
        files: every file by its name in lower case.
        frames: the labelled frames, in lower case: the contour files of each, by kind.
    """

    root: Path
    folder: Path
    files: dict[str, list[Path]] = field(default_factory=dict)
    frames: dict[str, dict[str, Path]] = field(default_factory=dict)

    def file(self, name: str) -> Path | None:
        """Return the file of a name, without regard to case; None if there is none.

        Raises:
            UserError: several have that name, or it is a link out of the dataset's folder.
        """
        found = self.files.get(name.lower(), [])
        if len(found) > 1:
            raise UserError(f"{found[0]} and {found[1]} have one name. Which one counts? Remove the other.")
        return inside(self.root, found[0]) if found else None


def rvsc(*, root: Path, structures: tuple[Structure, ...] = ("wall", "cavity")) -> Dataset:
    """Right Ventricle Segmentation Challenge (Petitjean et al. 2015), or any data laid out like it.

    A patient is a folder, in `root` or up to three folders below, with `PXXlist.txt`, `PXXdicom/PXX-NNNN.dcm` and
    `PXXcontours-manual/PXX-NNNN-icontour-manual.txt` (`ocontour` for the epicardium). Case in names does not count, and
    without a list every contour file does. Frames without contours are not read. Images keep their size and
    orientation, and their spacing in mm. How contours become masks: `segkit.components.datasets.contours`.

    Args:
        root: the folder.
        structures: the channels: "endocardium" and "epicardium" are the filled contours, "cavity" is the endocardium,
            "wall" the epicardium without it. A frame that lacks a contour they need is left out, and a note says so.
            Where an inner contour leaves the outer one, its pixels are cavity and no wall; a note names the frame.

    Raises:
        UserError: a file is missing, damaged or contradicts another, or a path leads out of `root`; it is named.
    """
    top = open_root(root)
    if not structures or len(set(structures)) < len(structures):
        raise UserError(f"structures: {list(structures)} should name each channel once, and at least one.")
    patients = [read_patient(top, folder) for folder in patient_folders(top)]
    if not patients:
        raise UserError(f"{root}: no patient's folder is here (with PXXlist.txt, PXXdicom, PXXcontours-manual).")
    _check_names(patients)
    needed = {kind for structure in structures for kind in NEEDED[structure]}
    cases, partial, astray = [], [], {}
    for patient in patients:
        for frame, found in patient.frames.items():
            if needed <= set(found):
                case, beyond = read_case(patient, frame, structures)
                cases.append(case)
                astray[case.name] = beyond
            else:
                partial.append(f"{patient.folder.name}/{frame}")
    notes = [*_notes(patients, partial), *outside_notes(astray)]
    if not cases:
        listed = ", ".join(structures)
        raise UserError(f"{root}: {counted(len(patients), 'patient')}, but no frame with the contours of {listed}.")
    return Dataset("rvsc", tuple(structures), tuple(cases), tuple(notes))


def patient_folders(root: Path) -> Iterator[Path]:
    """Yield the folders that hold a patient's frames or contours, those nearest to the root first."""
    level, seen = [root], {root}
    for _ in range(DEPTH + 1):
        below: list[Path] = []
        for folder in level:
            found = entries(folder)
            folders = [path for path in found if is_folder(path)]
            if any(PARTS.fullmatch(path.name) for path in folders) or any(
                LIST.fullmatch(path.name) or CONTOUR.fullmatch(path.name) for path in found
            ):
                yield folder
            else:
                below += [once(root, path, seen) for path in folders]
        level = below


def _check_names(patients: list[Patient]) -> None:
    """Raise if two folders have the name of one patient."""
    seen: dict[str, Path] = {}
    for patient in patients:
        name = patient.folder.name.lower()
        if name in seen:
            raise UserError(f"{seen[name]} and {patient.folder}: one patient twice. Remove or rename one.")
        seen[name] = patient.folder


def read_patient(root: Path, folder: Path) -> Patient:
    """Return what a patient's folder holds: the listed contours, or all where there is no list."""
    patient = Patient(root, folder)
    for path in files_below(root, folder):
        patient.files.setdefault(path.name.lower(), []).append(path)
    contours = sorted(name for name in patient.files if CONTOUR.fullmatch(name))
    if not contours:
        return patient  # the challenge's test patients list contours that nobody has
    lists = [path for name in patient.files if LIST.fullmatch(name) for path in patient.files[name]]
    listed = [entry for path in lists for entry in _listed(patient, path)] if lists else contours
    for name in dict.fromkeys(name.lower() for name in listed):
        match, contour = CONTOUR.fullmatch(name), patient.file(name)
        if match and contour and match["kind"] in LINE_KINDS:
            patient.frames.setdefault(match["frame"], {})[match["kind"]] = contour
    return patient


def _listed(patient: Patient, path: Path) -> Iterator[str]:
    """Yield the contour files on a list, each of them there."""
    for line, name in parse_list(read_bytes(inside(patient.root, path), MOST_TEXT), str(path)):
        if not CONTOUR.fullmatch(name):
            raise UserError(f"{path}:{line}: {name[:80]!r} is no contour file (PXX-NNNN-icontour-manual.txt).")
        if patient.file(name) is None:
            raise UserError(f"{path}:{line}: {name} is not in {patient.folder}.")
        yield name


def read_case(patient: Patient, frame: str, structures: tuple[Structure, ...]) -> tuple[Case, int]:
    """Return a labelled frame, and how many pixels of its inner contour lie outside the outer one."""
    import numpy as np

    contours = patient.frames[frame]
    path: Path | None = patient.file(f"{frame}.dcm") or patient.file(frame)
    if path is None:
        raise UserError(f"{next(iter(contours.values()))}: its image {frame}.dcm is not in {patient.folder}.")
    image, spacing = read_dicom(path)
    shape = (image.shape[0], image.shape[1])
    filled = {kind: fill(read_contour(contour), shape) for kind, contour in contours.items()}
    if len(filled) == 2 and filled["i"].sum() > filled["o"].sum():
        raise UserError(f"{contours['i']}: encloses more than the outer one, {contours['o'].name}. Are they swapped?")
    masks = np.stack([_mask(structure, filled) for structure in structures])
    name = patient.folder.name
    beyond = outside(filled["i"], filled["o"]) if len(filled) == 2 else 0
    return Case(f"{name}/{path.name[: len(frame)]}", name, image, masks, spacing), beyond


def _mask(structure: Structure, filled: dict[str, NDArray[np.bool_]]) -> NDArray[np.bool_]:
    if structure == "wall":
        return filled["o"] & ~filled["i"]
    return filled[NEEDED[structure][0]]


def _notes(patients: list[Patient], partial: list[str]) -> Iterator[str]:
    """Yield what was left out."""
    empty = [patient.folder.name for patient in patients if not patient.frames]
    if empty:
        yield f"{counted(len(empty), 'patient')} without contours left out: {shortened(empty)}."
    if partial:
        frames = counted(len(partial), "frame")
        yield f"{frames} left out, for lack of an inner or an outer contour: {shortened(partial)}."
    unlisted = []
    for patient in patients:
        used = {path for found in patient.frames.values() for path in found.values()}
        for name, paths in patient.files.items():
            match = CONTOUR.fullmatch(name)
            if match and match["kind"] in LINE_KINDS and not used.intersection(paths):
                unlisted.append(paths[0].name)
    if unlisted:
        contours = counted(len(unlisted), "contour file")
        yield f"{contours} left out, which their list does not name: {shortened(unlisted)}."
