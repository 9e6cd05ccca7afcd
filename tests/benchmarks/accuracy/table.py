"""Results as a table in Markdown: means over patients, and differences paired by patient, with their intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from segkit.study.statistics import bootstrap
from tests.benchmarks.accuracy.results import Result

TITLES = {"dice": "Dice", "hd95": "hd95 (pixels)", "nsd": "NSD (2 pixels)"}
DIGITS = {"dice": 3, "hd95": 1, "nsd": 3}
CHOSEN_ON = 1
"""The fold on which settings were chosen."""


def by_patient(results: Sequence[Result], metric: str) -> dict[str, float]:
    """Return each patient's mean over cases; undefined values are left out."""
    values: dict[str, list[float]] = {}
    for row in (row for result in results for row in result.training.rows):
        if row.metric == metric and not math.isnan(row.value):
            values.setdefault(row.patient, []).append(row.value)
    return {patient: statistics.fmean(found) for patient, found in values.items()}


def difference(values: Mapping[str, float], reference: Mapping[str, float]) -> tuple[float, float, float]:
    """Return the mean difference over the patients of both, and its 95 % bootstrap interval; NaN without any."""
    both = [values[patient] - reference[patient] for patient in values if patient in reference]
    return (float(np.mean(both)) if both else math.nan, *bootstrap(np.array(both)))


def table(
    labels: Mapping[str, str],
    states: Mapping[str, str],
    results: Sequence[Result],
    reference: str,
    metrics: Sequence[str],
) -> str:
    """Return a table with a row for each contestant.

    Args:
        labels: of the contestants, by name.
        states: what to say of a contestant without results.
        results: of some folds.
        reference: the contestant from which the others differ.
        metrics: those to show.
    """
    columns = [part for name in metrics for part in (TITLES[name], "difference")]
    header = ["", *columns, "folds", "minutes", "steps", "parameters"]
    of = {name: [result for result in results if result.key.contestant == name] for name in labels}
    lines = [header, ["---"] * len(header)]
    for name, label in labels.items():
        own = of[name]
        cells = [cell for metric in metrics for cell in _values(own, of[reference], metric)] if own else []
        if own:
            trainings = [result.training for result in own]
            minutes = [training.seconds / 60 for training in trainings]
            cells += [", ".join(str(result.key.fold) for result in own), _range(minutes, 1)]
            cells += [_range([training.steps for training in trainings], 0), f"{trainings[0].parameters:,}"]
        lines.append([label, *(cells or [states.get(name, "not measured yet"), *[""] * (len(header) - 2)])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _values(own: Sequence[Result], reference: Sequence[Result], metric: str) -> list[str]:
    """Return the mean over patients and the difference, each with its interval."""
    values, others, digits = by_patient(own, metric), by_patient(reference, metric), DIGITS[metric]
    if not values:
        return ["undefined", ""]
    mean, (low, high) = f"{statistics.fmean(values.values()):.{digits}f}", bootstrap(np.array([*values.values()]))
    mean += "" if math.isnan(low) else f" ({low:.{digits}f} to {high:.{digits}f})"
    if own and reference and own[0].key.contestant == reference[0].key.contestant:
        return [mean, "reference"]
    found, low, high = difference(values, others)
    if math.isnan(found):
        return [mean, ""]
    interval = "" if math.isnan(low) else f" ({low:+.{digits}f} to {high:+.{digits}f})"
    return [mean, f"{found:+.{digits}f}{interval}"]


def _range(values: Sequence[float], digits: int) -> str:
    """Return the smallest and the largest, or one where they are the same as shown."""
    shown = [f"{value:,.{digits}f}" for value in (min(values), max(values))]
    return shown[0] if shown[0] == shown[1] else " to ".join(shown)


def report(
    labels: Mapping[str, str],
    states: Mapping[str, str],
    results: Sequence[Result],
    reference: str,
    metrics: Sequence[str],
    command: str,
) -> str:
    """Return the tables of all folds and of those on which nothing was chosen, and how they came about."""
    others = [result for result in results if result.key.fold != CHOSEN_ON]
    places = sorted({f"{result.hardware}; {result.versions}" for result in results})
    parts = [
        "All folds:",
        table(labels, states, results, reference, metrics),
        f"Without fold {CHOSEN_ON}, on which settings were chosen:",
        table(labels, states, others, reference, metrics),
        *(f"Measured on {place}." for place in places),
        f"    {command}",
    ]
    return "\n\n".join(parts)
