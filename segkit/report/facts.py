"""The facts that a report states beside its tables: what is missing, and what may bias the numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from segkit.components.metrics import best_value, direction, metrics, unit
from segkit.recipe.identity import HARDWARE, TRAINING_NUMBER
from segkit.study.scores import ALL, judged_set
from segkit.study.summary import Summary
from segkit.study.verdicts import FEW_PATIENTS, Result
from segkit.training.status import ENDED


def alarms(summary: Summary) -> dict[str, Any]:
    """Return the variables of the templates for the warnings above the verdict."""
    nameless, total = int(summary.scores.nameless.sum()), len(summary.scores.cases)
    undeclared = any(trial.info.get("data", {}).get("patients") == 0 for trial in summary.trials)
    no_patients = nameless == total if nameless else undeclared
    unlike = {}
    for name in HARDWARE:
        known = {"resident": False}  # before it was stated, no samples lived on a device
        values = [(known | trial.info)[name] for trial in summary.whole if name in known | trial.info]
        found = Counter(str(v).lower() if isinstance(v, bool) else str(v).partition(":")[0] for v in values)
        if len(found) > 1:
            unlike[name] = found.most_common()
    on = summary.scores.set
    return {"on": on, "nameless": nameless, "cases": total, "no_patients": no_patients, "unlike": unlike}


def gather_facts(summary: Summary) -> dict[str, Any]:
    """Return the variables of the templates for the report's sentences."""
    names = dict.fromkeys(line.result.metric for line in summary.lines)
    trainings = [len(summary.measures[0].independent(variant)) for variant in summary.variants]
    warnings: dict[str, list[str]] = {}
    for trial in summary.trials:
        for text in trial.info.get("warnings", []):
            warnings.setdefault(text, []).append(trial.name)
    return {
        **alarms(summary),
        **_excluded(summary),
        "evaluations": _evaluations(summary),
        "unfinished": [trial for trial in summary.trials if not trial.readable],
        "ended": ENDED,
        "warnings": warnings,
        "chose_epoch": any(trial.info.get("select", "best") == "best" for trial in summary.whole),
        "tested": sum(judged_set([trial]) == "test" for trial in summary.whole),
        "least_seeds": min(filter(None, trainings), default=0),
        "few_patients": any(0 < line.result.patients_compared < FEW_PATIENTS for line in summary.headline),
        "smaller_is_better": [name for name in names if direction(name) == -1],
        "descriptive": [name for name in names if _is_descriptive(name)],
        "units": {unit(name) for name in names},
        "training_number": TRAINING_NUMBER,
        "limited": any(trial.info.get("limited") for trial in summary.whole),
        "stopped": [
            f"{trial.name}: after epoch {trial.info.get('epochs_done')} of {trial.info.get('epochs')}"
            for trial in summary.whole
            if trial.info.get("stopped_early")
        ],
        "reused": sum("reused_from" in trial.info for trial in summary.whole),
        "empty": _empty_structures(summary),
        "unknown_metrics": [name for name in summary.scores.metrics if name not in metrics],
        "partly_compared": _partly_compared(summary),
    }


def _evaluations(summary: Summary) -> dict[str, list[str]]:
    """Return the variants that are evaluated with more than one pass of the network, by what that is."""
    found: dict[str, dict[str, None]] = {}
    for trial in summary.whole:
        if trial.info.get("evaluated_with"):
            found.setdefault(trial.info["evaluated_with"], {})[trial.variant] = None
    return {text: list(variants) for text, variants in found.items()}


def _is_descriptive(name: str) -> bool:
    return name in metrics and direction(name) is None


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


def _empty_structures(summary: Summary) -> dict[str, Any]:
    """Describe the structures with empty truth that some compared trials leave empty and others do not.

    Returns:
        structures, patients: their number, and the number of their patients.
        best: the best value that leaving one empty gets, by metric.
        without_best: the metrics that declare no best value and stay undefined.
    """
    scores = summary.scores
    empty = scores.held & ~scores.truth
    disputed = (empty & scores.predicted).any(axis=0) & (empty & ~scores.predicted).any(axis=0)
    return {
        "structures": int(disputed.sum()),
        "patients": len(np.unique(scores.owners[disputed.any(axis=-1)])),
        "best": {name: best_value(name) for name in scores.metrics if scores.granted[name].any()},
        "without_best": [
            name
            for name in scores.metrics
            if name in metrics
            and best_value(name) is None
            and not _is_descriptive(name)
            and scores.undefined[name][:, disputed].any()
        ],
    }


def _partly_compared(summary: Summary) -> list[dict[str, Any]]:
    """Describe the results that are compared with the reference over only some of their patients.

    Returns:
        compared, patients: the number of compared patients, and of patients with values.
        elsewhere: the number of patients that were not evaluated in every trial of both variants.
        undefined: the number of patients without a defined value in some of these trials.
        variants, measures: those of the results with these numbers.
    """
    scores, reference = summary.scores, summary.reference
    tables = {(measure.metric, measure.channel): measure.tables for measure in summary.measures}
    groups: dict[tuple[int, int, int], list[Result]] = {}
    for result in (line.result for line in summary.lines):
        own, other = (tables[result.metric, result.channel][variant] for variant in (result.variant, reference))
        if result.variant == reference or not len(own) or not len(other):
            continue
        there = ~np.isnan(np.concatenate([own, other])).all(axis=0)
        patients = int(there.sum())
        if patients == result.patients_compared:
            continue
        held = scores.holders(result.channel)[[*scores.rows(result.variant), *scores.rows(reference)]]
        elsewhere = int((there & ~held.all(axis=0)).sum())
        groups.setdefault((result.patients_compared, patients, elsewhere), []).append(result)
    return [
        {
            "compared": compared,
            "patients": patients,
            "elsewhere": elsewhere,
            "undefined": patients - compared - elsewhere,
            "variants": dict.fromkeys(r.variant for r in found),
            "measures": dict.fromkeys(r.metric if r.channel == ALL else f"{r.metric} of {r.channel}" for r in found),
        }
        for (compared, patients, elsewhere), found in groups.items()
    ]
