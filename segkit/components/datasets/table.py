"""Cases that a table lists, for data that fit no layout: a CSV with columns of images, masks, patients and tags."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from segkit.components.datasets import reading
from segkit.components.datasets.case import CaseFiles, Dataset
from segkit.components.datasets.formats.geometry import Slices
from segkit.components.datasets.formats.kinds import volume, without_ending
from segkit.components.datasets.loading import Lengths, Loader, input_names
from segkit.components.datasets.sheet import Row, Sheet, read_sheet
from segkit.components.datasets.structures import (
    Label,
    WrittenColour,
    one_file_each,
    structures_in_pictures,
)
from segkit.components.datasets.volumes import to_dataset
from segkit.errors import UserError

PATIENT = "patient"
NIFTI = "NIfTI"


@dataclass(frozen=True)
class Columns:
    """The columns of a table by what they hold: images, masks (one, or one a structure), and what is said of a case."""

    images: tuple[str, ...]
    masks: tuple[str, ...]
    patient: str | None
    name: str | None
    spacing: tuple[str, ...]
    tags: tuple[str, ...]


def table(
    *,
    file: Path,
    root: Path | None = None,
    image: str | tuple[str, ...] | dict[str, str] = "image",
    mask: str | dict[str, str] = "mask",
    labels: dict[str, Label | WrittenColour] | None = None,
    background: WrittenColour | None = None,
    grey: bool | None = None,
    patient: str = PATIENT,
    name: str | None = None,
    tags: tuple[str, ...] | None = None,
    spacing_mm: Lengths | tuple[str, ...] | None = None,
    slices: Slices = "auto",
    volumes: bool = True,
) -> Dataset:
    """Cases that a CSV lists, one a line: image, mask, patient, and tags such as phase or scanner.

    The first line names the columns, which comma, semicolon or tab divide. Paths are relative to the table's folder.
    Files are read as by image_folder, or all of them are NIfTI, read as by the dataset nifti. A case whose mask is
    empty is unlabelled. A column `set` is a tag too.

    Args:
        file: the table, in UTF-8.
        root: the folder that no path leads out of; the table's if it is not given.
        image: the column of the images; or one an input, as in ["t1", "t2"] or { t1 = "T1 file", t2 = "T2 file" }.
        mask: the column of masks that hold all structures; or one a structure, as in { wall = "wall file" }, each with
            masks of 0 and 1, or 0 and 255.
        labels: each structure's grey level, or its colour, in masks that hold all; see image_folder.
        background: the colour of no structure, where labels are colours; black if it is not given.
        grey: whether colour becomes grey; see image_folder.
        patient: the column of the patients; without a column of that name, cases have none.
        name: the column of the cases' names; without it, they are the paths of the (first) images without suffix.
        tags: the columns that become tags; all that hold nothing else if it is not given.
        spacing_mm: (row, column) distance between pixel centres, of volumes (slice, row, column), as numbers, or as the
            columns that hold them; DICOM images may state their own, and NIfTI files always do.
        slices: across which of the patient's axes the slices of NIfTI volumes lie; see nifti.
        volumes: whether a NIfTI volume is one case; otherwise each slice is one.

    Raises:
        UserError: the table cannot be read, lacks a column, or a file or line is wrong; all lines are named.
    """
    problems: list[str] = []
    sheet = read_sheet(file, problems)
    of_inputs = image if isinstance(image, str | dict) else dict(zip(image, image, strict=True))
    inputs = input_names(of_inputs, grey, "image")
    columns = _columns(sheet, of_inputs, mask, patient, name, tags, spacing_mm)
    if isinstance(mask, str):
        structures = structures_in_pictures(labels, background)
    else:
        structures = one_file_each(mask, "mask", labels, background)
    fixed = None if spacing_mm is None or columns.spacing else tuple(float(mm) for mm in spacing_mm)
    listed = _listed(sheet, columns, reading.open_root(root or file.parent), problems)
    kinds = {volume(path.name) for one in listed for path in (*one.images, *one.masks)}
    if NIFTI in kinds:
        if len(kinds) > 1:
            raise UserError(f"{file}: names NIfTI files and others. Write a table for each.")
        if grey is False:
            raise UserError("grey: NIfTI volumes are grey; leave it out.")
        three = fixed if fixed is not None and len(fixed) == 3 else None
        if three is None and spacing_mm is not None:
            raise UserError("spacing_mm: of NIfTI volumes, three lengths (slice, row, column), or none.")
        if structures.coloured:
            raise UserError("labels: NIfTI label maps hold whole numbers, not colours, e.g. labels = { wall = 1 }.")
        return to_dataset("table", structures, inputs, listed, problems, whole=volumes, slices=slices, spacing_mm=three)
    return Loader(structures, inputs, grey, fixed).dataset("table", listed, problems)


def _columns(
    sheet: Sheet,
    image: str | Mapping[str, str],
    mask: str | Mapping[str, str],
    patient: str,
    name: str | None,
    tags: Iterable[str] | None,
    spacing: Iterable[float | str] | None,
) -> Columns:
    """Return the columns that hold what a case consists of; all others are tags unless the recipe names these."""
    images = (image,) if isinstance(image, str) else tuple(image.values())
    masks = (mask,) if isinstance(mask, str) else tuple(mask.values())
    spacings = tuple(column for column in spacing or () if isinstance(column, str))
    named = {"image": images, "mask": masks, "name": (name,) if name else (), "spacing_mm": spacings}
    named |= {"patient": (patient,) if patient != PATIENT or PATIENT in sheet.columns else ()}
    for parameter, columns in (*named.items(), ("tags", tuple(tags or ()))):
        for column in columns:
            sheet.require(column, parameter)
    if spacings and len(spacings) not in (2, 3):
        raise UserError(f"spacing_mm: {len(spacings)} columns; name (row, column), of volumes (slice, row, column).")
    taken = {column for columns in named.values() for column in columns}
    rest = tuple(column for column in sheet.columns if column not in taken)
    whose = next(iter(named["patient"]), None)
    return Columns(images, masks, whose, name, spacings, rest if tags is None else tuple(tags))


def _listed(sheet: Sheet, columns: Columns, root: Path, problems: list[str]) -> list[CaseFiles]:
    """Return what lines say of cases; what is wrong with single ones is added to `problems`."""
    found, places = [], dict[str, str]()
    for row in sheet.rows:
        files: dict[str, Path] = {}
        masks = [column for column in columns.masks if row.cells[column]]
        for column in (*columns.images, *masks):
            with reading.collected(problems):
                files[column] = _file(row, column, sheet.path, root)
        if 0 < len(masks) < len(columns.masks):
            problems.append(
                f"{row.place}: has a mask in {masks[0]!r} only. Where a structure is absent, name an empty mask; a "
                "case without any mask is unlabelled."
            )
        with reading.collected(problems):
            spacing = _spacing(row, columns.spacing)
            if len(files) < len(columns.images) + len(masks):
                continue
            name = row.cells[columns.name] if columns.name else _name(files[columns.images[0]], root)
            if not name:
                raise UserError(f"{row.place}: the column {columns.name!r} gives no name.")
            if places.setdefault(name, row.place) != row.place:
                raise UserError(f"{row.place}: the case {name!r} again, as in {places[name]}. Names must be unique.")
            patient = row.cells[columns.patient] or None if columns.patient else None
            tags = {column: row.cells[column] for column in columns.tags if row.cells[column]}
            images, truths = (tuple(files[column] for column in names) for names in (columns.images, masks))
            found.append(CaseFiles(name, patient, images, truths, tags, spacing))
    return found


def _file(row: Row, column: str, table: Path, root: Path) -> Path:
    """Return the file that a cell names."""
    cell, place = row.cells[column], f"{row.place}: the column {column!r}"
    if not cell:
        raise UserError(f"{place} names no image.")
    path = Path(os.path.normpath(table.resolve().parent / cell))
    if not os.path.exists(path):
        raise UserError(f"{place} names a file that is not there: {cell!r}. Paths are relative to {table.parent}.")
    if not path.resolve().is_relative_to(root):
        raise UserError(
            f"{place} leads out of {root}: {cell!r}. Nothing outside is read: copy the data there, or name a folder "
            "above both as `root`."
        )
    if not os.path.isfile(path):
        raise UserError(f"{place} names no file, but a folder or a device: {cell!r}.")
    return path


def _name(image: Path, root: Path) -> str:
    """Return a case's name from the path of its image: below the root, without suffix."""
    shown = (image if image.is_relative_to(root) else image.resolve()).relative_to(root)
    return shown.with_name(without_ending(shown.name)).as_posix()


def _spacing(row: Row, columns: tuple[str, ...]) -> tuple[float, ...] | None:
    cells = [row.cells[column] for column in columns]
    if not any(cells):
        return None
    try:
        found = tuple(float(cell.replace(",", ".")) for cell in cells)
    except ValueError:
        found = (math.nan,)
    if not all(0 < mm < math.inf for mm in found):
        raise UserError(f"{row.place}: its spacing must be lengths in mm above 0, got {cells}.")
    return found
