"""Metrics of one case, of its masks or of counts of their pixels; and the check of what a plugin's metric does."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from segkit.components.metrics import Counts, as_number, counts
from segkit.data.cases import StoredCase
from segkit.evaluation.rows import Row
from segkit.registry.component import Component
from segkit.registry.faults import ComponentError, fault
from segkit.registry.source import ComponentCode

if TYPE_CHECKING:
    from segkit.types import Array, Spacing


def uses_probability(metric: Component) -> bool:
    """Return whether a metric takes probabilities in place of the mask."""
    return bool(metric.entry.traits["uses"] == "probability")


def score(
    case: StoredCase,
    truths: Array,
    probability: Array,
    mask: Array,
    channels: Sequence[str],
    metrics: Sequence[Component],
) -> list[Row]:
    """Return the rows of one case; the arrays are (C, H, W) or (C, D, H, W) at the size of the case's image."""
    rows = []
    for channel, name in enumerate(channels):
        truth = truths[channel]
        found = counts(mask[channel], truth)
        for metric in metrics:
            if counted(metric):
                rows.append(_row(case, name, metric, found, _of_counts(metric, found, case)))
                continue
            given = probability if uses_probability(metric) else mask
            inputs = given[channel], truth, case.spacing_mm
            value = checked_value(metric, *inputs) if metric.entry.foreign else float(metric(*inputs))
            rows.append(_row(case, name, metric, found, value))
    return rows


def score_counts(
    case: StoredCase, found: Sequence[Counts], channels: Sequence[str], metrics: Sequence[Component]
) -> list[Row]:
    """Return the rows of one case for metrics that are `counted`, of the counts of each channel."""
    return [
        _row(case, name, metric, own, _of_counts(metric, own, case))
        for name, own in zip(channels, found, strict=True)
        for metric in metrics
    ]


def counted(metric: Component) -> bool:
    """Return whether a metric is a function of counts of pixels."""
    return metric.entry.traits["of_counts"] is not None and not metric.entry.foreign


def _of_counts(metric: Component, found: Counts, case: StoredCase) -> float:
    return float(metric.entry.traits["of_counts"](found, case.spacing_mm))


def _row(case: StoredCase, channel: str, metric: Component, found: Counts, value: float) -> Row:
    return Row(case.name, case.patient or "", channel, metric.name, value, found.true, found.predicted)


def checked_value(metric: Component, predicted: Array, truth: Array, spacing_mm: Spacing) -> float:
    """Return the value of a plugin's metric for one channel, computed from copies of the arrays.

    Raises:
        ComponentError: it raised, returned something other than a number, or wrote to what it was given.
    """
    copies = predicted.copy(), truth.copy()
    value = metric(*copies, spacing_mm)
    for name, copy, original in zip(("prediction", "truth"), copies, (predicted, truth), strict=True):
        if not np.array_equal(copy, original, equal_nan=copy.dtype != bool):
            place = _writing_line(metric, predicted, truth, spacing_mm)
            raise fault(metric, f"it writes to its {name}, which others use too. Work on a copy.", place)
    try:
        return as_number(value)
    except ValueError as error:
        raise fault(metric, str(error)) from None


def _writing_line(metric: Component, predicted: Array, truth: Array, spacing_mm: Spacing) -> str | None:
    """Return the line of a metric that writes to its arrays, where numpy can tell."""
    copies = predicted.copy(), truth.copy()
    for copy in copies:
        copy.flags.writeable = False
    with warnings.catch_warnings(action="ignore"):
        try:
            metric(*copies, spacing_mm)
        except ComponentError as error:
            return ComponentCode(metric.entry.factory).of_error(error.__cause__ or error)
    return None
