"""The cases that a report shows: the same for each variant, bad, middling and good ones of the reference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segkit.evaluation.overlay import picture_name
from segkit.report.style import wrapped
from segkit.study.reading import TrialRecord

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


def drawn_by(trial: TrialRecord) -> set[str]:
    """Return the names of the pictures that a trial drew of its cases."""
    folder = trial.folder / "overlays"
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def choose(summary: Summary) -> list[Chosen]:
    """Return the cases nearest to the percentiles of the reference, among those that were drawn."""
    ranked = [summary.reference, *(v for v in summary.variants if v != summary.reference)]
    base = next((variant for variant in ranked if summary.compared(variant)), None)
    if base is None:
        return []
    scores, metric = summary.scores, summary.headline[0].result.metric
    pictures = {trial.folder: drawn_by(trial) for trial in summary.compared(base)}
    means = scores.by_case(metric, scores.rows(base)) if metric in scores.values else np.zeros(0)
    drawn = {
        case: float(value)
        for case, value in zip(scores.cases, means, strict=False)
        if not math.isnan(value) and any(picture_name(case) in names for names in pictures.values())
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
    scores = summary.scores
    for trial in summary.compared(variant):
        path = trial.folder / "overlays" / picture_name(case)
        if path.exists():
            row = scores.trainings.index((variant, trial.seed))
            value = scores.by_case(metric, [row])[scores.cases.index(case)]
            number = f"{metric} undefined" if math.isnan(value) else f"{metric} {value:.4f}"
            fold = f", fold {trial.fold}" if trial.fold else ""
            return Shown(path, f"{number} (seed {trial.seed}{fold})")
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
        axis.set_title(f"{case.percentile}th percentile\n{wrapped(case.case, 22, 1)}", fontsize=8, loc="center")
    return drawing
