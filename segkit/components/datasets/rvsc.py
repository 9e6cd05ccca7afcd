"""The Right Ventricle Segmentation Challenge's layout: DICOM frames, contour files, a list a patient."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from segkit.components.datasets import cine, contours, reading
from segkit.components.datasets.case import Dataset
from segkit.errors import UserError, counted, first_few

Structure = Literal["wall", "cavity", "endocardium", "epicardium"]

CONTOUR = re.compile(r"(?P<frame>.+)-(?P<kind>[a-z][0-9]?)contour(?:-manual)?\.txt", re.IGNORECASE)
NUMBER = re.compile(r".*?([0-9]{1,9})")
LIST = re.compile(r".*list\.txt", re.IGNORECASE)
PARTS = re.compile(r".*(dicom|contours).*", re.IGNORECASE)
DEPTH = 3  # folders between the root and a patient's
LINE_KINDS = {"i": "inner", "o": "outer"}


@dataclass
class Patient:
    """The content of a patient's folder.

    Attributes:
        root: the dataset's folder.
        folder: the patient's; its name is the patient's.
        files: the files by name in lower case.
        frames: the contour files of each labelled frame, by frame in lower case and by kind.
    """

    root: Path
    folder: Path
    files: dict[str, list[Path]] = field(default_factory=dict)
    frames: dict[str, dict[str, Path]] = field(default_factory=dict)

    def file(self, name: str) -> Path | None:
        """Return the file of a name, whatever its case; None if there is none.

        Raises:
            UserError: several have that name, or it is a link out of the dataset's folder.
        """
        found = self.files.get(name.lower(), [])
        if len(found) > 1:
            raise UserError(f"{found[0]} and {found[1]} have the same name. Which one counts? Remove the other.")
        return reading.inside(self.root, found[0]) if found else None

    def image(self, frame: str) -> Path:
        """Return the image of a labelled frame.

        Raises:
            UserError: it is not there, or there are two.
        """
        path = self.file(f"{frame}.dcm") or self.file(frame)
        if path is None:
            contour = next(iter(self.frames[frame].values()))
            raise UserError(f"{contour}: its image {frame}.dcm is not in {self.folder}.")
        return path

    def phases(self) -> dict[str, str]:
        """Return "ED" or "ES" of each labelled frame, where their numbers say so; see `cine.phases_of`."""
        numbers = {frame: int(match[1]) for frame in self.frames if (match := NUMBER.fullmatch(frame))}
        found = cine.phases_of(numbers.values())
        return {frame: found[number] for frame, number in numbers.items() if number in found}


def rvsc(*, root: Path, structures: tuple[Structure, ...] = ("wall", "cavity"), volumes: bool = False) -> Dataset:
    """Right Ventricle Segmentation Challenge (Petitjean et al. 2015), or any data laid out like it.

    A patient is a folder, in `root` or up to three folders below, with `PXXlist.txt`, `PXXdicom/PXX-NNNN.dcm` and
    `PXXcontours-manual/PXX-NNNN-icontour-manual.txt` (`ocontour` for the epicardium). Names may be in any case, and
    without a list every contour file counts. Frames without contours are not read. Images keep their size, orientation
    and spacing in mm. How contours become masks: `segkit.components.datasets.contours`.

    The tag `phase` is ED or ES. Frames are numbered through all slices, twenty a slice, from the R wave on: P01-0000,
    P01-0020, ... are at end diastole, and P01-0008, P01-0028, ..., or others about a third of the cycle later, at end
    systole. Where numbers do not fit that, there is no tag.

    Args:
        root: the folder.
        structures: the channels: "endocardium" and "epicardium" are the filled contours, "cavity" is the endocardium,
            "wall" the epicardium without it. A frame that lacks a contour they need is left out, and a note says so.
            Pixels of an inner contour outside the outer one are cavity and not wall; a note names the frame.
        volumes: one case of each patient and phase, the stack of its labelled slices, instead of one of each slice.
            Their order and distance are those of the positions in the headers, else of the frames' numbers and
            SpacingBetweenSlices or SliceThickness. A stack that lacks a slice inside is left out; a note names it.

    Raises:
        UserError: a file is missing, damaged or contradicts another, or a path leads out of `root`; it is named.
    """
    top = reading.open_root(root)
    contours.check_structures(structures)
    problems: list[str] = []
    patients = read_patients(top, problems)
    if not patients and not problems:
        raise UserError(f"{root}: contains no patient's folder (with PXXlist.txt, PXXdicom, PXXcontours-manual).")
    needed = {kind for structure in structures for kind in contours.NEEDED[structure]}
    frames, partial = cine.Frames("rvsc", structures), []
    for patient in patients:
        phases = patient.phases()
        for frame, lines in patient.frames.items():
            if not needed <= set(lines):
                partial.append(f"{patient.folder.name}/{frame}")
                continue
            with reading.collected(problems):
                path = patient.image(frame)
                name = f"{patient.folder.name}/{path.name[: len(frame)]}"
                frames.add(name, patient.folder.name, path, lines, phases.get(frame))
    return frames.dataset(root, volumes=volumes, notes=tuple(_notes(patients, partial)), problems=problems)


def read_patients(root: Path, problems: list[str]) -> list[Patient]:
    """Return the patients whose folders lie below `root`; what is wrong is added to `problems`."""
    patients: dict[str, Patient] = {}
    for folder in _patient_folders(root, problems):
        other = patients.get(folder.name.lower())
        if other:
            problems.append(f"{other.folder} and {folder}: one patient twice. Remove or rename one.")
        else:
            patients[folder.name.lower()] = _read_patient(root, folder, problems)
    return list(patients.values())


def _patient_folders(root: Path, problems: list[str]) -> Iterator[Path]:
    """Yield the folders that hold a patient's frames or contours, those nearest to the root first."""
    level, seen = [root], {root}
    for _ in range(DEPTH + 1):
        below: list[Path] = []
        for folder in level:
            found = reading.entries(folder, problems)
            folders = [path for path in found if reading.is_folder(path)]
            parts = any(PARTS.fullmatch(path.name) for path in folders)
            if parts or any(LIST.fullmatch(path.name) or CONTOUR.fullmatch(path.name) for path in found):
                yield folder
                continue
            for path in folders:
                with reading.collected(problems):
                    below.append(reading.once(root, path, seen))
        level = below


