"""The digital short-axis cardiac phantom: realistic enough to train on, in memory, the same on every machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from annotated_types import Ge, Le, Lt

from segkit.components.datasets.case import Case, Dataset
from segkit.components.datasets.cine import volume_of
from segkit.errors import UserError
from segkit.types import Count

CHANNELS = ("wall", "cavity")
MOST_PIXELS = 2**30
SLICE_MM = 8.4  # between slices, as in RVSC: 7 mm and a gap of a fifth
HEIGHT = 256  # rows at which the spacing of 0.57 to 0.97 mm holds; the field of view stays with other sizes


def phantom(
    *,
    patients: Count = 16,
    slices: Count = 243,
    height: Annotated[int, Ge(16), Le(1024)] = 256,
    width: Annotated[int, Ge(16), Le(1024)] = 216,
    seed: Annotated[int, Ge(0), Lt(2**32)] = 1,
    volumes: bool = False,
    unlabelled: Annotated[int, Ge(0)] = 0,
) -> Dataset:
    """Digital short-axis cardiac phantom: cine MR of 16 patients, right ventricle's wall and cavity as truth.

    Right ventricle, left ventricle with papillary muscles, chest wall, lungs, liver, vessels; end diastole and end
    systole, base to apex; pose, size, contrast, spacing and number of slices differ between patients. Images are
    uint16, below 4096, blurred to the resolution of a scan, with a coil's bias field and Rician noise, and the same to
    the grey level on every machine. Near the apex the ventricle is tiny or absent: some truths are empty. Patients
    resemble those of RVSC (Petitjean et al. 2015) in number, size and spacing. The tag `phase` is ED or ES.

    Args:
        patients: their number.
        slices: their total number; at least one per patient.
        height, width: rows and columns.
        seed: of the patients.
        volumes: one case of each patient and phase, its slices 8.4 mm apart, instead of one of each slice.
        unlabelled: the number of the last patients whose cases have no masks.

    Raises:
        UserError: fewer slices than patients, no patient with masks, or more than 2^30 pixels in all.
    """
    if unlabelled >= patients:
        raise UserError(f"phantom: {unlabelled} of {patients} patients without masks: one needs them to learn from.")
    if slices < patients:
        raise UserError(f"phantom: too few slices, {slices} for {patients} patients: each needs at least one.")
    if slices * height * width > MOST_PIXELS:
        raise UserError(f"phantom: {slices} slices of {height} x {width} are more than {MOST_PIXELS:,} pixels.")
    from segkit.components.datasets.phantom_anatomy import Patient, draw

    cases: list[Case] = []
    for number, count in enumerate(_counts(patients, slices), 1):
        patient = Patient.of(seed, number, HEIGHT / height)
        name, spacing = f"patient{number:02d}", patient.spacing
        for systole, phase, total in ((False, "ED", count - count // 2), (True, "ES", count // 2)):
            stack: list[Case] = []
            for index in range(total):
                image, masks = draw(patient, index, total, systole, height, width)
                case = f"{name}/{phase.lower()}-{index + 1:02d}"
                stack.append(Case(case, name, image, masks, (spacing, spacing), tags={"phase": phase}))
            whole = volumes and stack
            found = [volume_of(f"{name}/{phase}", stack, (SLICE_MM, spacing, spacing))] if whole else stack
            cases += map(_without_masks, found) if number > patients - unlabelled else found
    return Dataset("phantom", CHANNELS, tuple(cases))


def _without_masks(case: Case) -> Case:
    return replace(case, image=case.read()[0], masks=None, load=None)


def _counts(patients: int, slices: int) -> list[int]:
    """Return each patient's slices: near the mean, give or take a few, `slices` in all."""
    counts = [slices // patients + (number < slices % patients) for number in range(patients)]
    for number in range(0, patients - 1, 2):
        moved = min((number // 2) % 4, counts[number + 1] // 4)
        counts[number] += moved
        counts[number + 1] -= moved
    return counts
