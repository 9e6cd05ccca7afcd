"""A dataset in its own published layout: Sunnybrook Cardiac Data, images and contours linked by the patient table."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from segkit import UserError, datasets
from segkit.components.datasets import Dataset, cine, fill, read_contour, read_dicom
from segkit.components.datasets.contours import Contour, check_structures
from segkit.components.datasets.formats.dicom_header import read_format
from segkit.components.datasets.reading import (
    MOST_TEXT,
    collected,
    decode,
    entries,
    inside,
    is_folder,
    once,
    open_root,
    read_bytes,
)
from segkit.errors import counted, first_few

Structure = Literal["wall", "cavity"]
Contours = dict[int, dict[str, Contour]]  # frame number -> "i" or "o" -> line

CONTOUR = re.compile(r"IM-[0-9]+-([0-9]{1,6})-([io])contour-manual\.txt", re.IGNORECASE)
IMAGE = re.compile(r"IM-[0-9]+-([0-9]{1,6})\.dcm", re.IGNORECASE)
PATIENT, SERIES = re.compile(r"SCD[0-9]{7}"), re.compile(r"CINESAX_.+")
DEPTH = 4  # folders below the root in which patients, contours and the table are looked for
CLEARLY = 1.1  # how much stronger the edges under the contours must be in the best series than in the next


@datasets.register("sunnybrook")
def sunnybrook(
    *,
    root: Path,
    structures: tuple[Structure, ...] = ("wall", "cavity"),
    series: dict[str, str] | None = None,
    volumes: bool = False,
) -> Dataset:
    """Sunnybrook Cardiac Data (Radau et al. 2009): the left ventricle in short-axis cine MR of 45 patients.

    Below `root`, as published: `SCD_IMAGES_*/SCD0000101/CINESAX_*/IM-*-NNNN.dcm`, `SCD_ManualContours/SC-HF-I-01/
    contours-manual/IRCCI-expert/IM-0001-NNNN-icontour-manual.txt` (`ocontour` for the epicardium), and the patient
    table, a CSV file with the columns PatientID and OriginalID, which links SC-HF-I-1 to SCD0000101. NNNN is the
    frame's number within its series, twenty a slice, from the R wave on; it tells the tag `phase`, ED or ES. The
    contours' origin is taken as the centre of the top left pixel.

    Which CINESAX series the contours belong to is nowhere written. It is the one that has an image for every contour's
    number, each large enough for its contour. If several do, it is the one with the strongest edges under the contours
    (mean gradient there over mean gradient of the image), if they are at least a tenth stronger than in the next;
    otherwise the patient is refused, and `series` is to say which.

    Args:
        root: the folder.
        structures: the channels: "cavity" is the inner contour, filled, "wall" the outer one without it. Outer contours
            exist at end diastole only: ("cavity",) takes end systole along. Frames that lack one are left out. Where
            an inner contour leaves the outer one, its pixels there are cavity and no wall; a note names the frame.
        series: of a patient, e.g. { SCD0000101 = "CINESAX_300" }, where it is not to be found out.
        volumes: one case of each patient and phase, the stack of its labelled slices in order of their positions,
            instead of one of each slice. A stack that lacks a slice inside is left out; a note names it.

    Raises:
        UserError: a file is missing, damaged or contradicts another, or no series or several fit; it is named.

    Source: Radau et al. 2009 (Evaluation framework for algorithms segmenting short axis cardiac MRI); CC0.
    """
    top = open_root(root)
    check_structures(structures)
    needed = {"i", "o"} if "wall" in structures else {"i"}
    problems: list[str] = []
    frames, partial, absent = cine.Frames("sunnybrook", structures), [], []
    for patient, images, folder in _linked(top, problems):
        if images is None:
            absent.append(patient)
            continue
        with collected(problems):
            contours = _contours(top, folder)
            chosen = _choose(_candidates(top, images, (series or {}).get(patient)), contours, images)
            phases = cine.phases_of(contours)
            for number, lines in contours.items():
                name = f"{patient}/{chosen[number].stem}"
                if needed <= set(lines):
                    files = {kind: Path(line.name) for kind, line in lines.items()}
                    frames.add(name, patient, chosen[number], files, phases.get(number))
                else:
                    partial.append(name)
    left_out = (
        (absent, "patient", "with contours, but without images here"),
        (partial, "frame", "left out, which lack an inner or an outer contour"),
    )
    notes = [f"{counted(len(found), noun)} {what}: {first_few(found)}." for found, noun, what in left_out if found]
    return frames.dataset(root, volumes=volumes, notes=notes, problems=problems)


def _linked(top: Path, problems: list[str]) -> Iterator[tuple[str, Path | None, Path]]:
    """Yield the PatientID, the folder of images (None if it is not there) and that of contours of each patient."""
    found = list(_walk(top, top, DEPTH, {top}, problems))
    ids = _table(top, [path for path in found if path.suffix.lower() == ".csv"])
    images: dict[str, Path] = {}
    for path in found:
        if is_folder(path) and PATIENT.fullmatch(path.name) and images.setdefault(path.name, path) != path:
            problems.append(f"{images[path.name]} and {path}: one patient twice. Remove or rename one.")
    for path in found:
        if is_folder(path / "contours-manual" / "IRCCI-expert"):
            patient = ids.get(_plain(path.name))
            if patient:
                yield patient, images.get(patient), path
            else:
                problems.append(f"{path}: the patient table has no OriginalID {_plain(path.name)}.")


def _walk(top: Path, folder: Path, depth: int, seen: set[Path], problems: list[str]) -> Iterator[Path]:
    """Yield files and folders, but nothing inside a patient's."""
    for path in entries(folder, problems):
        with collected(problems):
            yield once(top, path, seen) if is_folder(path) else inside(top, path)
            whole = PATIENT.fullmatch(path.name) or is_folder(path / "contours-manual")
            if depth > 1 and is_folder(path) and not whole:
                yield from _walk(top, path, depth - 1, seen, problems)


