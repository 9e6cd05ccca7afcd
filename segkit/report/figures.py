"""The figures of a report: each function returns a matplotlib figure, or None if there are no data for it."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segkit.components.metrics import unit
from segkit.report import cases
from segkit.report.style import figure_style, legend_below, new_figure, to_bytes, variant_style, wrapped
from segkit.report.tables import headline_name
from segkit.study.statistics import Table
from segkit.study.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL, ROW = 2.5, 0.42
FEW = 6
MANY = 1000
DECADE = 10
LATE_EPOCHS = 20
LATE_SHARE = 0.1


def _bands(summary: Summary, variant: str, column: str) -> tuple[Table, ...] | None:
    """Return the epochs in which a column of metrics.csv has values, and their mean, minimum and maximum over trials.

    Each is (epochs,); trials may end early. None if no trial has any value.
    """
    found = [trial.curves[column] for trial in summary.of(variant) if trial.curves.get(column)]
    table = np.full((len(found), max(map(len, found), default=0)), np.nan)
    for row, values in zip(table, found, strict=True):
        row[: len(values)] = values
    table[~np.isfinite(table)] = np.nan
    there = ~np.isnan(table).all(axis=0)
    if not there.any():
        return None
    bands = [np.flatnonzero(there) + 1.0, *(f(table[:, there], axis=0) for f in (np.nanmean, np.nanmin, np.nanmax))]
    return tuple(np.asarray(part, dtype=np.float64) for part in bands)


def transient_end(means: Sequence[Table]) -> int | None:
    """Return the epoch at which a second, enlarged panel starts: when all curves are near their final values.

    A curve is near once it stays within a tenth of its range of the median of its last quarter; the panel starts when
    the slowest curve is, or after half the epochs. None for short trainings and curves without a transient.
    """
    epochs = max(map(len, means), default=0)
    if epochs < LATE_EPOCHS:
        return None
    ends = []
    for mean in means:
        away = np.abs(mean - np.median(mean[-max(1, len(mean) // 4) :])) > LATE_SHARE * np.ptp(mean)
        early = np.flatnonzero(away[: epochs // 2])
        ends.append(int(early[-1]) + 2 if len(early) else 1)
    start = max(ends)
    return start if start > 2 else None


def curves(summary: Summary, column: str, label: str, *, may_log: bool = False) -> Figure | None:
    """Draw a column of metrics.csv over epochs: a line for the mean over trials, a band from minimum to maximum."""
    bands = {variant: band for variant in summary.variants if (band := _bands(summary, variant, column))}
    if not bands:
        return None
    late = transient_end([mean for _, mean, _, _ in bands.values()])
    starts = [1, late] if late else [1]
    figure, axes = new_figure(PANEL * len(starts), len(starts))
    alpha = 0.15 if len(bands) <= FEW else 0.07
    for axis, start in zip(axes, starts, strict=True):
        for variant, (epochs, mean, low, high) in bands.items():
            shown, number = epochs >= start, summary.variants.index(variant)
            _line(axis, number, epochs[shown], mean[shown], variant)
            if sum(bool(trial.curves.get(column)) for trial in summary.of(variant)) > 1:
                colour = variant_style(number)["color"]
                axis.fill_between(epochs[shown], low[shown], high[shown], color=colour, alpha=alpha, linewidth=0)
        _scale(axis, [band[1:] for band in bands.values()] if may_log else [], start)
        axis.set_ylabel(label)
    if late:
        axes[1].set_title(f"from epoch {late}")
    axes[-1].set_xlabel("epoch")
    legend_below(figure, axes[0].lines)
    return figure


def _line(axis: Axes, number: int, x: Table, y: Table, label: str) -> None:
    """Draw a curve with a few markers, at other epochs for each variant."""
    step = max(1, len(x) // 8)
    every: Any = (number * max(1, step // 4) % step, step) if len(x) > 1 else None
    axis.plot(x, y, label=wrapped(label, 60, 3), markevery=every, **variant_style(number))


def _scale(axis: Axes, bands: Sequence[Sequence[Table]], start: int) -> None:
    """Use a log scale if the values span a decade or more; label whole epochs only."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    values = np.concatenate([np.zeros(0), *(part[start - 1 :] for band in bands for part in band)])
    if len(values) and values.min() > 0 and values.max() / values.min() >= DECADE:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())


def learning_rate(summary: Summary) -> Figure | None:
    """Draw the learning rate over epochs; variants that share a curve share a line."""
    groups: dict[tuple[float, ...], list[str]] = {}
    for variant in summary.variants:
        rates = max((trial.curves.get("lr", []) for trial in summary.of(variant)), key=len, default=[])
        if rates:
            groups.setdefault(tuple(rates), []).append(variant)
    if not groups:
        return None
    figure, (axis,) = new_figure(PANEL)
    for shared, variants in groups.items():
        label = "all variants" if len(groups) == 1 < len(variants) else ", ".join(variants)
        epochs = np.arange(1.0, len(shared) + 1)
        _line(axis, summary.variants.index(variants[0]), epochs, np.array(shared), label)
    _scale(axis, [[np.array(shared)] for shared in groups], 1)
    axis.set_xlabel("epoch")
    axis.set_ylabel("learning rate")
    legend_below(figure, axis.lines)
    return figure


