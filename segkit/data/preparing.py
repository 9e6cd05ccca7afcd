"""The leading transforms without randomness, run once a study on all slices and stored beside them."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from segkit.data.cases import Data
from segkit.data.filling import usable_cores
from segkit.data.pipeline import Pair, Pipeline
from segkit.data.store import Slices, Writer
from segkit.data.transform_faults import TransformError
from segkit.files import explain_os_errors
from segkit.locks import waiting_for
from segkit.registry.component import Component

AHEAD = 64  # slices transformed before they are stored; bounds the memory


def prepare(data: Data, components: Sequence[Component], *, exclusive: bool) -> tuple[Slices, Pipeline]:
    """Return the slices of all cases after the leading transforms that draw no random number, and the remaining ones.

    Plugins' transforms remain, since they may draw from other generators. A transform that fails on a slice is reported
    when that slice is asked for.

    Args:
        data: its own slices are returned where the first transform is random already.
        components: the transforms, as a recipe names them.
        exclusive: whether the channels are exclusive classes, which matters where masks are resampled.
    """
    pipeline = Pipeline(components, exclusive=exclusive)
    names, count = data.names_of_slices(), len(components)
    while True:
        count = min(count, _settled(pipeline, data.slices, names, count))
        if not count:
            return data.slices, pipeline
        leading = list(components[:count])
        found = _stored(data, leading, names, exclusive)
        if found is not None:
            return found, pipeline.after(count)
        count -= 1  # the last one drew a random number, on a later slice than the first


def _settled(pipeline: Pipeline, slices: Slices, names: Sequence[str], most: int) -> int:
    """Return how many leading transforms draw no random number on the first slice that none of them fails on."""
    for number in range(len(slices)):
        try:
            return pipeline.settle((slices.image(number), slices.bits(number)), names[number], most)[1]
        except TransformError:
            continue
    return 0


def _stored(data: Data, leading: list[Component], names: Sequence[str], exclusive: bool) -> Slices | None:
    """Return the slices after transforms, from the data's folder if they are there; None if one draws numbers."""
    libraries = [version(name) for name in ("albumentations", "opencv-python-headless")]
    text = json.dumps([*libraries, exclusive, *(component.dump() for component in leading)])
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    if key in data.prepared:
        return data.prepared[key]
    if data.slices.folder is None:
        found = _transformed(data, leading, names, exclusive, None)
    else:
        folder = data.slices.folder / f"prepared-{key}"
        with waiting_for(folder.with_suffix(".lock")):
            found = _open(folder) or _fill(folder, data, leading, names, exclusive)
    if found is not None:
        data.prepared[key] = found
    return found


def _open(folder: Path) -> Slices | None:
    try:
        return Slices.open(folder)
    except (OSError, ValueError, KeyError):
        return None


def _fill(folder: Path, data: Data, leading: list[Component], names: Sequence[str], exclusive: bool) -> Slices | None:
    temporary = folder.with_name(f".{folder.name}")  # the lock is held: what lies there is of a process that died
    try:
        with explain_os_errors(folder):
            for left in (folder, temporary):
                shutil.rmtree(left, ignore_errors=True)
            temporary.mkdir()
        if _transformed(data, leading, names, exclusive, temporary) is None:
            return None
        with explain_os_errors(folder):
            temporary.replace(folder)
        return Slices.open(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _transformed(
    data: Data, leading: list[Component], names: Sequence[str], exclusive: bool, folder: Path | None
) -> Slices | None:
    """Run transforms on every slice, in threads; None if one draws a random number."""
    own, writer = threading.local(), Writer(folder)

    def run(number: int) -> tuple[Pair, int, str]:
        if not hasattr(own, "pipeline"):  # transforms keep state
            own.pipeline = Pipeline(leading, exclusive=exclusive)
        pair = data.slices.image(number), data.slices.bits(number)
        try:
            return *own.pipeline.settle(pair, names[number], len(leading)), ""
        except TransformError as error:
            return pair, len(leading), str(error)

    threads = usable_cores()
    try:
        with ThreadPoolExecutor(threads, "segkit-transform") as pool:
            for start in range(0, len(data.slices), AHEAD):
                numbers = range(start, min(start + AHEAD, len(data.slices)))
                for number, (pair, done, error) in zip(numbers, pool.map(run, numbers), strict=True):
                    if done < len(leading):
                        return None
                    writer.add(names[number], pair[0][None], pair[1][None], error)
                    data.progress(number + 1, len(data.slices))
        return writer.close()
    finally:
        writer.abandon()
