"""The verdict on each variant of a study, in words and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from segkit.study.statistics import LEVEL, LEVEL_OTHERS, Comparison, Pair, Table, bootstrap, compare, holm, wilcoxon

FEW_PATIENTS = 5
REFERENCE = "reference"
NO_TRIAL = "no finished trial"
APART = "cannot be told apart"


@dataclass(frozen=True)
class Measure:
    """One metric of one channel over a study.

    Attributes:
        channel: a channel, or "all" for the mean over channels.
        direction: 1 where larger is better, -1 where smaller is, None where nobody knows.
        tables: variant to (seeds, patients) means of each patient's cases; NaN where all of them are undefined.
    """

    metric: str
    channel: str
    direction: int | None
    tables: Mapping[str, Table]


@dataclass(frozen=True)
class Result:
    """A variant in one measure, and what separates it from the reference; NaN where there is nothing to say.

    Attributes:
        mean: over patients of the means over seeds, so that each patient counts once.
        sd_seeds: standard deviation of the seeds' means: what training again changes.
        sd_patients: standard deviation of the patients' means: how unlike patients are.
        difference: variant minus reference over the patients that have a value in every trial of both.
        patients_compared: how many those are.
        ci_low, ci_high: 95 % bootstrap interval of the difference, patients resampled.
        t_low, t_high: 95 % interval of the difference from seeds and patients together; the verdict's.
        smallest_detectable: the smallest difference that this study could have shown.
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


def judge(measures: Sequence[Measure], variants: Sequence[str], reference: str) -> list[Result]:
    """Return the result of every variant in every measure; the first measure is the headline.

    The headline's comparisons are corrected for their number (Holm) and judged at 5 %, all others together are
    corrected for theirs and judged at 1 %.
    """
    described = [[_describe(measure, variant) for variant in variants] for measure in measures]
    results: list[Result] = []
    for family, level in ((slice(0, 1), LEVEL), (slice(1, None), LEVEL_OTHERS)):
        results += _judge_family(measures[family], described[family], reference, level)
    return results


def _describe(measure: Measure, variant: str) -> Result:
    """Return the mean and the two spreads of a variant."""
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
    """Return means of what is defined, NaN where nothing is."""
    count = np.sum(~np.isnan(values), axis=axis)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(values, axis=axis) / np.where(count, count, np.nan))


def _deviation(values: Table) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.std(ddof=1)) if len(defined) > 1 else math.nan


def _judge_family(
    measures: Sequence[Measure], described: Sequence[Sequence[Result]], reference: str, level: float
) -> list[Result]:
    """Compare every variant in every measure with the reference, correct for all of them, and put it into words."""
    results: list[Result] = []
    comparisons: list[Comparison | None] = []
    verdicts = []
    for measure, rows in zip(measures, described, strict=True):
        pairs = [_pair(measure, row.variant, reference) for row in rows]
        found = iter(compare([pair for pair in pairs if pair and pair.testable]))
        for row, pair in zip(rows, pairs, strict=True):
            comparisons.append(next(found) if pair and pair.testable else None)
            results.append(_differ(row, pair, comparisons[-1]))
            verdicts.append((measure.direction, pair))
    corrected = holm(np.array([result.p for result in results]))
    ranks = holm(np.array([result.p_wilcoxon for result in results]))
    count = int(np.sum(~np.isnan(corrected)))
    judged = []
    for number, (result, comparison) in enumerate(zip(results, comparisons, strict=True)):
        told = comparison is not None and bool(comparison.found(corrected[number], level))
        verdict = REFERENCE if result.variant == reference else _words(result, *verdicts[number], told)
        judged.append(
            replace(
                result,
                p_holm=float(corrected[number]),
                p_wilcoxon_holm=float(ranks[number]),
                smallest_detectable=comparison.smallest(count, level) if comparison else math.nan,
                verdict=verdict if result.seeds else NO_TRIAL,
            )
        )
    return judged


def _pair(measure: Measure, variant: str, reference: str) -> Pair | None:
    """Return both tables, reduced to the patients that have a value in every trial of both; None without any."""
    if variant == reference:
        return None
    own, other = measure.tables[variant], measure.tables[reference]
    whole = ~np.isnan(own).any(axis=0) & ~np.isnan(other).any(axis=0)
    return Pair(own[:, whole], other[:, whole]) if len(own) and len(other) and whole.any() else None


def _differ(row: Result, pair: Pair | None, comparison: Comparison | None) -> Result:
    """Return the row with its difference, intervals and p-values."""
    if pair is None:
        return row
    differences = pair.variant.mean(axis=0) - pair.reference.mean(axis=0)
    low, high = bootstrap(differences)
    row = replace(
        row,
        patients_compared=len(differences),
        difference=float(differences.mean()),
        ci_low=low,
        ci_high=high,
        p_wilcoxon=wilcoxon(differences),
    )
    if comparison is None:
        return row
    low, high = comparison.interval()
    return replace(
        row,
        t_low=low,
        t_high=high,
        p=float(comparison.p),
        p_seeds=float(comparison.p_seeds),
        p_patients=float(comparison.p_patients),
    )


def _words(result: Result, direction: int | None, pair: Pair | None, told: bool) -> str:
    """Return the verdict, and before it what weakens it."""
    if pair is None:
        return "nothing to compare with"
    notes = ["one seed"] if min(len(pair.variant), len(pair.reference)) < 2 else []
    notes += ["fewer than five patients"] if result.patients_compared < FEW_PATIENTS else []
    word = APART
    if told:
        larger, smaller = ("higher", "lower") if direction is None else ("better", "worse")[::direction]
        word = larger if result.difference > 0 else smaller
    return f"{', '.join(notes)}: {word}" if notes else word
