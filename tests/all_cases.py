"""Read every case of a dataset, as a run does before it trains."""

from __future__ import annotations

import dataclasses

from segkit.components.datasets.case import Dataset, check_arrays
from segkit.components.datasets.reading import DatasetError, collected


def read_all(dataset: Dataset) -> Dataset:
    """Return a dataset whose cases hold their arrays, and the notes of its `conclude`.

    Raises:
        DatasetError: cases that cannot be read, or what `conclude` finds.
    """
    problems: list[str] = []
    cases = []
    for case in dataset.cases:
        with collected(problems):
            image, masks = case.read()
            check_arrays(case, image, masks, channels=len(dataset.channels), inputs=len(dataset.inputs))
            cases.append(dataclasses.replace(case, image=image, masks=masks, load=None))
    if problems:
        raise DatasetError(problems)
    notes = dataset.conclude() if dataset.conclude else ()
    return dataclasses.replace(dataset, cases=tuple(cases), notes=(*dataset.notes, *notes), conclude=None)
