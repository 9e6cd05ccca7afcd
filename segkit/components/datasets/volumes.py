"""Volumes of several files to cases: whole, or slice by slice."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segkit.components.datasets.case import KINDS, MOST_INPUTS, Case, CaseFiles, Dataset, unlabelled_notes
from segkit.components.datasets.formats.geometry import Geometry, Slices, check_agreement
from segkit.components.datasets.formats.nifti_files import read_geometry, read_labels, read_voxels
from segkit.components.datasets.reading import DatasetError, collected
from segkit.components.datasets.structures import Structures
from segkit.errors import UserError, counted, first_few
from segkit.types import Array

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SpacingMM = tuple[float, float, float] | None
DISAGREE = 0.01  # of a spacing


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume whose headers have been read: all files have the voxels of the first in the same places.

    Attributes:
        images: one file an input, or one file of all.
        masks: a label map, or one file a structure; none if unlabelled.
        structures: what they show.

    Raises:
        UserError: files differ; the message names both and says in what.
    """

    images: tuple[Geometry, ...]
    masks: tuple[Geometry, ...] = ()
    structures: Structures | None = None

    def __post_init__(self) -> None:
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
        if not self.masks or self.structures is None:
            return image, None
        maps = [(frame.orient(read_labels(file)), file.path) for file in self.masks]
        return image, self.structures.masks(maps)


def _inputs(file: Geometry, frame: Geometry) -> Iterator[NDArray[Any]]:
    voxels: NDArray[Any] = read_voxels(file)
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
    found: Iterable[CaseFiles],
    problems: list[str],
    *,
    whole: bool,
    slices: Slices,
    spacing_mm: SpacingMM = None,
    notes: Iterable[str] = (),
) -> Dataset:
    """Return a dataset whose cases are volumes, or their slices, named NAME/slice-001 and so on.

    Args:
        name, structures, inputs, notes: of the dataset.
        found: the files of the volumes.
        problems: of further cases.
        whole: whether a case is a volume.
        slices: across which of the patient's axes slices lie.
        spacing_mm: (slice, row, column) in place of what the headers say.

    Raises:
        DatasetError: there are problems, those of headers among them.
    """
    volumes: list[tuple[CaseFiles, Volume]] = []
    for files in found:
        with collected(problems):
            volumes.append((files, _opened(files, structures, inputs, slices)))
    if problems and not volumes:
        raise DatasetError(problems)
    reader = SliceReader()
    cases: list[Case] = []
    for files, volume in volumes:
        spacing = spacing_mm or volume.images[0].spacing_mm
        paths, labelled = (*files.images, *files.masks), bool(files.masks)
        shared: dict[str, Any] = {"tags": files.tags, "files": paths, "labelled": labelled}
        if whole:
            cases.append(Case(files.name, files.patient, spacing_mm=spacing, load=volume.read, **shared))
            continue
        for index in range(volume.images[0].depth):
            load = functools.partial(reader.read, volume, index)
            label = f"{files.name}/slice-{index + 1:03d}"
            cases.append(Case(label, files.patient, spacing_mm=spacing[1:], load=load, **shared))
    told = (*notes, *_notes(volumes))
    data = Dataset(name, structures.names, tuple(cases), told, tuple(inputs), None if whole else reader.forget)
    if problems:
        raise DatasetError(problems, data)
    return data


def _opened(files: CaseFiles, structures: Structures, inputs: Sequence[str], slices: Slices) -> Volume:
    """Return a volume whose headers are read."""
    several = len(files.images) < len(inputs)
    images = tuple(read_geometry(path, slices, several=several) for path in files.images)
    count = sum(file.inputs for file in images)
    if count != len(inputs):
        wanted = f"{counted(len(inputs), 'input')}: {first_few(inputs, MOST_INPUTS)}"
        raise UserError(
            f"{files.images[0]}: holds {counted(count, 'input')}, where the data have {wanted}. Correct one."
        )
    return Volume(images, tuple(read_geometry(path, slices) for path in files.masks), structures)


def _notes(volumes: Sequence[tuple[CaseFiles, Volume]]) -> Iterator[str]:
    """Yield what the user should know: volumes without masks, and headers that contradict themselves."""
    yield from unlabelled_notes([files for files, _ in volumes])
    kinds = Counter(volume.images[0].slices for _, volume in volumes)
    if len(kinds) > 1:
        counts = ", ".join(f"{counted(count, kind + ' volume')}" for kind, count in kinds.most_common())
        yield f"Slices lie differently: {counts}. `slices` makes them alike."
    odd = [files.name for files, volume in volumes if volume.images[0].disagreement > DISAGREE]
    if odd:
        yield (
            f"{counted(len(odd), 'header')} with another spacing (pixdim, which counts) than the affine's: "
            f"{first_few(odd)}."
        )
