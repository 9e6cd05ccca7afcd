"""The figures of a report, each a function from a summary to a matplotlib figure, or None where there is no data."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segkit.report import cases, prose
from segkit.report.style import COLOURS, lay_out, legend_below, look, new_figure, style, to_bytes, wrapped
from segkit.study.statistics import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from segkit.study.summary import Line, Summary

PANEL, ROW = 2.5, 0.42
FEW = 6
MANY = 1000
DECADE = 10
LATE_EPOCHS = 20
LATE_SHARE = 0.1


def _stack(summary: Summary, variant: str, column: str) -> Table:
    """Return a column of metrics.csv as (trials, epochs), NaN beyond the end of shorter trials."""
    found = [trial.curves[column] for trial in summary.of(variant) if trial.curves.get(column)]
    table = np.full((len(found), max(map(len, found), default=0)), np.nan)
    for row, values in zip(table, found, strict=True):
        row[: len(values)] = values
    table[~np.isfinite(table)] = np.nan
    return table


def _bands(table: Table) -> tuple[Table, ...]:
    """Return the epochs that have values, and their mean, least and largest over trials."""
    there = ~np.isnan(table).all(axis=0)
    kept = table[:, there]
    found = np.flatnonzero(there) + 1.0, np.nanmean(kept, axis=0), np.nanmin(kept, axis=0), np.nanmax(kept, axis=0)
    return tuple(np.asarray(part, dtype=np.float64) for part in found)


def transient_end(means: Sequence[Table]) -> int | None:
    """Return the epoch from which a second panel shows more: all curves have come near to where they end.

    A curve is near once it stays within a tenth of its whole range around the median of its last quarter; the panel
    starts after the slowest curve, or after half the epochs. None for short trainings and curves without transient.
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


def curves(summary: Summary, column: str, label: str, *, may_log: bool) -> Figure | None:
    """Draw a column of metrics.csv over epochs: mean line and band from least to largest over trials."""
    tables = {variant: _stack(summary, variant, column) for variant in summary.variants}
    tables = {variant: table for variant, table in tables.items() if not np.isnan(table).all()}
    if not tables:
        return None
    bands = {variant: _bands(table) for variant, table in tables.items()}
    late = transient_end([mean for _, mean, _, _ in bands.values()])
    figure, axes = new_figure(PANEL * (1 + bool(late)), 1 + bool(late))
    alpha = 0.15 if len(tables) <= FEW else 0.07
    for axis, start in zip(axes, (1, late), strict=False):
        for variant, (epochs, mean, low, high) in bands.items():
            shown = epochs >= (start or 1)
            _line(axis, summary.variants.index(variant), epochs[shown], mean[shown], variant)
            if len(tables[variant]) > 1:
                colour = look(summary.variants.index(variant))["color"]
                axis.fill_between(epochs[shown], low[shown], high[shown], color=colour, alpha=alpha, linewidth=0)
        _scale(axis, [band[1:] for band in bands.values()] if may_log else [], int(start or 1))
        axis.set_ylabel(label)
    if late:
        axes[1].set_title(f"from epoch {late}")
    axes[-1].set_xlabel("epoch")
    legend_below(figure, axes[0].lines)
    return figure


def _line(axis: Axes, number: int, x: Table, y: Table, label: str) -> None:
    """Draw a curve with a few markers, at other places for each variant."""
    step = max(1, len(x) // 8)
    every: Any = (number * max(1, step // 4) % step, step) if len(x) > 1 else None
    axis.plot(x, y, label=wrapped(label, 60, 3), markevery=every, **look(number))


def _scale(axis: Axes, bands: Sequence[Sequence[Table]], start: int) -> None:
    """Use a log scale where the values span a decade or more, and whole epochs below."""
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
        everyone = len(groups) == 1 and len(variants) > 1
        label = "all variants" if everyone else ", ".join(variants)
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
        colour = COLOURS[summary.variants.index(result.variant) % len(COLOURS)]
        axis.plot([result.t_low, result.t_high], [row, row], color=colour, linewidth=1.2, marker="|", markersize=7)
        axis.plot([result.ci_low, result.ci_high], [row, row], color=colour, linewidth=4, solid_capstyle="butt")
        face = colour if result.told_apart else "white"
        axis.plot(result.difference, row, "o", color=colour, markerfacecolor=face, markersize=7, markeredgewidth=1.5)
    axis.axvline(0, color="#444444", linewidth=1, zorder=0)
    _rows(axis, [line.result.variant for line in lines])
    axis.set_xlabel(f"{_named(lines[0])}: difference from {wrapped(summary.reference, 60, 1)}{_unit(lines[0])}")
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


def _named(line: Line) -> str:
    return "Dice" if line.result.metric == "dice" else wrapped(line.result.metric, 60, 1)


def _unit(line: Line) -> str:
    return " (mm)" if line.result.metric in prose.IN_MM else ""


def _rows(axis: Axes, labels: Sequence[str]) -> None:
    """Name the rows of a horizontal figure, the first on top."""
    axis.set_yticks(range(len(labels)), [wrapped(label) for label in labels])
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.grid(False, axis="y")


def distribution(summary: Summary) -> Figure | None:
    """Draw the distribution of the per-case headline metric: box (quartiles), whiskers (5th and 95th), every case."""
    metric, scores = summary.headline[0].result.metric, summary.scores
    if metric not in scores.values:
        return None
    values = {v: scores.by_case(metric, scores.rows(v)) for v in summary.variants}
    values = {v: np.sort(found[~np.isnan(found)]) for v, found in values.items() if not np.isnan(found).all()}
    if not values:
        return None
    figure, (axis,) = new_figure(0.6 + ROW * len(values))
    rng = np.random.default_rng(0)
    for row, (variant, found) in enumerate(values.items()):
        colour = look(summary.variants.index(variant))["color"]
        jitter = row + rng.uniform(-0.28, 0.28, len(found))
        many = len(found) > MANY  # as a picture inside the SVG, which else has megabytes
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
    first = summary.headline[0]
    axis.set_xlabel(f"{_named(first)} of a case{_unit(first)}, mean over channels and trials")
    return figure


def _curves(column: str, label: str, *, may_log: bool) -> Callable[[Summary], Figure | None]:
    return lambda summary: curves(summary, column, label, may_log=may_log)


FIGURES: dict[str, Callable[[Summary], Figure | None]] = {
    "effect": effect,
    "distribution": distribution,
    "val_dice": _curves("val_dice", "validation Dice", may_log=False),
    "val_loss": _curves("val_loss", "validation loss", may_log=True),
    "train_loss": _curves("train_loss", "training loss", may_log=True),
    "learning_rate": learning_rate,
    "cases": cases.figure,
}


def draw(summary: Summary) -> dict[str, tuple[bytes, bytes]]:
    """Return (PNG, SVG) of every figure there is data for, by file name."""
    drawn = {}
    with style([*summary.variants, *summary.scores.cases, *summary.scores.metrics]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")  # of a bold face, say
        for name, function in FIGURES.items():
            figure = function(summary)
            if figure is not None:
                lay_out(figure)
                drawn[name] = to_bytes(figure, "png"), to_bytes(figure, "svg")
    return drawn
