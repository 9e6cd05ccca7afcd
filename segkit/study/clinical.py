"""Clinical measures of volumes in two phases of the heart's cycle: predicted against truth, by patient.

End-diastolic and end-systolic volume and EF = (EDV - ESV) / EDV come from the metrics `volume_ml` and
`volume_difference_ml` of the compared trials. Each patient counts once: with the mean over the trainings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segkit.study.scores import Scores
from segkit.study.statistics import Table
from segkit.study.summary import Summary

VOLUME, DIFFERENCE = "volume_ml", "volume_difference_ml"
TAG, PHASES = "phase", ("ED", "ES")
LIMITS = 1.96  # standard deviations, which hold 95 % of normally distributed differences


@dataclass(frozen=True)
class Agreement:
    """How one measure of a variant agrees with truth, in ml or percent; NaN if there is no value.

    Attributes:
        measure: "EDV (ml)", "ESV (ml)" or "EF (%)".
        patients: those with a defined value in truth and in every training that evaluated them.
        truth, prediction: means over these patients.
        bias: mean of prediction minus truth.
        low, high: 95 % limits of agreement, bias -+ 1.96 standard deviations (Bland and Altman 1986).
    """

    variant: str
    channel: str
    measure: str
    patients: int
    truth: float
    prediction: float
    bias: float
    low: float
    high: float


@dataclass(frozen=True)
class Clinical:
    """The clinical measures of a study.

    Attributes:
        tagged: whether the phases are the cases' tags; otherwise a patient's largest and smallest true volume.
        patients: those with both phases.
        left_out: those without.
        agreements: one a variant, channel and measure.
    """

    tagged: bool
    patients: int
    left_out: int
    agreements: list[Agreement]


def clinical_measures(summary: Summary) -> Clinical | None:
    """Return the clinical measures; None if the metrics lack the volumes, or no patient has two phases."""
    scores = summary.scores
    if not {VOLUME, DIFFERENCE} <= scores.values.keys():
        return None
    predicted = scores.values[VOLUME]
    truth = _mean(predicted - scores.values[DIFFERENCE], scores.held & ~np.isnan(predicted))
    data = [trial.info.get("data", {}) for trial in summary.whole]
    tags = {case: found for known in data for case, found in known.get("tags", {}).items()}
    phase = np.array([tags.get(case, {}).get(TAG, "").strip().upper() for case in scores.cases])
    tagged = bool(np.isin(phase, PHASES).any())
    places = _tagged_places(scores, phase) if tagged else _extreme_places(scores, truth)
    whole = (places >= 0).all(axis=0)  # (patients, channels)
    places[:, ~whole] = -1
    if np.isnan(truth).all() or not whole.any():
        return None
    patients = int(whole.any(axis=-1).sum())
    agreements = _agreements(summary, _in_phases(predicted, places), _in_phases(truth, places), places)
    return Clinical(tagged, patients, len(scores.patients) - patients, agreements)


def _mean(values: Table, there: NDArray[np.bool_]) -> Table:
    """Return the mean over the first axis of the values that are there, NaN if none is."""
    count = there.sum(axis=0)
    return np.asarray(np.where(there, values, 0.0).sum(axis=0) / np.where(count, count, np.nan))


def _tagged_places(scores: Scores, phase: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return (phases, patients, channels): the one case of each phase; -1 where there is none, or several."""
    places = np.full((len(PHASES), len(scores.patients), len(scores.channels)), -1)
    for patient, number in np.ndindex(len(scores.patients), len(PHASES)):
        found = np.flatnonzero((scores.owners == patient) & (phase == PHASES[number]))
        if len(found) == 1:
            places[number, patient] = found[0]
    return places


def _extreme_places(scores: Scores, truth: Table) -> NDArray[np.int64]:
    """Return (phases, patients, channels): the cases of the largest and the smallest true volume, of two or more."""
    places = np.full((len(PHASES), len(scores.patients), len(scores.channels)), -1)
    for patient, channel in np.ndindex(*places.shape[1:]):
        found = np.flatnonzero((scores.owners == patient) & ~np.isnan(truth[:, channel]))
        if len(found) > 1:
            volumes = truth[found, channel]
            places[:, patient, channel] = found[volumes.argmax()], found[volumes.argmin()]
    return places


def _in_phases(values: Table, places: NDArray[np.int64]) -> Mapping[str, Table]:
    """Return the measures (..., patients, channels) of values (..., cases, channels), NaN where a phase is missing."""
    channels = np.arange(values.shape[-1])
    diastolic, systolic = (np.where(place >= 0, values[..., place, channels], np.nan) for place in places)
    filled = np.where(diastolic > 0, diastolic, np.nan)
    return {"EDV (ml)": diastolic, "ESV (ml)": systolic, "EF (%)": 100 * (diastolic - systolic) / filled}


def _agreements(
    summary: Summary, predicted: Mapping[str, Table], truth: Mapping[str, Table], places: NDArray[np.int64]
) -> list[Agreement]:
    """Return one agreement a variant, channel and measure; what is undefined in one training is not averaged."""
    scores, agreements = summary.scores, []
    held = np.all([scores.held[:, place, np.arange(len(scores.channels))] for place in places], axis=0)
    for variant in summary.variants:
        rows = scores.rows(variant)
        for number, channel in enumerate(scores.channels):
            for measure, values in predicted.items():
                mean = _mean(values[rows, :, number], held[rows, :, number])
                pairs = np.stack([truth[measure][:, number], mean])
                agreements.append(_agreement(variant, channel, measure, *pairs[:, ~np.isnan(pairs).any(axis=0)]))
    return agreements


def _agreement(variant: str, channel: str, measure: str, truth: Table, predicted: Table) -> Agreement:
    """Return the agreement of the values of the same patients."""
    differences, nothing = predicted - truth, math.nan
    if not len(truth):
        return Agreement(variant, channel, measure, 0, *[nothing] * 5)
    bias = float(differences.mean())
    half = LIMITS * float(differences.std(ddof=1)) if len(truth) > 1 else nothing
    means = float(truth.mean()), float(predicted.mean())
    return Agreement(variant, channel, measure, len(truth), *means, bias, bias - half, bias + half)
