"""Volumes of several files to cases: whole, or slice by slice."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkit.components.datasets import nifti_files
from segkit.components.datasets.case import KINDS, Case, Dataset
from segkit.components.datasets.geometry import Geometry, check_agreement
from segkit.components.datasets.reading import DatasetError
from segkit.components.datasets.structures import Structures
from segkit.errors import counted, first_few
from segkit.types import Array

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SpacingMM = tuple[float, float, float] | None
DISAGREE = 0.01  # of a spacing


@dataclass(frozen=True, eq=False)
class Volume:
    """The files of a volume, whose headers have been read and agree.

    Attributes:
        name: of its case.
        patient: whose it is.
        images: one file an input, or one file of all.
        masks: a label map, or one file a structure; none if unlabelled.
        structures: what they show.
        tags: of its case.
    """

    name: str
    patient: str | None
    images: tuple[Geometry, ...]
    masks: tuple[Geometry, ...]
    structures: Structures
    tags: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raise unless all files have the voxels of the first in the same places.

        Raises:
            UserError: the message names both files and in what they differ.
        """
        for other in self.images[1:]:
            check_agreement(self.images[0], other, "input")
        for mask in self.masks:
            check_agreement(self.images[0], mask, "mask")

    def read(self) -> tuple[Array, Array | None]:
        """Return the image (I, D, H, W), and the masks (C, D, H, W) bool; None without.

        Raises:
            UserError: a file is damaged, or a mask holds other values than the structures'.
        """
        import numpy as np

        frame = self.images[0]
        inputs = [part for file in self.images for part in _inputs(file, frame)]
        image = np.empty((len(inputs), *inputs[0].shape), _common_kind(inputs))
        for place, part in zip(image, inputs, strict=True):
            place[...] = part
        if not self.masks:
            return image, None
        maps = [(frame.orient(nifti_files.read_labels(file)), file.path) for file in self.masks]
        return image, self.structures.masks(maps)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that `read` reads."""
        return tuple(file.path for file in (*self.images, *self.masks))


def _inputs(file: Geometry, frame: Geometry) -> Iterator[NDArray[Any]]:
    voxels: NDArray[Any] = nifti_files.read_voxels(file)
    for index in range(file.inputs):
        yield frame.orient(voxels[..., index] if file.inputs > 1 else voxels)


def _common_kind(inputs: Sequence[NDArray[Any]]) -> np.dtype[Any]:
    import numpy as np

    kind = np.result_type(*inputs)
    return kind if kind.name in KINDS else np.dtype(np.float32)


class SliceReader:
    """Reads slices, and keeps the last volumes, since slices of one are read one after the other.

    Args:
        kept: volumes in memory.
    """

    def __init__(self, kept: int = 4) -> None:
        self._read = functools.lru_cache(kept)(Volume.read)
        self._locks: dict[Volume, threading.Lock] = {}

    def read(self, volume: Volume, index: int) -> tuple[Array, Array | None]:
        """Return slice `index` of a volume: (H, W) or (I, H, W), and its masks (C, H, W)."""
        with self._locks.setdefault(volume, threading.Lock()):
            image, masks = self._read(volume)
        part = image[:, index] if len(image) > 1 else image[0, index]
        return part.copy(), None if masks is None else masks[:, index].copy()

    def forget(self) -> tuple[str, ...]:
        """Free the volumes; no notes."""
        self._read.cache_clear()
        self._locks.clear()
        return ()


def to_dataset(
    name: str,
    structures: Structures,
    inputs: Sequence[str],
    volumes: Sequence[Volume],
    *,
    whole: bool,
    spacing_mm: SpacingMM = None,
    notes: Iterable[str] = (),
    problems: Sequence[str] = (),
) -> Dataset:
    """Return a dataset whose cases are the volumes, or their slices, named NAME/slice-001 and so on.

    Args:
        name, structures, inputs: of the dataset.
        volumes: at least one, if there are no problems.
        whole: whether a case is a volume.
        spacing_mm: (slice, row, column) in place of what the headers say.
        notes: of the dataset, before those on the volumes.
        problems: of further volumes.

    Raises:
        DatasetError: there are problems.
    """
    if problems and not volumes:
        raise DatasetError(problems)
    reader = SliceReader()
    cases: list[Case] = []
    for volume in volumes:
        spacing = spacing_mm or volume.images[0].spacing_mm
        shared: dict[str, Any] = {"tags": volume.tags, "files": volume.files, "labelled": bool(volume.masks)}
        if whole:
            cases.append(Case(volume.name, volume.patient, spacing_mm=spacing, load=volume.read, **shared))
            continue
        for index in range(volume.images[0].depth):
            load = functools.partial(reader.read, volume, index)
            label = f"{volume.name}/slice-{index + 1:03d}"
            cases.append(Case(label, volume.patient, spacing_mm=spacing[1:], load=load, **shared))
    told = (*notes, *_notes(volumes))
    found = Dataset(name, structures.names, tuple(cases), told, tuple(inputs), None if whole else reader.forget)
    if problems:
        raise DatasetError(problems, found)
    return found


def _notes(volumes: Sequence[Volume]) -> Iterator[str]:
    """Yield what the user should know: volumes without masks, and headers that contradict themselves."""
    bare = [volume.name for volume in volumes if not volume.masks]
    if bare:
        yield f"{counted(len(bare), 'image')} without masks, neither trained on nor evaluated: {first_few(bare)}."
    kinds = Counter(volume.images[0].slices for volume in volumes)
    if len(kinds) > 1:
        counts = ", ".join(f"{counted(count, kind + ' volume')}" for kind, count in kinds.most_common())
        yield f"Slices lie differently: {counts}. `slices` makes them alike."
    odd = [volume.name for volume in volumes if volume.images[0].disagreement > DISAGREE]
    if odd:
        yield (
            f"{counted(len(odd), 'header')} with another spacing (pixdim, which counts) than the affine's: "
            f"{first_few(odd)}."
        )
