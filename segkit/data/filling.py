"""Read the cases of a data set in parallel, check and scale them, and store their slices."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segkit.components.datasets.case import Case, Dataset, check_arrays
from segkit.components.datasets.reading import DatasetError, merged
from segkit.components.intensities import scaled
from segkit.data.cases import Data, StoredCase
from segkit.data.store import Writer, pack_masks
from segkit.errors import UserError
from segkit.registry.component import Component
from segkit.registry.faults import ComponentError
from segkit.types import Array

AHEAD = 4  # cases that each thread may be ahead of what is stored,
MOST_AHEAD = 1 << 30  # as far as they take no more than so many bytes


class _Read(NamedTuple):
    """A case that was read: its slices, masks as bit maps, and what fingerprint and twins need."""

    images: Array  # (S, H, W), or (S, H, W, I)
    bits: Array  # (S, H, W)
    shape: tuple[int, ...]
    content: Array
    masks: Array | None
    digest: str


def fill(
    dataset: Dataset,
    intensity: Component,
    folder: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Data:
    """Read all cases of a data set; store their slices in a folder, or in memory without one.

    Args:
        dataset: its cases are read in several threads.
        intensity: maps the image of a case, (I, H, W) or (I, D, H, W), to uint8 or float32 of the same shape.
        folder: exists, and is empty.
        progress: called with the number of cases read, and of all.

    Raises:
        DatasetError: cases that cannot be read; each message names the file or the case.
        ComponentError: the intensity failed.
    """
    found = hashlib.sha256(json.dumps(_header(dataset)).encode())
    problems: list[UserError] = []
    cases: list[StoredCase] = []
    writer = Writer(folder)
    try:
        for number, (case, future) in enumerate(_ahead(dataset, intensity), 1):
            try:
                read = future.result()
                if not problems:
                    _update(found, case, read)
                    first = writer.add(case.name, read.images, read.bits)
                    cases.append(_stored(case, read, first, writer.labels(first)))
            except ComponentError:  # a plugin's fault, the same for every case
                raise
            except UserError as error:
                problems.append(error)
            progress(number, len(dataset.cases))
        notes = (*dataset.notes, *_concluded(dataset, problems))
        if problems:
            raise problems[0] if len(problems) == 1 else DatasetError(merged(problems))
        slices = writer.close()
    finally:
        writer.abandon()
    return Data(
        name=dataset.name,
        channels=tuple(dataset.channels),
        inputs=tuple(dataset.inputs),
        cases=tuple(cases),
        notes=tuple(notes),
        fingerprint=found.hexdigest(),
        slices=slices,
    )


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _concluded(dataset: Dataset, problems: list[UserError]) -> Sequence[str]:
    """Return the notes of a data set that is read; add what is wrong to the problems of its cases."""
    try:
        return dataset.conclude() if dataset.conclude is not None else ()
    except UserError as error:
        problems.append(error)
        return ()


def _ahead(dataset: Dataset, intensity: Component) -> Iterator[tuple[Case, Future[_Read]]]:
    """Yield each case and its result, in order; some are read ahead in threads, more if the last one was small."""
    threads = usable_cores()
    waiting: deque[tuple[Case, Future[_Read]]] = deque()
    most = 0
    with ThreadPoolExecutor(threads, "segkit-reader") as pool:
        try:
            for case in dataset.cases:
                waiting.append((case, pool.submit(_read, case, dataset, intensity)))
                while len(waiting) > most:
                    first = waiting.popleft()
                    most = min(AHEAD * threads, MOST_AHEAD // _size(first[1]))
                    yield first
            while waiting:
                yield waiting.popleft()
        finally:
            pool.shutdown(cancel_futures=True)


def _size(read: Future[_Read]) -> int:
    """Return the bytes that a case takes while it is read, its pixels as numbers of eight bytes among them."""
    return 1 if read.exception() else 12 * read.result().content.size


def _read(case: Case, dataset: Dataset, intensity: Component) -> _Read:
    try:
        image, masks = case.read()
    except Exception as error:
        error.add_note(f"while {case.name} was read")
        raise
    check_arrays(case, image, masks, channels=len(dataset.channels), inputs=len(dataset.inputs))
    whole = image if image.ndim > 2 else image[None]
    shape = whole.shape[1:]
    planes = scaled(intensity, whole).reshape(len(whole), -1, *shape[-2:])  # (I, S, H, W)
    images = planes[0] if len(planes) == 1 else np.moveaxis(planes, 0, -1)
    kind = np.uint8 if len(dataset.channels) <= 8 else np.uint16
    bits = np.zeros(shape, kind) if masks is None else pack_masks(masks, case.name)
    return _Read(images, bits.reshape(-1, *shape[-2:]), shape, image, masks, _digest(image))


def _digest(image: Array) -> str:
    """Return a hash of an image's content, "" if all pixels are equal."""
    if image.min() == image.max():
        return ""
    return hashlib.blake2b(
        f"{image.shape}".encode() + np.ascontiguousarray(image).tobytes(), digest_size=16
    ).hexdigest()


def _stored(case: Case, read: _Read, first: int, labels: Sequence[tuple[int, ...]]) -> StoredCase:
    values = {label for found in labels for label in found}
    there = [channel for channel in range(16) if any(value >> channel & 1 for value in values)]
    overlapping = any(value & (value - 1) for value in values)
    spacing = None if case.spacing_mm is None else tuple(map(float, case.spacing_mm))
    return StoredCase(
        case.name, case.patient, spacing, dict(case.tags), read.masks is not None, tuple(read.shape), first,
        read.digest, tuple(there), overlapping,
    )  # fmt: skip


def _header(dataset: Dataset) -> Any:
    """Return what begins a fingerprint; data of one unnamed input begin as they did before there were several."""
    names = list(dataset.channels)
    return names if tuple(dataset.inputs) == ("image",) else [names, list(dataset.inputs)]


def _update(found: Any, case: Case, read: _Read) -> None:
    # The header fixes every length that follows, so that no two datasets share one stream of bytes.
    image, spacing = read.content, case.spacing_mm
    header = [case.name, case.patient, spacing, image.dtype.name, image.shape]
    header = header if read.masks is not None else [*header, "unlabelled"]
    found.update(json.dumps(header, default=float).encode() + b"\n")  # numpy's numbers, of a spacing
    found.update(np.ascontiguousarray(image.astype(image.dtype.newbyteorder("<"), copy=False)).tobytes())
    if read.masks is not None:
        found.update(np.packbits(np.asarray(read.masks, bool)).tobytes())
