"""Data sets as nnU-Net (Isensee et al. 2021) and the Medical Segmentation Decathlon lay them out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segkit.components.datasets import reading
from segkit.components.datasets.case import Dataset
from segkit.components.datasets.formats.geometry import Slices
from segkit.components.datasets.loading import Loader
from segkit.components.datasets.nnunet_listing import PICTURES, TEST, Description, entries_of, read_description
from segkit.components.datasets.patterns import find_patient, patient_expression
from segkit.components.datasets.structures import Label, Structures, structures_of
from segkit.components.datasets.volumes import to_dataset
from segkit.errors import UserError, first_few
from segkit.types import Positive


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
    problems: list[str] = []
    found = []
    for entry in entries_of(top, about, problems):
        with reading.collected(problems):
            whose = find_patient(expression, entry.name, entry.images[0]) if expression else entry.name
            found.append(replace(entry, patient=whose))
    notes = [f"{TEST} is not read: its images have no label maps."] if reading.is_folder(top / TEST) else []
    if about.ending in PICTURES:
        loader = Loader(structures, about.inputs, grey=True, spacing_mm=spacing_mm and spacing_mm[1:])
        return loader.dataset("nnunet", found, problems, notes)
    return to_dataset(
        "nnunet", structures, about.inputs, found, problems, whole=volumes, slices=slices, spacing_mm=spacing_mm,
        notes=notes,
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
