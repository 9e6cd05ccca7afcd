"""Try a metric: known values, one rule for empty masks, numbers that a table can hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.component import Component
from segkit.metrics import direction
from segkit.testing.report import Report

Metric = Callable[..., Any]
Mask = NDArray[np.bool_]
SIZE = (48, 40)
SPACING = (1.25, 0.8)


def examine_metric(report: Report, component: Component) -> None:
    """Try a metric; see the module."""
    metric = report.build(component)
    if metric is None:
        return
    before = report.faults
    truth = _disc(20, 16, 9)
    with report.trying("called with a prediction and a truth (48, 40)"):
        value = metric(truth.astype(np.float32), truth.copy(), SPACING)
        if not isinstance(value, (int, float, np.floating, np.integer)) or isinstance(value, bool):
            report.fault(f"it gives a {type(value).__name__}, no number: use `float(...)`.")
        elif not math.isfinite(value):
            report.fault(f"it gives {value} for a prediction that is the truth.")
    if report.faults > before:
        return
    for look in (_truth_is_best, _keeps_to_itself, _takes_odd_inputs):
        with report.trying("called with good and bad predictions"):
            look(report, metric, truth)
    _empty_masks(report, metric, truth)


def _disc(row: float, column: float, radius: float) -> Mask:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    found: Mask = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
    return found


def _of(metric: Metric, prediction: Mask, truth: Mask, spacing: tuple[float, float] | None = SPACING) -> float:
    return float(metric(prediction.astype(np.float32), truth.copy(), spacing))


def _truth_is_best(report: Report, metric: Metric, truth: Mask) -> None:
    perfect, shifted = _of(metric, truth, truth), _of(metric, _disc(23, 19, 9), truth)
    apart = _of(metric, _disc(42, 34, 4), truth)
    way = direction(report.entry.name) or 1
    shown = f"{perfect:.4g} for the truth itself, {shifted:.4g} when shifted, {apart:.4g} without overlap"
    if not all(map(math.isfinite, (shifted, apart))):
        report.fault(f"it is not finite where prediction and truth are both there ({shown}).")
    elif perfect == shifted == apart:
        report.note(f"it does not tell a right prediction from a wrong one ({shown}).")
    elif way * perfect >= way * shifted >= way * apart:
        return
    elif way * perfect <= way * shifted <= way * apart:
        hint = "remove `lower_is_better`" if way < 0 else "decorate it with `segkit.metrics.lower_is_better`"
        report.fault(f"a study would read it the wrong way round ({shown}): {hint}.")
    else:
        report.fault(f"it is not best where the prediction is right ({shown}).")


def _keeps_to_itself(report: Report, metric: Metric, truth: Mask) -> None:
    prediction, copy = _disc(23, 19, 9).astype(np.float32), truth.copy()
    kept = prediction.copy()
    values = [float(metric(prediction, copy, SPACING)) for _ in range(2)]
    if not np.array_equal(kept, prediction) or not np.array_equal(copy, truth):
        report.fault("it writes to its inputs. Work on copies.")
    _of(metric, truth, _disc(10, 10, 5))
    values.append(_of(metric, kept.astype(bool), truth))
    if len(set(values)) > 1:
        report.fault(f"the same inputs give several values: {values}.", report.source.state_line())


def _takes_odd_inputs(report: Report, metric: Metric, truth: Mask) -> None:
    """Data without spacing, probabilities, a single pixel, masks to the border, arrays in another order."""
    pixel = np.zeros(SIZE, bool)
    pixel[0, -1] = True
    tried: dict[str, tuple[Any, Mask, Any]] = {
        "no spacing": (truth.astype(np.float32), truth, None),
        "probabilities": (np.where(truth, np.float32(0.8), np.float32(0.1)), truth, SPACING),
        "one pixel in a corner": (pixel.astype(np.float32), pixel, SPACING),
        "full masks": (np.ones(SIZE, np.float32), np.ones(SIZE, bool), SPACING),
        "arrays in another order": (truth.astype(np.float32).T, np.asfortranarray(truth).T, SPACING),
    }
    for what, inputs in tried.items():
        with report.trying(f"called with {what}"):
            value = float(metric(*inputs))
            if not math.isfinite(value):
                report.fault(f"it gives {value} for {what}.")


def _empty_masks(report: Report, metric: Metric, truth: Mask) -> None:
    """Both empty may be undefined; what is missed, or predicted although nothing is there, gets the worst value."""
    empty = np.zeros(SIZE, bool)
    with report.trying("called with an empty prediction and an empty truth"):
        value = _of(metric, empty, empty)
        if math.isinf(value):
            report.fault(f"it gives {value} where nothing is there nor predicted: give NaN, which is counted apart.")
        elif not math.isnan(value) and not report.says("empty", "defined"):
            report.note(
                f"it gives {value:.4g} where nothing is there nor predicted; the built-in metrics are undefined there "
                "(NaN), so that such cases do not flatter a mean. Say in the docstring why it differs."
            )
    for what, prediction, true in (("a missed structure", empty, truth), ("a false positive", truth, empty)):
        with report.trying(f"called with {what}"):
            value = _of(metric, prediction, true)
            if math.isinf(value):
                report.fault(f"it gives {value} for {what}: a mean could not hold it. Give the worst finite value.")
            elif math.isnan(value) and not report.says("nan", "undefined"):
                report.fault(
                    f"it gives NaN for {what}, so that a mean improves by it. Give the worst value, or say in the "
                    "docstring where it is undefined (NaN) and why."
                )
