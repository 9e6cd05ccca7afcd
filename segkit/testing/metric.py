"""Try a metric, on images and on volumes: truth is best, one rule for empty masks, numbers that a table can hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.components.metrics import direction
from segkit.evaluation.scoring import checked_value
from segkit.registry.component import Component
from segkit.registry.faults import ComponentError
from segkit.testing.report import Report
from segkit.types import Spacing

Mask = NDArray[np.bool_]
IMAGE, VOLUME = (48, 40), (10, 20, 16)
SPACING = (4.0, 1.25, 0.8)  # of a volume; the last two of an image
ROUNDING = 1e-6  # relative to a value
UNDEFINED = ("nan", "undefined")


class Tried:
    """A metric under trial, which gets masks, or the probabilities 0 and 1 if it is registered for probabilities.

    Attributes:
        size: of the masks that it is tried with.
        spacing: that of their pixels.
    """

    def __init__(self, report: Report, component: Component, size: tuple[int, ...]) -> None:
        self.report, self.component, self.size = report, component, size
        self.spacing = SPACING[-len(size) :]
        self.soft = report.entry.traits["uses"] == "probability"
        self.truth, self.shifted = self.ball(0.41, 0.2), self.ball(0.48, 0.2)

    def __call__(self, prediction: NDArray[Any], truth: Mask) -> float:
        """Return its value, as evaluation does."""
        return self.value(prediction, truth, self.spacing)

    def value(self, prediction: NDArray[Any], truth: Mask, spacing: Spacing) -> float:
        """Return its value with another spacing."""
        return checked_value(self.component, self.predicted(prediction), truth, spacing)

    def predicted(self, prediction: NDArray[Any]) -> NDArray[Any]:
        """Return a prediction as segkit passes it."""
        return prediction.astype(np.float32) if self.soft else prediction >= 0.5

    def ball(self, centre: float, radius: float) -> Mask:
        """Return the mask of one; centre and radius are shares of each axis."""
        grid = np.ogrid[tuple(slice(length) for length in self.size)]
        distances = sum((at / length - centre) ** 2 for at, length in zip(grid, self.size, strict=True))
        return np.asarray(distances < radius**2)


def examine_metric(report: Report, component: Component) -> None:
    """Try a metric; see the module. One whose docstring says that it is undefined for images is tried on volumes."""
    report.build(component)
    images, volumes = (Tried(report, component, size) for size in (IMAGE, VOLUME))
    tried = images
    _traits_agree(report)
    with report.trying(f"called with a prediction and a truth {IMAGE}", needed=True):
        if math.isnan(images(images.truth, images.truth)) and report.documents(*UNDEFINED):
            tried = volumes
    with report.trying(f"called with a prediction and a truth {tried.size}", needed=True):
        value = tried(tried.truth, tried.truth)
        if not math.isfinite(value):
            report.fault(f"it is {value} for a prediction that equals the truth.")
    for examine in (_truth_is_best, _keeps_no_state, _takes_unusual_inputs, _takes_masks):
        with report.trying("called with good and bad predictions"):
            examine(tried)
    with report.trying("called twice"):
        inputs = tried.predicted(tried.shifted), tried.truth
        report.check_side_effects(lambda: component.build()(*(part.copy() for part in inputs), tried.spacing))
    _empty_masks(tried)
    if tried is images:
        with report.trying("called with volumes"):
            _takes_volumes(volumes)


def _traits_agree(report: Report) -> None:
    """A descriptive metric has no better direction, and so neither small values that are better nor a best one."""
    traits = report.entry.traits
    if traits["descriptive"] and (traits["lower_is_better"] or traits["best"] is not None):
        report.fault("no value of a descriptive metric is better: register it without `lower_is_better` and `best`.")


def _takes_volumes(tried: Tried) -> None:
    """A metric for images alone is allowed, but stops a study of volumes."""
    report = tried.report
    try:
        value = tried(tried.truth, tried.truth)
        tried(np.zeros(tried.size, bool), tried.truth)
    except ComponentError as error:
        report.warn(f"it works on images only, so that volumes cannot be evaluated: {error.text}", error.place)
        return
    if not math.isfinite(value):
        if not report.documents(*UNDEFINED):
            report.warn(f"it works on images only: it is {value} for a volume that is predicted as it is.")
    elif not report.faults:  # they would be found again
        _truth_is_best(tried)
        _empty_masks(tried)


def _truth_is_best(tried: Tried) -> None:
    """No prediction is better than the truth; how much worse each is depends on the metric."""
    report, truth, way = tried.report, tried.truth, direction(tried.report.entry.name) or 1
    perfect, shifted, apart = (tried(found, truth) for found in (truth, tried.shifted, tried.ball(0.86, 0.1)))
    shown = f"{perfect:.4g} for the truth itself, {shifted:.4g} when shifted, {apart:.4g} without overlap"
    undefined = any(map(math.isnan, (shifted, apart))) and not report.documents(*UNDEFINED)
    if undefined or any(map(math.isinf, (shifted, apart))):
        report.fault(f"it is not finite although neither prediction nor truth is empty ({shown}).")
        return
    if report.entry.traits["descriptive"]:
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
        report.fault(
            f"it is not best where the prediction is right ({shown}). If no value is better than another, register it "
            "with `descriptive=True`."
        )


def _keeps_no_state(tried: Tried) -> None:
    values = [tried(tried.shifted, tried.truth) for _ in range(2)]
    tried(tried.truth, tried.ball(0.23, 0.12))
    values.append(tried(tried.shifted, tried.truth))
    if len(set(values)) > 1:
        tried.report.fault(f"the same inputs give several values: {values}.")


def _takes_unusual_inputs(tried: Tried) -> None:
    """Data without spacing, probabilities, a single pixel, masks up to the border, other memory layouts."""
    report, truth, spacing = tried.report, tried.truth, tried.spacing
    pixel, full = np.zeros(tried.size, bool), np.ones(tried.size, bool)
    pixel[(*(0,) * (pixel.ndim - 1), -1)] = True
    inputs: dict[str, tuple[Any, Mask, Spacing]] = {
        "no spacing": (truth, truth, None),
        "a single pixel in a corner": (pixel, pixel, spacing),
        "full masks": (full, full, spacing),
        "arrays of another memory layout": (truth.T, np.asfortranarray(truth).T, spacing[::-1]),
    }
    if tried.soft:
        inputs["probabilities"] = (np.where(truth, 0.8, 0.1), truth, spacing)
    for what, given in inputs.items():
        with report.trying(f"called with {what}"):
            value, said = tried.value(*given), report.documents(*UNDEFINED)
            may_be_undefined = what == "full masks" or (what == "no spacing" and said)
            if math.isinf(value) or (math.isnan(value) and not may_be_undefined):
                report.fault(f"it is {value} for {what}.")
            elif math.isnan(value) and not said:
                report.note(f"it is NaN for {what}: such cases are counted, not averaged. Say so in the docstring.")


def _takes_masks(tried: Tried) -> None:
    """A metric of probabilities that is not registered as one gets masks."""
    if tried.soft:
        return
    truth = tried.truth
    try:
        soft = checked_value(tried.component, np.where(truth, np.float32(0.8), np.float32(0.1)), truth, tried.spacing)
    except Exception:
        return  # it is for masks alone
    hard = tried(truth, truth)
    if not abs(soft - hard) <= ROUNDING:
        tried.report.note(
            f"probabilities of 0.8 and 0.1 give {soft:.4g}; their mask, which segkit passes, gives {hard:.4g}. If it "
            'is meant for probabilities, register it with `uses="probability"`.'
        )


def _empty_masks(tried: Tried) -> None:
    """Both empty may be undefined; a missed structure and a false positive get the worst value."""
    report, truth, empty = tried.report, tried.truth, np.zeros(tried.size, bool)
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
