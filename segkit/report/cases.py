"""The example cases of a report: the same for each variant, at percentiles of the reference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segkit.evaluation.overlay import picture_name
from segkit.report.style import wrapped
from segkit.study.summary import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PERCENTILES = (5, 25, 50, 95)


@dataclass(frozen=True)
class Panel:
    """One case as one variant segments it.

    Attributes:
        picture: the overlay, None if the variant has none of this case.
        caption: the headline metric of this case in the pictured trial, and the trial.
    """

    picture: Path | None
    caption: str


@dataclass(frozen=True)
class Example:
    """A case at a percentile of the reference's headline metric by case."""

    percentile: int
    name: str
    by_variant: dict[str, Panel]


def choose(summary: Summary) -> list[Example]:
    """Return the cases nearest to the percentiles of the reference, among those with an overlay."""
    ranked = sorted(summary.variants, key=lambda variant: variant != summary.reference)
    base = next((variant for variant in ranked if summary.compared(variant)), None)
    scores = summary.scores
    if base is None or summary.metric not in scores.values:
        return []
    pictures = {path.name for trial in summary.compared(base) for path in (trial.folder / "overlays").glob("*.png")}
    values = {
        case: float(value)
        for case, value in zip(scores.cases, scores.by_case(summary.metric, scores.rows(base)), strict=True)
        if not math.isnan(value) and picture_name(case) in pictures
    }
    every, examples = list(values.values()), []
    for percentile in PERCENTILES[: len(values)]:
        target = np.percentile(every, percentile)
        case = min(values, key=lambda case: (abs(values[case] - target), case))
        del values[case]
        examples.append(Example(percentile, case, {name: _panel(summary, name, case) for name in summary.variants}))
    return examples


def _panel(summary: Summary, variant: str, case: str) -> Panel:
    """Return the case's overlay of the variant's first trial that has one."""
    scores, metric = summary.scores, summary.metric
    for trial in summary.compared(variant):
        path = trial.folder / "overlays" / picture_name(case)
        if path.exists():
            row = scores.training(trial)
            value = scores.by_case(metric, [row])[scores.cases.index(case)]
            number = f"{metric} undefined" if math.isnan(value) else f"{metric} {value:.4f}"
            fold = f", fold {trial.fold}" if trial.fold else ""
            return Panel(path, f"{number} (seed {trial.seed}{fold})")
    return Panel(None, "no picture")


def figure(summary: Summary) -> Figure | None:
    """Draw the chosen cases, a row for each variant and a column for each percentile."""
    import cv2
    from matplotlib.figure import Figure

    examples = choose(summary)
    if not examples:
        return None
    variants, size = summary.variants, 1.8
    drawing = Figure(figsize=(size * len(examples) + 0.5, size * len(variants) + 0.6), layout="constrained")
    axes = drawing.subplots(len(variants), len(examples), squeeze=False)
    for row, variant in zip(axes, variants, strict=True):
        for axis, example in zip(row, examples, strict=True):
            panel = example.by_variant[variant]
            picture = cv2.imread(str(panel.picture)) if panel.picture else None
            if picture is not None:
                axis.imshow(picture[..., ::-1])
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            axis.grid(False)
            axis.set_xlabel(panel.caption, fontsize=7)
        row[0].set_ylabel(wrapped(variant), fontsize=8)
    for axis, example in zip(axes[0], examples, strict=True):
        axis.set_title(f"{example.percentile}th percentile\n{wrapped(example.name, 22, 1)}", fontsize=8, loc="center")
    return drawing
