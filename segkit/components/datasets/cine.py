"""Cine MR of the heart with contours: frames to cases, which are at end diastole and systole, and their volumes."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from segkit.components.datasets.case import Case, Dataset
from segkit.components.datasets.contours import fill_structures, outside_notes, read_contour
from segkit.components.datasets.formats.dicom import read_dicom
from segkit.components.datasets.formats.dicom_header import read_format
from segkit.components.datasets.formats.dicom_series import UnevenError, one_kind, stack
from segkit.components.datasets.formats.dicom_slices import Slice, read_slices
from segkit.components.datasets.reading import DatasetError, collected, natural
from segkit.errors import UserError, counted, first_few
from segkit.types import Array, Mask

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


class Frames:
    """The labelled frames of a data set, one case each, or one of each patient and phase.

    Args:
        name: of the data set.
        structures: its channels; see `contours.fill_structures`.
    """

    def __init__(self, name: str, structures: Sequence[str]) -> None:
        self._name, self._structures = name, tuple(structures)
        self._cases: list[Case] = []
        self._astray: dict[str, int] = {}  # pixels of the inner contour outside the outer one, by case

    def add(self, name: str, patient: str, image: Path, lines: Mapping[str, Path], phase: str | None) -> None:
        """Add a frame.

        Args:
            name: of its case.
            patient: whose it is.
            image: its DICOM file.
            lines: the files of its inner ("i") and outer ("o") contour, as the structures need.
            phase: "ED" or "ES", if it is known.

        Raises:
            UserError: the image's header cannot be read.
        """
        spacing, tags = read_format(image).spacing_mm, {"phase": phase} if phase else {}
        load = functools.partial(self._read, name, image, lines)
        files = (image, *lines.values())
        self._cases.append(Case(name, patient, spacing_mm=spacing, tags=tags, load=load, files=files))

    def _read(self, name: str, image: Path, lines: Mapping[str, Path]) -> tuple[Array, Mask]:
        pixels, _ = read_dicom(image)
        found = {kind: read_contour(path) for kind, path in lines.items()}
        masks, self._astray[name] = fill_structures(found, (pixels.shape[0], pixels.shape[1]), self._structures)
        return pixels, masks

    def dataset(self, root: Path, *, volumes: bool, notes: Sequence[str], problems: list[str]) -> Dataset:
        """Return the dataset of the frames, or of their stacks.

        Args:
            root: its folder, for messages.
            volumes: whether a case is the stack of a patient's labelled slices at one phase, in order of their
                positions along the normal. One whose slices do not lie at equal distances on a line, such as one that
                lacks a slice inside, is left out, and a note says so.
            notes: on what was left out.
            problems: that were found before.

        Raises:
            DatasetError: there are problems.
            UserError: there is no frame, or no volume.
        """
        cases, gaps = self._volumes(problems) if volumes else (self._cases, [])
        for case in self._cases if problems else []:
            with collected(problems):  # tell all at once
                case.read()
        told = (*notes, *gaps)
        if not cases and not problems:
            what = "volume" if volumes else f"frame with an image and the contours of {', '.join(self._structures)}"
            raise UserError(f"{root}: no {what}. {' '.join(told)}".rstrip())
        found = Dataset(self._name, self._structures, tuple(cases), told, conclude=self._conclude) if cases else None
        if found is None or problems:
            raise DatasetError(problems, found)
        return found

    def _conclude(self) -> tuple[str, ...]:
        return outside_notes({case.name: self._astray.get(case.name, 0) for case in self._cases})

    def _volumes(self, problems: list[str]) -> tuple[list[Case], list[str]]:
        """Return a case for each patient and phase, and a note on those left out."""
        groups: dict[tuple[str, str], list[Case]] = {}
        for case in self._cases:
            groups.setdefault((case.patient or "", case.tags.get("phase", "")), []).append(case)
        found, gaps = [], []
        for (patient, phase), group in groups.items():
            if not phase:
                listed = first_few(case.name for case in group)
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
                slices = {case.files[0]: case for case in group}
                found.append(volume_of(name, [slices[item.path] for item in series.slices], series.spacing_mm))
        count = counted(len(gaps), "volume")
        return found, [f"{count} left out, whose slices do not lie evenly: {first_few(gaps)}"] if gaps else []


def _numbered(group: Sequence[Case]) -> Iterator[Slice]:
    """Yield the slices of a volume, numbered in the order of their cases' names, which counts without positions."""
    for number, case in enumerate(sorted(group, key=lambda case: natural(case.name))):
        for item in read_slices(case.files[0]):
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
