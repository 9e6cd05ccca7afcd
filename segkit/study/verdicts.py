"""The verdict on each variant of a study, with its statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from segkit.study.statistics import LEVEL, LEVEL_OTHERS, Comparison, Pair, Table, bootstrap, compare, holm, wilcoxon

FEW_PATIENTS = 5
APART = "cannot be told apart"


@dataclass(frozen=True)
class Measure:
    """One metric of one channel over a study.

    Attributes:
        channel: a channel, or "all" for the mean over channels.
        direction: 1 if larger is better, -1 if smaller is, None if unknown.
        tables: by variant, (seeds, patients) means of each patient's cases; NaN if all of them are undefined.
        folds: by variant, the fold of each row of its table, where each fold of a seed is a row of its own.
    """

    metric: str
    channel: str
    direction: int | None
    tables: Mapping[str, Table]
    folds: Mapping[str, Sequence[int | None]] = field(default_factory=dict)

    def independent(self, variant: str) -> Table:
        """Return a table whose rows are independent trainings.

        Where there are several folds, the trainings of one share what they were trained on: their mean is one row.
        """
        table, folds = self.tables[variant], self.folds.get(variant, ())
        if len(set(folds)) < 2:
            return table
        return np.stack([table[[fold == own for own in folds]].mean(axis=0) for fold in dict.fromkeys(folds)])


@dataclass(frozen=True)
class Result:
    """A variant in one measure, compared with the reference; NaN if there is no value.

    Attributes:
        mean: over patients of the means over seeds, so that each patient counts once.
        sd_seeds: standard deviation of the seeds' means: training noise.
        sd_patients: standard deviation of the patients' means.
        difference: variant minus reference over the patients that have a value in every trial of both.
        patients_compared: the number of those patients.
        ci_low, ci_high: 95 % bootstrap interval of the difference, patients resampled.
        t_low, t_high: 95 % interval of the difference from seeds and patients together, on which the verdict is based.
        smallest_detectable: the smallest difference that this study detects with a power of 80 %.
    """

    variant: str
    metric: str
    channel: str
    seeds: int
    patients: int
    mean: float
    sd_seeds: float
    sd_patients: float
    verdict: str
    patients_compared: int = 0
    difference: float = math.nan
    ci_low: float = math.nan
    ci_high: float = math.nan
    t_low: float = math.nan
    t_high: float = math.nan
    p_wilcoxon: float = math.nan
    p_wilcoxon_holm: float = math.nan
    p_seeds: float = math.nan
    p_patients: float = math.nan
    p: float = math.nan
    p_holm: float = math.nan
    smallest_detectable: float = math.nan

    @property
    def told_apart(self) -> bool:
        """Whether the verdict names a difference."""
        return self.verdict.endswith(("better", "worse", "higher", "lower"))


@dataclass(frozen=True)
class _Row:
    """A result that is not yet corrected and has no verdict."""

    result: Result
    direction: int | None
    pair: Pair | None
    comparison: Comparison | None


def judge(measures: Sequence[Measure], variants: Sequence[str], reference: str) -> list[Result]:
    """Return the result of every variant in every measure; the first measure is the headline.

    Three families of comparisons, each corrected for their number (Holm): the headline's, judged at 5 %; the other
    measures of the variants that differ in the headline, at 5 %; those of all other variants, at 1 %, because they
    are many, and exploratory.
    """
    rows = [row for measure in measures for row in _rows(measure, variants, reference)]
    headline, others = rows[: len(variants)], rows[len(variants) :]
    results = _judge_family(headline, reference, LEVEL)
    apart = {result.variant for result in results if result.told_apart}
    passed = _judge_family([row for row in others if row.result.variant in apart], reference, LEVEL)
    rest = _judge_family([row for row in others if row.result.variant not in apart], reference, LEVEL_OTHERS)
    judged = {(result.metric, result.channel, result.variant): result for result in (*results, *passed, *rest)}
    return [judged[row.result.metric, row.result.channel, row.result.variant] for row in rows]


def _rows(measure: Measure, variants: Sequence[str], reference: str) -> list[_Row]:
    pairs = [_pair(measure, variant, reference) for variant in variants]
    compared = iter(compare([pair for pair in pairs if pair and pair.testable]))
    rows = []
    for variant, pair in zip(variants, pairs, strict=True):
        comparison = next(compared) if pair and pair.testable else None
        result = _with_difference(_describe(measure, variant), pair, comparison)
        rows.append(_Row(result, measure.direction, pair, comparison))
    return rows


def _describe(measure: Measure, variant: str) -> Result:
    """Return the mean and the standard deviations of a variant."""
    table = measure.tables[variant]
    by_patient = _means(table, axis=0)
    by_seed = _means(table, axis=1)
    return Result(
        variant=variant,
        metric=measure.metric,
        channel=measure.channel,
        seeds=len(table),
        patients=int(np.sum(~np.isnan(by_patient))),
        mean=float(_means(by_patient, axis=0)),
        sd_seeds=_deviation(by_seed),
        sd_patients=_deviation(by_patient),
        verdict="",
    )


def _means(values: Table, axis: int) -> Table:
    """Return the means of defined values, NaN if there are none."""
    count = np.sum(~np.isnan(values), axis=axis)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(values, axis=axis) / np.where(count, count, np.nan))


def _deviation(values: Table) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.std(ddof=1)) if len(defined) > 1 else math.nan


def _judge_family(rows: Sequence[_Row], reference: str, level: float) -> list[Result]:
    """Correct the p-values for all comparisons of the family and add the verdicts."""
    corrected = holm(np.array([row.result.p for row in rows]))
    ranks = holm(np.array([row.result.p_wilcoxon for row in rows]))
    count = int(np.sum(~np.isnan(corrected)))
    judged = []
    for row, p, rank in zip(rows, corrected, ranks, strict=True):
        told = row.comparison is not None and bool(row.comparison.found(p, level))
        smallest = row.comparison.smallest(count, level) if row.comparison else math.nan
        result = replace(row.result, p_holm=float(p), p_wilcoxon_holm=float(rank), smallest_detectable=smallest)
        judged.append(replace(result, verdict=_verdict(result, row, reference, told)))
    return judged


def _pair(measure: Measure, variant: str, reference: str) -> Pair | None:
    """Return both tables, restricted to the patients with a value in every trial of both; None without any."""
    if variant == reference:
        return None
    own, other = measure.independent(variant), measure.independent(reference)
    whole = ~np.isnan(own).any(axis=0) & ~np.isnan(other).any(axis=0)
    return Pair(own[:, whole], other[:, whole]) if len(own) and len(other) and whole.any() else None


def _with_difference(result: Result, pair: Pair | None, comparison: Comparison | None) -> Result:
    """Return a result with its difference from the reference, intervals and p-values."""
    found: dict[str, Any] = {}
    if pair is not None:
        differences = pair.variant.mean(axis=0) - pair.reference.mean(axis=0)
        found |= {"patients_compared": len(differences), "difference": float(differences.mean())}
        found["ci_low"], found["ci_high"] = bootstrap(differences)
        found["p_wilcoxon"] = wilcoxon(differences)
    if comparison is not None:
        found["t_low"], found["t_high"] = comparison.interval()
        p, p_seeds, p_patients = map(float, (comparison.p, comparison.p_seeds, comparison.p_patients))
        found |= {"p": p, "p_seeds": p_seeds, "p_patients": p_patients}
    return replace(result, **found)


def _verdict(result: Result, row: _Row, reference: str, told: bool) -> str:
    """Return the verdict, preceded by what weakens it."""
    if not result.seeds:
        return "no finished trial"
    if result.variant == reference:
        return "reference"
    if row.pair is None:
        return "nothing to compare with"
    notes = ["one seed"] if min(len(row.pair.variant), len(row.pair.reference)) < 2 else []
    notes += ["fewer than five patients"] if result.patients_compared < FEW_PATIENTS else []
    word = APART
    if told:
        larger, smaller = ("higher", "lower") if row.direction is None else ("better", "worse")[:: row.direction]
        word = larger if result.difference > 0 else smaller
    return f"{', '.join(notes)}: {word}" if notes else word
