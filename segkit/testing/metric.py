"""Try a metric: best for the truth, one rule for empty masks, numbers that a table can hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.components.metrics import direction
from segkit.evaluation.evaluator import checked_value
from segkit.registry.component import Component
from segkit.testing.report import Report

Mask = NDArray[np.bool_]
SIZE = (48, 40)
SPACING = (1.25, 0.8)
ROUNDING = 1e-6  # relative to a value
UNDEFINED = ("nan", "undefined")


class Tried:
    """A metric under trial, which gets masks, or the probabilities 0 and 1 if it is registered for probabilities."""

    def __init__(self, report: Report, component: Component) -> None:
        self.report, self.component = report, component
        self.soft = report.entry.traits["uses"] == "probability"

    def __call__(self, prediction: NDArray[Any], truth: Mask, spacing: tuple[float, float] | None = SPACING) -> float:
        """Return its value, as evaluation does."""
        return checked_value(self.component, self.predicted(prediction), truth, spacing)

    def predicted(self, prediction: NDArray[Any]) -> NDArray[Any]:
        """Return a prediction as segkit passes it."""
        return prediction.astype(np.float32) if self.soft else prediction >= 0.5


def examine_metric(report: Report, component: Component) -> None:
    """Try a metric; see the module."""
    report.build(component)
    tried, truth = Tried(report, component), _disc(20, 16, 9)
    with report.trying("called with a prediction and a truth (48, 40)", needed=True):
        value = tried(truth, truth)
        if not math.isfinite(value):
            report.fault(f"it is {value} for a prediction that equals the truth.")
    for examine in (_truth_is_best, _keeps_no_state, _takes_unusual_inputs, _takes_masks):
        with report.trying("called with good and bad predictions"):
            examine(tried, truth)
    with report.trying("called twice"):
        report.check_side_effects(lambda: component.build()(tried.predicted(_disc(23, 19, 9)), truth.copy(), SPACING))
    _empty_masks(tried, truth)


def _disc(row: float, column: float, radius: float) -> Mask:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    found: Mask = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
    return found


def _truth_is_best(tried: Tried, truth: Mask) -> None:
    """No prediction is better than the truth; how much worse each is depends on the metric."""
    report, way = tried.report, direction(tried.report.entry.name) or 1
    perfect, shifted, apart = (tried(found, truth) for found in (truth, _disc(23, 19, 9), _disc(42, 34, 4)))
    shown = f"{perfect:.4g} for the truth itself, {shifted:.4g} when shifted, {apart:.4g} without overlap"
    undefined = any(map(math.isnan, (shifted, apart))) and not report.documents(*UNDEFINED)
    if undefined or any(map(math.isinf, (shifted, apart))):
        report.fault(f"it is not finite although neither prediction nor truth is empty ({shown}).")
        return
    worse = [way * (perfect - other) for other in (shifted, apart) if not math.isnan(other)]
    slight = ROUNDING * max(abs(perfect), 1.0)
    if all(difference >= -slight for difference in worse):
        if not any(difference > slight for difference in worse):
            report.note(f"it does not distinguish right predictions from wrong ones ({shown}).")
    elif all(difference < slight for difference in worse):
        hint = "register it without `lower_is_better`" if way < 0 else "register it with `lower_is_better=True`"
        report.fault(f"a study would rank variants in reverse ({shown}): {hint}.")
    else:
        report.fault(f"it is not best where the prediction is right ({shown}).")


def _keeps_no_state(tried: Tried, truth: Mask) -> None:
    shifted = _disc(23, 19, 9)
    values = [tried(shifted, truth) for _ in range(2)]
    tried(truth, _disc(10, 10, 5))
    values.append(tried(shifted, truth))
    if len(set(values)) > 1:
        tried.report.fault(f"the same inputs give several values: {values}.")


def _takes_unusual_inputs(tried: Tried, truth: Mask) -> None:
    """Data without spacing, probabilities, a single pixel, masks up to the border, other memory layouts."""
    report, pixel = tried.report, np.zeros(SIZE, bool)
    pixel[0, -1] = True
    inputs: dict[str, tuple[Any, Mask, Any]] = {
        "no spacing": (truth, truth, None),
        "a single pixel in a corner": (pixel, pixel, SPACING),
        "full masks": (np.ones(SIZE, bool), np.ones(SIZE, bool), SPACING),
        "arrays of another memory layout": (truth.T, np.asfortranarray(truth).T, SPACING),
    }
    if tried.soft:
        inputs["probabilities"] = (np.where(truth, 0.8, 0.1), truth, SPACING)
    for what, (prediction, true, spacing) in inputs.items():
        with report.trying(f"called with {what}"):
            value = tried(prediction, true, spacing)
            if math.isinf(value) or (math.isnan(value) and what != "full masks"):
                report.fault(f"it is {value} for {what}.")
            elif math.isnan(value) and not report.documents(*UNDEFINED):
                report.note(f"it is NaN for {what}: such cases are counted, not averaged. Say so in the docstring.")


def _takes_masks(tried: Tried, truth: Mask) -> None:
    """A metric of probabilities that is not registered as one gets masks."""
    if tried.soft:
        return
    try:
        soft = checked_value(tried.component, np.where(truth, np.float32(0.8), np.float32(0.1)), truth, SPACING)
    except Exception:
        return  # it is for masks alone
    hard = tried(truth, truth)
    if not abs(soft - hard) <= ROUNDING:
        tried.report.note(
            f"probabilities of 0.8 and 0.1 give {soft:.4g}; their mask, which segkit passes, gives {hard:.4g}. If it "
            'is meant for probabilities, register it with `uses="probability"`.'
        )


def _empty_masks(tried: Tried, truth: Mask) -> None:
    """Both empty may be undefined; a missed structure and a false positive get the worst value."""
    report, empty = tried.report, np.zeros(SIZE, bool)
    with report.trying("called with an empty prediction and an empty truth"):
        value = tried(empty, empty)
        if math.isinf(value):
            report.fault(f"it is {value} for two empty masks: return NaN, which is counted separately.")
        elif not math.isnan(value) and not report.documents("empty", "defined"):
            report.note(
                f"it is {value:.4g} for two empty masks; the built-in metrics are undefined there (NaN), so that such "
                "cases do not improve a mean. Say in the docstring why it differs."
            )
    for what, prediction, true in (("a missed structure", empty, truth), ("a false positive", truth, empty)):
        with report.trying(f"called with {what}"):
            value = tried(prediction, true)
            if math.isinf(value):
                report.fault(f"it is {value} for {what}, and so would be the mean: return the worst finite value.")
            elif math.isnan(value) and not report.documents(*UNDEFINED):
                report.fault(
                    f"it is NaN for {what}, which improves the mean. Return the worst value, or say in the docstring "
                    "where it is undefined (NaN) and why."
                )
