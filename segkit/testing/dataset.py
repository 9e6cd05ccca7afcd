"""Try a dataset: complete cases with names and patients, the same every time, each file read once."""

from __future__ import annotations

import builtins
import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from segkit.components.datasets.case import Dataset, check_arrays
from segkit.data.splits import patient_warnings
from segkit.errors import counted
from segkit.registry.component import Component
from segkit.testing.report import Report

CODE = (".py", ".pyc", ".so", ".pyd", ".dll")


def examine_data(report: Report, component: Component) -> None:
    """Try a dataset; `Dataset` itself checks shapes, types, channels, spacing and names."""
    counts: list[Counter[Path]] = []

    def load() -> Any:
        with _counted_reads() as reads:
            counts.append(reads)
            return report.build(component)

    with report.trying("loading the data twice", needed=True):
        made = report.check_side_effects(load)
    again = [path for path, count in counts[0].items() if count > 1 and _is_data(path)]
    if again:
        example = f"{again[0]} ({counts[0][again[0]]} times)"
        report.fault(f"{counted(len(again), 'file')} read more than once, e.g. {example}. Read each file once.")
    _check_names(report, made[0])
    with report.trying("reading the cases twice", needed=True):
        _check_cases(report, *made)


def _check_names(report: Report, dataset: Dataset) -> None:
    for case in dataset.cases:
        if not case.name or case.patient == "":
            report.fault(f"{case.name!r}: its {'patient' if case.name else 'name'} must not be empty.")
            return
    for text in patient_warnings(sum(case.patient is None for case in dataset.cases), len(dataset.cases)):
        report.note(text)
    if any(case.spacing_mm is None for case in dataset.cases):
        report.note("cases without `spacing_mm`: their distances are measured in pixels.")


def _check_cases(report: Report, first: Dataset, second: Dataset) -> None:
    """Read all cases, those of the second dataset too, which must be the same."""
    if [case.name for case in first.cases] != [case.name for case in second.cases]:
        report.fault("loaded twice, the order or names of its cases differ: sort the files, draw from a seed.")
        return
    empty, flat = set(first.channels), []
    for one, other in zip(first.cases, second.cases, strict=True):
        with _counted_reads() as reads:
            image, masks = one.read()
        known, again = {path.resolve() for path in one.files}, other.read()
        unlisted = [path for path in reads if _is_data(path) and path not in known]
        if unlisted:
            report.fault(
                f"reading {one.name} opens {unlisted[0]}, which is not in its `files`: name it there, or the case is "
                "not read again when it changes."
            )
            return
        check_arrays(one, image, masks, channels=len(first.channels), inputs=len(first.inputs))
        pairs: list[tuple[Any, Any]] = list(zip((image, masks), again, strict=True))  # masks may be None
        equal = all(np.array_equal(*pair) for pair in pairs)
        if not equal or (one.patient, one.spacing_mm) != (other.patient, other.spacing_mm):
            report.fault(f"loaded twice, {one.name} differs: draw from a seed.")
            return
        if masks is not None:
            empty -= {channel for channel, mask in zip(first.channels, masks, strict=True) if mask.any()}
        if image.size > 1 and image.min() == image.max():
            flat.append(one.name)
    for channel in (channel for channel in first.channels if channel in empty):
        report.note(f"the channel '{channel}' is empty in every case.")
    if flat:
        report.note(f"{counted(len(flat), 'image')} with a single grey level, e.g. {flat[0]}.")
    if first.conclude:
        first.conclude()


@contextmanager
def _counted_reads() -> Iterator[Counter[Path]]:
    """Count the files that Python code opens for reading, by any of the three functions that open one."""
    counts: Counter[Path] = Counter()

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def opened(file: Any, mode: Any = "r", *rest: Any, **named: Any) -> Any:
            writes = mode & (os.O_WRONLY | os.O_RDWR) if isinstance(mode, int) else set(mode) & set("wax")
            if not writes and isinstance(file, (str, bytes, os.PathLike)):
                counts[Path(os.fsdecode(file)).resolve()] += 1
            return function(file, mode, *rest, **named)

        return opened

    with ExitStack() as patches:
        for module in (builtins, io, os):
            patches.enter_context(mock.patch.object(module, "open", counting(module.open)))
        yield counts


def _is_data(path: Path) -> bool:
    """Return whether a file is data rather than code or part of a library."""
    libraries = {Path(sys.prefix), Path(sys.base_prefix)}
    inside = any(path.is_relative_to(folder) for folder in libraries) and not path.is_relative_to(Path.cwd())
    return path.is_file() and path.suffix not in CODE and not inside and not path.is_relative_to("/proc")
