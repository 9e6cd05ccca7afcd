"""Cine MR of the heart: which frames are at end diastole and at end systole, and their slices as volumes."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from segkit.components.datasets.case import Case
from segkit.components.datasets.dicom_series import UnevenError, one_kind, stack
from segkit.components.datasets.dicom_slices import Slice, read_slices
from segkit.components.datasets.reading import collected, natural
from segkit.errors import UserError, counted, first_few
from segkit.types import Array

CYCLE = 20  # frames a slice
PHASES = {  # the remainders by CYCLE: the R wave triggers the first frame, whose number may be 0 or 1
    "ED": (18, 19, 0, 1, 2),
    "ES": tuple(range(4, 13)),
}


def phases_of(numbers: Iterable[int]) -> dict[int, str]:
    """Return "ED" or "ES" of each labelled frame of a patient, given the frames' numbers; {} if it cannot be told.

    Frames are numbered through all slices, twenty a slice, beginning at the R wave, so that those of one phase are
    twenty apart. It cannot be told if a frame is at neither phase, or a slice has two frames of one.
    """
    found = {number: phase for number in sorted(numbers) for phase in PHASES if number % CYCLE in PHASES[phase]}
    for phase in PHASES:
        same = [number for number in found if found[number] == phase]
        if any(after - before <= CYCLE // 2 for before, after in itertools.pairwise(same)):
            return {}
    return found if len(found) == len(set(numbers)) else {}


def tags_of(phase: str | None) -> dict[str, str]:
    """Return a case's tags."""
    return {"phase": phase} if phase else {}


def volumes(frames: Sequence[tuple[Case, Path]], problems: list[str]) -> tuple[list[Case], list[str]]:
    """Return a case for each patient and phase, and notes; what is wrong is added to `problems`.

    A volume is the stack of the labelled slices, in order of their positions along the normal. One whose slices do not
    lie at equal distances on a line, such as one that lacks a slice inside, is left out, and a note says so.

    Args:
        frames: cases of one slice each, with the DICOM file of their image.
        problems: receives the problems.
    """
    groups: dict[tuple[str, str], list[tuple[Case, Path]]] = {}
    for case, path in frames:
        groups.setdefault((case.patient or "", case.tags.get("phase", "")), []).append((case, path))
    found, gaps = [], []
    for (patient, phase), group in groups.items():
        if not phase:
            listed = first_few(case.name for case, _ in group)
            problems.append(
                f"{patient}: its frames' numbers do not say which are at end diastole and which at end systole "
                f"({CYCLE} frames a slice, the first at the R wave): {listed}. Read it without volumes = true."
            )
            continue
        name = f"{patient}/{phase}"
        with collected(problems):
            try:
                series = stack(list(_numbered(group)), name)
            except UnevenError as error:
                gaps.append(str(error))
                continue
            slices = {path: case for case, path in group}
            found.append(volume_of(name, [slices[item.path] for item in series.slices], series.spacing_mm))
    notes = (
        [f"{counted(len(gaps), 'volume')} left out, whose slices do not lie evenly: {first_few(gaps)}"] if gaps else []
    )
    return found, notes


def _numbered(group: Sequence[tuple[Case, Path]]) -> Iterator[Slice]:
    """Yield the slices of a volume, numbered in the order of their cases' names, which counts without positions."""
    ordered = sorted(group, key=lambda item: natural(item[0].name))
    for number, (_, path) in enumerate(ordered):
        for item in read_slices(path):
            yield replace(item, number=float(number))


def volume_of(name: str, slices: Sequence[Case], spacing_mm: tuple[float, float, float] | None) -> Case:
    """Return the case of a volume, image (1, D, H, W) and masks (C, D, H, W), of a stack of cases with masks."""
    return Case(
        name,
        slices[0].patient,
        spacing_mm=spacing_mm,
        tags=slices[0].tags,
        load=functools.partial(_stacked, tuple(slices)),
        files=tuple(path for case in slices for path in case.files),
    )


def _stacked(slices: Sequence[Case]) -> tuple[Array, Array]:
    import numpy as np

    images: list[Array] = []
    masks: list[Array] = []
    for case in slices:
        image, mask = case.read()
        if mask is None or image.shape != (images[0] if images else image).shape:
            raise UserError(f"{case.name}: has no masks, or another size than the other slices of its volume.")
        images.append(image)
        masks.append(mask)
    return np.stack(one_kind(images))[None], np.stack(masks, axis=1)
