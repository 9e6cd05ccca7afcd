"""The cases that a report shows: the same for each variant, bad, middling and good ones of the reference."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segkit.study.reading import TrialRecord
from segkit.study.style import shorten, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from segkit.study.summary import Summary

PERCENTILES = (5, 25, 50, 95)


@dataclass(frozen=True)
class Shown:
    """One case as one variant segments it.

    Attributes:
        picture: the overlay, None where the variant has none of this case.
        caption: the headline metric of this case in the pictured trial, and the trial.
    """

    picture: Path | None
    caption: str


@dataclass(frozen=True)
class Chosen:
    """A case at a percentile of the reference's per-case headline metric."""

    percentile: int
    case: str
    by_variant: dict[str, Shown]


def values(trials: Iterable[TrialRecord], metric: str) -> dict[str, float]:
    """Return each case's metric, the mean over channels and trials; a case without any defined value is not there."""
    found: dict[str, list[float]] = {}
    for trial in trials:
        for case in trial.cases:
            if case.metric == metric and math.isfinite(case.value):
                found.setdefault(case.case, []).append(case.value)
    return {case: float(np.mean(numbers)) for case, numbers in found.items()}


def overlay(trial: TrialRecord, case: str) -> Path:
    """Return where a trial draws a case."""
    return trial.folder / "overlays" / f"{case.replace('/', '__')}.png"


def choose(summary: Summary) -> list[Chosen]:
    """Return the cases nearest to the percentiles of the reference, among those that were drawn."""
    ranked = [summary.reference, *(v for v in summary.variants if v != summary.reference)]
    base = next((variant for variant in ranked if summary.compared(variant)), None)
    if base is None:
        return []
    trials, metric = summary.compared(base), summary.headline[0].result.metric
    drawn = {
        case: value
        for case, value in values(trials, metric).items()
        if any(overlay(trial, case).exists() for trial in trials)
    }
    if not drawn:
        return []
    chosen: dict[str, int] = {}
    for percentile in PERCENTILES:
        target = np.percentile(list(drawn.values()), percentile)
        free = {case: value for case, value in drawn.items() if case not in chosen}
        if free:
            chosen[min(free, key=lambda case: (abs(free[case] - target), case))] = percentile
    return [
        Chosen(percentile, case, {variant: _show(summary, variant, case, metric) for variant in summary.variants})
        for case, percentile in chosen.items()
    ]


def _show(summary: Summary, variant: str, case: str, metric: str) -> Shown:
    """Return the picture of the variant's first trial that drew the case."""
    for trial in summary.compared(variant):
        if overlay(trial, case).exists():
            value = values([trial], metric).get(case)
            number = f"{metric} {value:.4f}" if value is not None else f"{metric} undefined"
            fold = f", fold {trial.fold}" if trial.fold else ""
            return Shown(overlay(trial, case), f"{number} (seed {trial.seed}{fold})")
    return Shown(None, "no picture")


def figure(summary: Summary) -> Figure | None:
    """Draw the chosen cases, a row for each variant and a column for each percentile."""
    from matplotlib.figure import Figure

    chosen = choose(summary)
    if not chosen:
        return None
    import cv2

    variants, size = summary.variants, 1.8
    drawing = Figure(figsize=(size * len(chosen) + 0.5, size * len(variants) + 0.6), layout="constrained")
    axes = drawing.subplots(len(variants), len(chosen), squeeze=False)
    for row, variant in zip(axes, variants, strict=True):
        for axis, case in zip(row, chosen, strict=True):
            shown = case.by_variant[variant]
            picture = cv2.imread(str(shown.picture)) if shown.picture else None
            if picture is not None:
                axis.imshow(picture[..., ::-1])
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            axis.grid(False)
            axis.set_xlabel(shown.caption, fontsize=7)
        row[0].set_ylabel(wrapped(variant), fontsize=8)
    for axis, case in zip(axes[0], chosen, strict=True):
        axis.set_title(f"{case.percentile}th percentile\n{shorten(case.case, 22)}", fontsize=8, loc="center")
    return drawing
