"""The tables of a report as text, with the numbers of summary.csv."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from segkit.errors import counted, pad, printable
from segkit.study.clinical import Clinical
from segkit.study.summary import Line, Summary

COMPARED = {
    "patients": "patients",
    "sd_seeds": "SD seeds",
    "sd_patients": "SD patients",
    "difference": "difference",
    "ci": "95 % (patients, bootstrap)",
    "t": "95 % (patients and seeds)",
    "p_holm": "p",
    "p_wilcoxon_holm": "p (Wilcoxon)",
    "smallest_detectable": "smallest detectable",
}
TERMINAL_COLUMNS, GAP, NARROWEST = 100, 2, 20


@dataclass(frozen=True)
class Table:
    """A table of texts; the first column names the row."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds only numbers."""
        return [
            any(column) and all(not text or text.lstrip("-")[:1].isdigit() for text in column)
            for column in (zip(*self.rows, strict=True) if self.rows else [()] * len(self.head))
        ]


def _table(summary: Summary, lines: Iterable[Line], columns: Mapping[str, str]) -> Table:
    """Return lines of the summary as a table, without the columns that are empty in every row.

    `columns` gives the heading of each, by a column of summary.csv, or by "ci" or "t" for an interval.
    """
    rows = []
    for line in lines:
        cells, result = line.cells(), line.result
        if result.patients_compared not in (0, result.patients):
            cells["patients"] += f" ({result.patients_compared} compared)"
        cells["trials"] = f"{line.counts['trials']} of {len(summary.of(result.variant))}"
        for name in ("ci", "t"):
            cells[name] = f"{cells[f'{name}_low']} to {cells[f'{name}_high']}" if cells[f"{name}_low"] else ""
        rows.append(cells)
    kept = [name for name in columns if any(cells[name] for cells in rows)]
    return Table([columns[name] for name in kept], [[cells[name] for name in kept] for cells in rows])


def verdicts(summary: Summary) -> Table:
    """Return the headline's table: one row per variant."""
    columns = {"variant": "variant", "verdict": "verdict", "mean": headline_name(summary), **COMPARED}
    return _table(summary, summary.headline, columns | {"trials": "trials"})


def headline_name(summary: Summary) -> str:
    """Return the displayed name of the headline's metric."""
    return "Dice" if summary.metric == "dice" else summary.metric


def everything(summary: Summary) -> Table:
    """Return the table of all metrics and channels: one row per variant, metric and channel."""
    first = ("variant", "metric", "channel", "verdict", "mean")
    return _table(summary, summary.lines, dict(zip(first, first, strict=True)) | COMPARED)


def failures(summary: Summary) -> Table:
    """Return how often a structure was missed or falsely predicted: one row per variant and channel."""
    columns = {
        "variant": "variant",
        "channel": "channel",
        "structures": "cases x channels x trials",
        "empty_truth": "empty truth",
        "missed": "missed",
        "false_positive_on_empty": "false positive on empty truth",
        "rightly_empty": "rightly left empty",
        "undefined": f"{summary.metric} undefined",
    }
    return _table(summary, (line for line in summary.lines if line.result.metric == summary.metric), columns)


def clinical(measures: Clinical) -> Table:
    """Return the agreement of volumes and ejection fraction with truth: one row per variant, channel and measure."""
    rows = []
    for found in measures.agreements:
        limits = f"{_short(found.low)} to {_short(found.high)}" if not math.isnan(found.low) else ""
        values = map(_short, (found.truth, found.prediction, found.bias))
        rows.append([found.variant, found.channel, found.measure, str(found.patients), *values, limits])
    head = ["variant", "channel", "measure", "patients", "truth", "prediction", "bias", "95 % limits of agreement"]
    return Table(head, rows)


def _short(value: float) -> str:
    """Return a number with two decimals, "" for NaN."""
    return "" if math.isnan(value) else f"{round(value, 2) + 0.0:.2f}"


def first_batch(summary: Summary) -> Table:
    """Return value and gradient of each term of the loss on the first batch, of one trial per variant."""
    rows = []
    for variant in summary.variants:
        for term in next((t.info["first_batch"] for t in summary.of(variant) if t.info.get("first_batch")), ()):
            value, share = term.get("value"), term.get("gradient_share")
            shown = f"{value:.4g}" if isinstance(value, int | float) else "not finite"
            percent = f"{100 * share:.1f} %" if isinstance(share, int | float) else ""
            rows.append([variant, str(term["term"]), shown, percent])
    return Table(["variant", "term", "value", "share of the gradient"], rows)


def what_was_run(summary: Summary) -> Table:
    """Return data, hardware, versions and time; if trials differ, each value with its number of trials."""
    infos = [trial.info for trial in summary.trials if trial.info]
    if not infos:
        return Table(["", ""], [])
    found: dict[str, Counter[str]] = {}
    for info in infos:
        data, split = info.get("data", {}), info.get("split", {})
        facts = {f"data: {name}": data.get(name) for name in ("name", "cases", "patients", "fingerprint")}
        facts |= {f"{name} cases": len(split.get(name, [])) for name in ("train", "validation")}
        facts |= {f"{name} cases": len(split[name]) for name in ("test", "unlabelled") if split.get(name)}
        facts |= {name: info.get(name) for name in ("hardware", "device", "precision", "threads")}
        for name, value in (facts | info.get("versions", {})).items():
            found.setdefault(name, Counter()).update([] if value is None else [str(value)])
    rows = []
    for name, counts in found.items():
        each = [f"{value} ({counted(count, 'trial')})" for value, count in counts.most_common()]
        rows.append([name, next(iter(counts)) if len(counts) == 1 else "; ".join(each)])
    minutes = sum(info.get("seconds", 0.0) for info in infos) / 60
    return Table(["", ""], [*rows, ["training time, all trials", f"{minutes:.1f} minutes"]])


def for_terminal(summary: Summary) -> list[str]:
    """Return the lines of the verdict table for a terminal: the main columns, long texts on several lines."""
    cells = [line.cells() for line in summary.headline]
    interval = next((name for name in ("t", "ci") if any(row[f"{name}_low"] for row in cells)), "")
    columns = {"variant": "variant", "verdict": "verdict", "mean": headline_name(summary), "sd_seeds": "SD seeds"}
    columns |= {"difference": "difference"} | ({interval: "95 %"} if interval else {}) | {"trials": "trials"}
    table = _table(summary, summary.headline, columns)
    rows = [[printable(" ".join(text.split())) for text in row] for row in (table.head, *table.rows)]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for i in (1, 0):  # narrow the verdicts first, then the variants
        over = sum(widths) + GAP * (len(widths) - 1) - TERMINAL_COLUMNS
        widths[i] -= max(0, min(over, widths[i] - NARROWEST))
    lines = []
    for row in rows:
        for parts in itertools.zip_longest(*map(_folded, row, widths), fillvalue=""):
            lines.append((" " * GAP).join(map(pad, parts, widths, table.numeric)).rstrip())
    lines += [f"{headline_name(summary)} of the test set"] if summary.scores.set == "test" else []
    source = {"t": "patients and seeds", "ci": "patients alone (bootstrap)"}
    return [*lines, f"95 %: interval of the difference, from {source[interval]}"] if interval else lines


def _folded(text: str, width: int) -> list[str]:
    """Return a text wrapped to lines of `width` terminal cells; wide characters take two."""
    for length in range(width, 0, -1):
        lines = textwrap.wrap(text, length)
        if all(cell_len(line) <= width for line in lines):
            break
    return lines or [""]
