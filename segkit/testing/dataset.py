"""Try a dataset: whole cases that say whose they are, the same every time, each file read once."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from segkit.components.datasets.case import Dataset
from segkit.errors import counted
from segkit.registry.component import Component
from segkit.testing.report import Report
from segkit.testing.surroundings import leaves_alone

CODE = (".py", ".pyc", ".so", ".pyd", ".dll")


def examine_data(report: Report, component: Component) -> None:
    """Try a dataset; `Dataset` itself checks shapes, types, channels, spacing and names."""
    before = report.faults
    counts: list[Counter[str]] = []
    made: list[Any] = []

    def load() -> Any:
        with _opened() as files:
            made.append(report.build(component))
        counts.append(files)
        return made[-1]

    with report.trying("loading the data twice"):
        leaves_alone(report, load)
    if report.faults > before or len(made) < 2 or not all(isinstance(found, Dataset) for found in made):
        return
    dataset, files = made[0], counts[0]
    again = [name for name, count in files.items() if count > 1 and _is_data(name)]
    if again:
        report.fault(
            f"{counted(len(again), 'file')} read more than once, e.g. {again[0]} ({files[again[0]]} times). Read each "
            "once."
        )
    _describes_cases(report, dataset)
    _repeats_itself(report, dataset, made[1])


def _describes_cases(report: Report, dataset: Dataset) -> None:
    for case in dataset.cases:
        names = {"name": case.name, "patient": case.patient}
        wrong = [key for key, value in names.items() if not (isinstance(value, str) and value) and value is not None]
        if wrong or case.name is None:
            report.fault(f"{case.name!r}: its {wrong[0] if wrong else 'name'} should be text that is not empty.")
            return
    unknown = sum(case.patient is None for case in dataset.cases)
    if unknown:
        report.note(
            f"{unknown} of {counted(len(dataset.cases), 'case')} {'names' if unknown == 1 else 'name'} no patient: "
            "images of one patient may then be in training and validation."
        )
    if any(case.spacing_mm is None for case in dataset.cases):
        report.note("cases without `spacing_mm`: their distances are measured in pixels.")
    for number, channel in enumerate(dataset.channels):
        filled = sum(bool(case.masks[number].any()) for case in dataset.cases)
        if not filled:
            report.note(f"the channel '{channel}' is empty in every case.")
        elif all(bool(case.masks[number].all()) for case in dataset.cases):
            report.note(f"the channel '{channel}' fills every image.")
    flat = [case.name for case in dataset.cases if case.image.size > 1 and case.image.min() == case.image.max()]
    if flat:
        report.note(f"{counted(len(flat), 'image')} of one grey level, e.g. {flat[0]}.")
    if len({id(case.image) for case in dataset.cases}) < len(dataset.cases):
        report.fault("cases share one image array: each should have its own.")


def _repeats_itself(report: Report, first: Dataset, second: Any) -> None:
    if [case.name for case in first.cases] != [case.name for case in second.cases]:
        report.fault("loaded twice its cases have another order or other names: sort the files, draw from a seed.")
        return
    for one, other in zip(first.cases, second.cases, strict=True):
        if not np.array_equal(one.image, other.image) or not np.array_equal(one.masks, other.masks):
            report.fault(f"loaded twice {one.name} differs: draw from a seed.")
            return
        if (one.patient, one.spacing_mm) != (other.patient, other.spacing_mm):
            report.fault(f"loaded twice {one.name} has another patient or spacing.")
            return


_watching: list[Counter[str]] = []
_hooked: list[bool] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _watching and isinstance(arguments[0], (str, bytes, Path)):
        name = arguments[0].decode(errors="replace") if isinstance(arguments[0], bytes) else str(arguments[0])
        if "w" not in str(arguments[1]):
            _watching[-1][str(Path(name).resolve())] += 1


@contextmanager
def _opened() -> Iterator[Counter[str]]:
    """Count the files that Python opens for reading; the hook stays, since Python removes none, but sleeps."""
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_hook)
    _watching.append(Counter())
    try:
        yield _watching[-1]
    finally:
        _watching.pop()


def _is_data(name: str) -> bool:
    """Return whether a file is the dataset's rather than code or a library's."""
    path = Path(name)
    libraries = {Path(sys.prefix), Path(sys.base_prefix)}
    inside = any(path.is_relative_to(folder) for folder in libraries) and not path.is_relative_to(Path.cwd())
    return path.is_file() and path.suffix not in CODE and not inside and not path.is_relative_to("/proc")