def _plain(name: str) -> str:
    """Return SC-HF-I-1 of SC-HF-I-01: the table and the folders do not agree on zeros."""
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", name.strip().upper())


def _table(top: Path, files: list[Path]) -> dict[str, str]:
    """Return the PatientID of each OriginalID."""
    for path in files:
        rows = csv.DictReader(decode(read_bytes(path, MOST_TEXT), str(path)).splitlines(), skipinitialspace=True)
        try:
            if not {"PatientID", "OriginalID"} <= set(rows.fieldnames or ()):
                continue
            ids: dict[str, str] = {}
            for row in rows:
                key, patient = _plain(row["OriginalID"] or ""), (row["PatientID"] or "").strip()
                if key and (key in ids or patient in ids.values()):
                    raise UserError(
                        f"{path}:{rows.line_num}: {key} or {patient} is here twice; ids tell patients apart."
                    )
                ids.update({key: patient} if key else {})
            return ids
        except csv.Error as error:
            raise UserError(f"{path}:{rows.line_num}: not a CSV table: {error}.") from None
    raise UserError(f"{top}: no patient table is here (a CSV file with the columns PatientID and OriginalID).")


def _contours(top: Path, folder: Path) -> Contours:
    """Return the inner and outer contours of a patient by frame; papillary muscles (p1, p2) are not read."""
    found: Contours = {}
    for path in entries(folder / "contours-manual" / "IRCCI-expert"):
        match = CONTOUR.fullmatch(path.name)
        if match:
            lines = found.setdefault(int(match[1]), {})
            if match[2].lower() in lines:
                raise UserError(f"{path}: a second contour of frame {match[1]}. Which one counts? Remove the other.")
            lines[match[2].lower()] = read_contour(inside(top, path))
    if not found:
        raise UserError(f"{folder}: holds no contours (IM-0001-0048-icontour-manual.txt).")
    return found


@dataclass
class _Series:
    """A CINESAX folder: its files by frame number, and the numbers that two files share."""

    folder: Path
    files: dict[int, Path]
    twice: set[int]


def _candidates(top: Path, patient: Path, named: str | None) -> list[_Series]:
    """Return a patient's short-axis series, or the one that was named."""
    folders = [path for path in entries(patient) if is_folder(path) and SERIES.fullmatch(path.name)]
    chosen = [path for path in folders if named in (None, path.name)]
    if not chosen:
        wanted = f"series {named}" if named else "CINESAX_* folder"
        raise UserError(f"{patient}: has no {wanted}. Here are: {first_few(path.name for path in entries(patient))}.")
    found = [_Series(inside(top, folder), {}, set()) for folder in chosen]
    for series in found:
        for path in entries(series.folder):
            match = IMAGE.fullmatch(path.name)
            if match:
                number = int(match[1])
                series.twice |= {number} & set(series.files)
                series.files[number] = inside(top, path)
    return found


def _choose(candidates: list[_Series], contours: Contours, patient: Path) -> dict[int, Path]:
    """Return the frames' files in the series that the contours belong to, by the rule of `sunnybrook`."""
    fitting, reasons = [], []
    for series in candidates:
        try:
            files = _fitted(series, contours)
            strength = _edge_strength(files, contours) if len(candidates) > 1 else 1.0
        except UserError as reason:
            reasons.append(f"  {series.folder.name}: {reason}")
            continue
        fitting.append((strength, series, files))
    if not fitting:
        raise UserError("\n".join([f"{patient}: its contours fit none of its series.", *reasons]))
    fitting.sort(key=lambda item: -item[0])
    if len(fitting) > 1 and fitting[0][0] < CLEARLY * fitting[1][0]:
        listed = ", ".join(f"{series.folder.name} ({strength:.2f})" for strength, series, _ in fitting)
        raise UserError(
            f"{patient}: its contours fit several series about equally well: {listed}. "
            f'Say which: series = {{ {patient.name} = "{fitting[0][1].folder.name}" }}.'
        )
    return fitting[0][2]


def _fitted(series: _Series, contours: Contours) -> dict[int, Path]:
    """Return the files of the contours' frames; raise unless each is there and large enough."""
    missing = [f"{number:04d}" for number in contours if number not in series.files]
    double = [f"{number:04d}" for number in contours if number in series.twice]
    if missing or double:
        fault = (
            f"{counted(len(missing), 'frame')} not there" if missing else f"{counted(len(double), 'frame')} there twice"
        )
        raise UserError(f"{fault}: {first_few(missing or double)}.")
    for number, lines in contours.items():
        found = read_format(series.files[number])
        for line in lines.values():
            fill(line, (found.rows, found.columns))
    return {number: series.files[number] for number in contours}


def _edge_strength(files: dict[int, Path], contours: Contours) -> float:
    """Return the mean gradient under the contours over that of the whole images."""
    import numpy as np

    under, everywhere = [], []
    for number, path in files.items():
        image, _ = read_dicom(path)
        slope: Any = np.hypot(*np.gradient(image.astype(np.float64)))
        last = np.array(slope.shape[::-1]) - 1
        points = np.concatenate([line.points for line in contours[number].values()])
        columns, rows = points.round().clip(0, last).astype(int).T
        under.append(float(slope[rows, columns].mean()))
        everywhere.append(float(slope.mean()))
    return sum(under) / (sum(everywhere) or 1.0)
