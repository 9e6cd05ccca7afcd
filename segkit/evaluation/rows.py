"""The rows of an evaluation: one number a case, channel and metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Row:
    """One number: a case, a channel, a metric.

    Attributes:
        value: the metric; NaN where it is undefined.
        truth_pixels: foreground pixels of the truth.
        predicted_pixels: pixels of the decided mask.
        set: of which the case is: "train", "validation" or "test"; "new" if of none.
    """

    case: str
    patient: str
    channel: str
    metric: str
    value: float
    truth_pixels: int
    predicted_pixels: int
    set: str = "validation"


def in_set(rows: Sequence[Row], name: str) -> list[Row]:
    """Return the rows as those of cases of a set."""
    return [replace(row, set=name) for row in rows]


def means(rows: Sequence[Row]) -> dict[str, float]:
    """Return each metric's mean over cases and channels; undefined values are left out, NaN if all are."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row.metric, []).append(row.value)
    return {
        name: float(np.nanmean(found)) if not np.isnan(found).all() else float("nan") for name, found in values.items()
    }
