"""Data sets as nnU-Net (Isensee et al. 2021) and the Medical Segmentation Decathlon lay them out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from segkit.components.datasets import reading
from segkit.components.datasets.case import Case, Dataset
from segkit.components.datasets.geometry import Slices
from segkit.components.datasets.loading import Loader
from segkit.components.datasets.nifti_files import read_geometry
from segkit.components.datasets.nnunet_listing import (
    LABELS,
    PICTURES,
    TEST,
    Description,
    Entry,
    entries_of,
    read_description,
)  # fmt: skip
from segkit.components.datasets.patterns import find_patient, patient_expression
from segkit.components.datasets.structures import Label, Structures, structures_of
from segkit.components.datasets.volumes import Volume, to_dataset
from segkit.errors import UserError, counted, first_few
from segkit.types import Positive

if TYPE_CHECKING:
    pass


def nnunet(
    *,
    root: Path,
    patient: str | None = None,
    labels: dict[str, Label | tuple[Label, ...]] | None = None,
    slices: Slices = "auto",
    volumes: bool = True,
    spacing_mm: tuple[Positive, Positive, Positive] | None = None,
) -> Dataset:
    """Data set in nnU-Net's raw layout, or the Medical Segmentation Decathlon's, as its dataset.json describes it.

    `imagesTr/CASE_0000.nii.gz` is the first input of a case, `labelsTr/CASE.nii.gz` its label map; images may also be
    PNG, BMP or TIFF pictures. Regions, as "whole": [1, 2], are masks that overlap. If dataset.json lists
    `training` pairs, as in the Decathlon, these are the cases, and a 4-D image holds the inputs along its last axis.
    Images without label maps can be predicted alone; `imagesTs` is not read.

    Args:
        root: the folder that holds dataset.json.
        patient: regular expression that finds the patient in a case's name; its first group if it has one. Without it,
            each case is a patient.
        labels: other structures than those of dataset.json, e.g. { liver = [1, 2] }; its other values are background.
        slices: across which of the patient's axes slices lie; "auto": the axis with one voxel or with clearly the
            largest spacing (1.2 times the second), else axial.
        volumes: whether a case is a volume; otherwise each slice is one.
        spacing_mm: (slice, row, column) in place of what the headers say; of pictures, which say none, row and column.

    Raises:
        UserError: dataset.json or another file is missing, damaged or contradicts another; it is named.
    """
    top = reading.open_root(root)
    about = read_description(top)
    structures = _chosen(about, labels)
    expression = patient_expression(patient)
    loader = Loader(structures, about.inputs, grey=True, spacing_mm=spacing_mm and spacing_mm[1:])
    problems: list[str] = []
    cases: list[Case] = []
    found: list[Volume] = []
    for entry in entries_of(top, about, problems):
        with reading.collected(problems):
            whose = find_patient(expression, entry.name, entry.images[0]) if expression else entry.name
            if about.ending in PICTURES:
                masks = (entry.label,) if entry.label else ()
                cases.append(loader.case(entry.name, whose, entry.images, masks))
            else:
                found.append(_volume(entry, whose, about, structures, slices))
    notes = list(_notes(top, cases))
    if about.ending in PICTURES:
        return loader.dataset("nnunet", cases, problems, notes)
    return to_dataset(
        "nnunet", structures, about.inputs, found, whole=volumes, spacing_mm=spacing_mm, notes=notes,
        problems=problems,
    )  # fmt: skip


def _chosen(about: Description, labels: dict[str, Label | tuple[Label, ...]] | None) -> Structures:
    """Return the structures of dataset.json, or those that the recipe names instead."""
    if labels is None:
        return about.structures
    chosen = structures_of(labels)
    known = {value for values in about.structures.values.values() for value in values}
    used = {value for values in chosen.values.values() for value in values}
    if used - known:
        stated = ", ".join(f"{name} = {list(values)}" for name, values in about.structures.values.items())
        raise UserError(
            f"labels: {first_few(map(str, sorted(used - known)))} is no value of {about.path}. It has {stated}."
        )
    return Structures(chosen.values, frozenset({0, *(known - used)}), remedy=about.structures.remedy)


def _volume(entry: Entry, patient: str, about: Description, structures: Structures, slices: Slices) -> Volume:
    several = len(entry.images) == 1 and len(about.inputs) > 1
    images = tuple(read_geometry(path, slices, several=several) for path in entry.images)
    masks = (read_geometry(entry.label, slices),) if entry.label else ()
    inputs = sum(file.inputs for file in images)
    if inputs != len(about.inputs):
        raise UserError(
            f"{images[0].path}: does not hold the {counted(len(about.inputs), 'input')} of {about.path.name}: "
            f"{first_few(about.inputs, 16)} ({inputs!s}). Correct the image, or {about.path.name}."
        )
    volume = Volume(entry.name, patient, images, masks, structures)
    volume.check()
    return volume


def _notes(root: Path, cases: list[Case]) -> Iterator[str]:
    bare = [case.name for case in cases if not case.labelled]
    if bare:
        yield f"{counted(len(bare), 'image')} without label map in {LABELS}, only for prediction: {first_few(bare)}."
    if reading.is_folder(root / TEST):
        yield f"{TEST} is not read: its images have no label maps."