def _read_patient(root: Path, folder: Path, problems: list[str]) -> Patient:
    """Return the content of a patient's folder: the listed contours, or all without a list."""
    patient = Patient(root, folder)
    for path in reading.files_below(root, folder, problems=problems):
        patient.files.setdefault(path.name.lower(), []).append(path)
    names = sorted(name for name in patient.files if CONTOUR.fullmatch(name))
    if not names:
        return patient  # the lists of the challenge's test patients name contours that were never published
    lists = [path for name in patient.files if LIST.fullmatch(name) for path in patient.files[name]]
    listed = [name for path in lists for name in _listed(patient, path, problems)] if lists else names
    for name in dict.fromkeys(name.lower() for name in listed):
        match = CONTOUR.fullmatch(name)
        if match and match["kind"] in LINE_KINDS:
            with reading.collected(problems):
                if contour := patient.file(name):
                    patient.frames.setdefault(match["frame"], {})[match["kind"]] = contour
    return patient


def _listed(patient: Patient, path: Path, problems: list[str]) -> Iterator[str]:
    """Yield the contour files of a list that exist."""
    with reading.collected(problems):
        data = reading.read_bytes(reading.inside(patient.root, path), reading.MOST_TEXT)
        for line, name in contours.parse_list(data, str(path)):
            if not CONTOUR.fullmatch(name):
                problems.append(f"{path}:{line}: {name[:80]!r} is not a contour file (PXX-NNNN-icontour-manual.txt).")
            elif name.lower() not in patient.files:
                problems.append(f"{path}:{line}: {name} is not in {patient.folder}.")
            else:
                yield name


def _notes(patients: list[Patient], partial: list[str]) -> Iterator[str]:
    """Yield a note for each kind of data left out."""
    empty = [patient.folder.name for patient in patients if not patient.frames]
    if empty:
        yield f"{counted(len(empty), 'patient')} without contours left out: {first_few(empty)}."
    if partial:
        frames = counted(len(partial), "frame")
        yield f"{frames} left out, which lack an inner or an outer contour: {first_few(partial)}."
    used = {path for patient in patients for found in patient.frames.values() for path in found.values()}
    unlisted = [
        paths[0].name
        for patient in patients
        for name, paths in patient.files.items()
        if (match := CONTOUR.fullmatch(name)) and match["kind"] in LINE_KINDS and not used.intersection(paths)
    ]
    if unlisted:
        yield f"{counted(len(unlisted), 'contour file')} left out, not named in a list: {first_few(unlisted)}."