def effect(summary: Summary) -> Figure | None:
    """Draw each variant's difference from the reference with both 95 % intervals."""
    from matplotlib.lines import Line2D

    lines = [line for line in summary.headline if not math.isnan(line.result.difference)]
    if not lines:
        return None
    figure, (axis,) = new_figure(0.75 + ROW * len(lines))
    for row, line in enumerate(lines):
        result = line.result
        colour = variant_style(summary.variants.index(result.variant))["color"]
        axis.plot([result.t_low, result.t_high], [row, row], color=colour, linewidth=1.2, marker="|", markersize=7)
        axis.plot([result.ci_low, result.ci_high], [row, row], color=colour, linewidth=4, solid_capstyle="butt")
        face = colour if result.told_apart else "white"
        axis.plot(result.difference, row, "o", color=colour, markerfacecolor=face, markersize=7, markeredgewidth=1.5)
    axis.axvline(0, color="#444444", linewidth=1, zorder=0)
    _rows(axis, [line.result.variant for line in lines])
    name, in_unit = _headline(summary)
    axis.set_xlabel(f"{name}: difference from {wrapped(summary.reference, 60, 1)}{in_unit}")
    grey: dict[str, Any] = {"color": "#666666"}
    keys = [Line2D([], [], linewidth=4, solid_capstyle="butt", label="95 %, patients alone (bootstrap)", **grey)]
    if any(not math.isnan(line.result.t_low) for line in lines):
        both = "95 %, training noise and patients"
        keys.insert(0, Line2D([], [], linewidth=1.2, marker="|", markersize=7, label=both, **grey))
    if any(line.result.told_apart for line in lines):
        told = "filled: told apart from the reference"
        keys.append(Line2D([], [], linestyle="", marker="o", markersize=7, label=told, **grey))
    legend_below(figure, keys)
    return figure


def _headline(summary: Summary) -> tuple[str, str]:
    """Return the label of the headline's metric on axes, and its unit in brackets."""
    known = unit(summary.metric)
    return wrapped(headline_name(summary), 60, 1), f" ({known})" if known else ""


def _rows(axis: Axes, labels: Sequence[str]) -> None:
    """Name the rows of a horizontal figure, the first on top."""
    axis.set_yticks(range(len(labels)), [wrapped(label) for label in labels])
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.grid(False, axis="y")


def distribution(summary: Summary) -> Figure | None:
    """Draw the headline metric of every case, with boxes (quartiles) and whiskers (5th and 95th percentile)."""
    scores = summary.scores
    if summary.metric not in scores.values:
        return None
    values = {v: scores.by_case(summary.metric, scores.rows(v)) for v in summary.variants}
    values = {v: np.sort(found[~np.isnan(found)]) for v, found in values.items() if not np.isnan(found).all()}
    if not values:
        return None
    figure, (axis,) = new_figure(0.6 + ROW * len(values))
    rng = np.random.default_rng(0)
    for row, (variant, found) in enumerate(values.items()):
        colour = variant_style(summary.variants.index(variant))["color"]
        jitter = row + rng.uniform(-0.28, 0.28, len(found))
        many = len(found) > MANY  # rasterized: the SVG would take megabytes
        size = 3 if many else 5
        axis.plot(found, jitter, ".", color=colour, alpha=0.6, markersize=size, markeredgewidth=0, rasterized=many)
    axis.boxplot(
        list(values.values()),
        positions=range(len(values)),
        orientation="horizontal",
        whis=(5, 95),
        widths=0.5,
        showfliers=False,
        medianprops={"color": "black", "linewidth": 1.8},
    )
    _rows(axis, list(values))
    name, in_unit = _headline(summary)
    axis.set_xlabel(f"{name} of a case{in_unit}, mean over channels and trials")
    return figure


FIGURES: dict[str, Callable[[Summary], Figure | None]] = {
    "effect": effect,
    "distribution": distribution,
    "val_dice": functools.partial(curves, column="val_dice", label="validation Dice"),
    "val_loss": functools.partial(curves, column="val_loss", label="validation loss", may_log=True),
    "train_loss": functools.partial(curves, column="train_loss", label="training loss", may_log=True),
    "learning_rate": learning_rate,
    "cases": cases.figure,
}


def draw(summary: Summary) -> dict[str, dict[str, bytes]]:
    """Return every figure that has data, by name and format: "png" (300 dpi) and "svg"."""
    drawn = {}
    with figure_style([*summary.variants, *summary.scores.cases, *summary.scores.metrics]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")  # of a bold face, say
        for name, function in FIGURES.items():
            figure = function(summary)
            if figure is not None:
                drawn[name] = to_bytes(figure)
    return drawn
