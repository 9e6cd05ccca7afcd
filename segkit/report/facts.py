"""The facts that a report states beside its tables: what is missing, and what may bias the numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from segkit.components.metrics import best_value, direction, metrics
from segkit.recipe.identity import HARDWARE, TRAINING_NUMBER
from segkit.study.reading import FINISHED
from segkit.study.summary import ALL, Summary
from segkit.study.verdicts import FEW_PATIENTS
from segkit.training.status import ENDED

IN_MM = {"hausdorff", "hd95", "assd"}


def alarms(summary: Summary) -> dict[str, Any]:
    """Return the variables of the templates for the warnings above the verdict."""
    nameless, total = int(summary.scores.nameless.sum()), len(summary.scores.cases)
    undeclared = any(trial.info.get("data", {}).get("patients") == 0 for trial in summary.trials)
    unlike = {}
    for name in HARDWARE:
        values = [trial.info[name] for trial in summary.whole if name in trial.info]
        found = Counter(str(v).lower() if isinstance(v, bool) else str(v).partition(":")[0] for v in values)
        if len(found) > 1:
            unlike[name] = found.most_common()
    return {
        "nameless": nameless,
        "cases": total,
        "no_patients": nameless == total if nameless else undeclared,
        "unlike": unlike,
    }


def gather_facts(summary: Summary) -> dict[str, Any]:
    """Return the variables of the templates for the report's sentences."""
    whole, names = summary.whole, list(dict.fromkeys(line.result.metric for line in summary.lines))
    seeds = [line.result.seeds for line in summary.headline if line.result.seeds]
    warnings: dict[str, list[str]] = {}
    for trial in summary.trials:
        for text in trial.info.get("warnings") or []:
            warnings.setdefault(str(text), []).append(trial.name)
    return {
        **alarms(summary),
        **_excluded(summary),
        "unfinished": [trial for trial in summary.trials if trial.status != FINISHED or trial.problem],
        "ended": ENDED,
        "warnings": warnings,
        "least_seeds": min(seeds, default=0),
        "few_patients": any(0 < line.result.patients_compared < FEW_PATIENTS for line in summary.headline),
        "smaller_is_better": [name for name in names if direction(name) == -1],
        "in_mm": bool(IN_MM & set(names)),
        "training_number": TRAINING_NUMBER,
        "limited": any(trial.info.get("limited") for trial in whole),
        "reused": sum(bool(trial.info.get("reused_from")) for trial in whole),
        "empty": empty_structures(summary),
        "unknown_metrics": [name for name in summary.scores.metrics if name not in metrics],
        "partly_compared": partly_compared(summary),
    }


def _excluded(summary: Summary) -> dict[str, Any]:
    """Return which finished trials are not compared: those of older training numbers, and seeds without all folds."""
    newest = max((trial.training_number for trial in summary.finished), default=1)
    older: dict[int, list[str]] = {}
    partial: Counter[tuple[str, int]] = Counter()
    for trial in summary.finished:
        if trial.training_number < newest:
            older.setdefault(trial.training_number, []).append(trial.name)
        elif trial not in summary.whole:
            partial[trial.variant, trial.seed] += 1
    folds = len({trial.fold for trial in summary.trials})
    return {"newest": newest, "older": sorted(older.items()), "partial": sorted(partial.items()), "folds": folds}


@dataclass(frozen=True)
class EmptyStructures:
    """Structures with empty truth that some compared trials leave empty and others do not.

    Attributes:
        structures, patients: their number, and the number of their patients.
        best: the best value that leaving one empty gets, by metric.
        without_best: the metrics that declare no best value and stay undefined.
    """

    structures: int
    patients: int
    best: dict[str, float]
    without_best: list[str]


def empty_structures(summary: Summary) -> EmptyStructures:
    """Return the structures for which trials get a metric's best value, since they rightly left them empty."""
    scores = summary.scores
    empty = scores.held & ~scores.truth
    disputed = (empty & scores.predicted).any(axis=0) & (empty & ~scores.predicted).any(axis=0)
    best, without = {}, []
    for name in scores.metrics:
        value = best_value(name)
        if value is not None and scores.granted[name].any():
            best[name] = value
        if value is None and name in metrics and scores.undefined[name][:, disputed].any():
            without.append(name)
    patients = len(np.unique(scores.owners[disputed.any(axis=-1)]))
    return EmptyStructures(int(disputed.sum()), patients, best, without)


@dataclass
class PartlyCompared:
    """Results that are compared with the reference over only some of their patients.

    Attributes:
        compared, patients: the number of compared patients, and of patients with values.
        elsewhere: the number of patients that were not validated in every trial of both variants.
        undefined: the number of patients without a defined value in some of these trials.
        variants, measures: the variants and measures of these results.
    """

    compared: int
    patients: int
    elsewhere: int
    undefined: int
    variants: list[str]
    measures: list[str]


def partly_compared(summary: Summary) -> list[PartlyCompared]:
    """Return how many patients with values are not compared, and why, grouped over results."""
    scores, reference = summary.scores, summary.reference
    measures = {(measure.metric, measure.channel): measure for measure in summary.measures}
    groups: dict[tuple[int, int, int], PartlyCompared] = {}
    for result in (line.result for line in summary.lines):
        tables, channel = measures[result.metric, result.channel].tables, result.channel
        own, other = tables[result.variant], tables[reference]
        if result.variant == reference or not len(own) or not len(other):
            continue
        there = ~np.isnan(np.concatenate([own, other])).all(axis=0)
        patients = int(there.sum())
        if patients == result.patients_compared:
            continue
        held = scores.holders(None if channel == ALL else channel)
        everywhere = held[[*scores.rows(result.variant), *scores.rows(reference)]].all(axis=0)
        elsewhere = int((there & ~everywhere).sum())
        key = result.patients_compared, patients, elsewhere
        group = groups.setdefault(key, PartlyCompared(*key, patients - result.patients_compared - elsewhere, [], []))
        named = result.metric if channel == ALL else f"{result.metric} of {channel}"
        group.variants += [result.variant] if result.variant not in group.variants else []
        group.measures += [named] if named not in group.measures else []
    return list(groups.values())
