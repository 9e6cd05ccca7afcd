"""What a reader must know beside the tables: what is missing, what may make all numbers wrong, what they rest on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from segkit.components.metrics import best_value, metrics
from segkit.errors import counted
from segkit.recipe.identity import HARDWARE, TRAINING_NUMBER
from segkit.report.prose import listed
from segkit.study.reading import DAMAGED, FINISHED, Planned, TrialRecord
from segkit.study.scores import Scores
from segkit.study.verdicts import Measure, Result
from segkit.training.status import ENDED


def unfinished(trial: TrialRecord, live: bool) -> str:
    """Return what is the matter with a trial that is not finished; `live` says whether its run is under way."""
    if trial.problem and trial.status in (FINISHED, DAMAGED):
        return f"{trial.name}: {trial.problem}: left out of the tables"
    done, epochs = trial.info.get("epochs_done", 0), trial.info.get("epochs", "?")
    if trial.status == "failed":
        return (
            f"{trial.name}: failed after {done} of {_epochs(epochs)}: {trial.info.get('error') or 'no reason recorded'}"
        )
    if trial.status == "missing":
        return f"{trial.name}: not started"
    if trial.status == "running" and not live:
        return f"{trial.name}: {ENDED}, {done} of {_epochs(epochs)} done; `segkit run` resumes it"
    return f"{trial.name}: {trial.status}, {done} of {_epochs(epochs)} done"


def _epochs(number: object) -> str:
    return "1 epoch" if number == 1 else f"{number} epochs"


def compared(trials: Sequence[TrialRecord]) -> tuple[list[TrialRecord], list[str]]:
    """Return the trials that are compared, and a sentence for each group of finished ones that are not.

    Those are the finished trials of the highest training number, of seeds that have all their folds.
    """
    finished = [trial for trial in trials if trial.status == FINISHED and not trial.problem]
    newest = max((trial.training_number for trial in finished), default=1)
    said = []
    for number in sorted({trial.training_number for trial in finished} - {newest}):
        names = "; ".join(trial.name for trial in finished if trial.training_number == number)
        said.append(
            f"{names}: trained by an older version of segkit (training number {number}, the tables show {newest}), "
            "whose numbers cannot be compared with these: left out of the tables. Train again with --fresh, or "
            "copy the older trials with the recipe to a folder of their own and report that"
        )
    finished = [trial for trial in finished if trial.training_number == newest]
    folds = {trial.fold for trial in trials}
    have = Counter((trial.variant, trial.seed) for trial in finished)
    partial = {key for key, count in have.items() if count < len(folds)}
    said += [
        f"{variant}, seed {seed}: only {have[variant, seed]} of {len(folds)} folds are finished: left out of the tables"
        for variant, seed in sorted(partial)
    ]
    return [trial for trial in finished if (trial.variant, trial.seed) not in partial], said


def alarms(trials: Sequence[TrialRecord], whole: Sequence[TrialRecord], scores: Scores) -> list[str]:
    """Return what may make all numbers wrong."""
    return [text for text in (_nameless(trials, scores), _unlike(whole)) if text]


def _nameless(trials: Sequence[TrialRecord], scores: Scores) -> str:
    count, total = int(scores.nameless.sum()), len(scores.cases)
    if count:
        which = f"which patient {counted(count, 'case')} of {total} {'is' if count == 1 else 'are'} of"
        which = "which patient any case is of" if count == total else which
    elif any(trial.info.get("data", {}).get("patients") == 0 for trial in trials):
        which = "which patient any case is of"
    else:
        return ""
    return (
        f"The data do not say {which}. They were divided case by case: images of one person may have been trained on "
        "and validated on, so that the values are too good to be true; and each such case counts as a patient of its "
        "own, so that intervals are too narrow and p-values too small. Say which patient each case is of, and train "
        "anew."
    )


def _unlike(whole: Sequence[TrialRecord]) -> str:
    """Return what the trials that are compared were not all trained with."""
    parts = []
    for name in HARDWARE:
        found = Counter(_hardware(trial.info[name]) for trial in whole if name in trial.info)
        if len(found) > 1:
            values = ", ".join(f"{value} ({counted(count, 'trial')})" for value, count in found.most_common())
            parts.append(f"{name} {values}")
    if not parts:
        return ""
    return (
        f"The trials were not trained alike: {'; '.join(parts)}. Part of any difference between them may come from "
        "that, and none of it is training noise."
    )


def _hardware(value: Any) -> str:
    """Return a device without its number, and any other value as text."""
    return str(value).lower() if isinstance(value, bool) else str(value).split(":")[0]


def notes(plan: Planned, reference: str, variants: Sequence[str], whole: Sequence[TrialRecord]) -> list[str]:
    """Return what a reader must know of the run."""
    found = [plan.problem] if plan.problem else []
    if plan.reference is None and len(variants) > 1:
        found.append(f"The recipe names no study.compare_with: the first variant, {reference}, is the reference.")
    elif plan.reference is not None and plan.reference not in variants and variants:
        found.append(
            f"study.compare_with names {plan.reference}, which no variant is called: {reference} is the reference."
        )
    numbers = {trial.training_number for trial in whole}
    if numbers and numbers != {TRAINING_NUMBER}:
        older = "an older" if max(numbers) < TRAINING_NUMBER else "a newer"
        found.append(
            f"This run was trained by {older} version of segkit (training number {max(numbers)}, this one has "
            f"{TRAINING_NUMBER}): its numbers cannot be compared with those of trials that this version trains."
        )
    if any(trial.info.get("limited") for trial in whole):
        found.append("These trainings were cut short on purpose (a dry run or an overfit run): the values mean little.")
    reused = sum(bool(trial.info.get("reused_from")) for trial in whole)
    if reused:
        found.append(f"Copies of identical trials that were trained before: {reused} of {len(whole)}.")
    return found


def on_values(scores: Scores, measures: Sequence[Measure], results: Sequence[Result], reference: str) -> list[str]:
    """Return what the means are of: structures rightly left empty, unknown metrics, patients that are not compared."""
    found = _granted(scores)
    unknown = [name for name in scores.metrics if name not in metrics]
    if unknown:
        found.append(
            f"{listed(unknown)}: no metric of this name is loaded (the plugin may be missing), so that it is not known "
            "which values are better, nor what a structure counts that was rightly left empty: there it is undefined."
        )
    return found + _left_out(scores, measures, results, reference)


def _granted(scores: Scores) -> list[str]:
    """Return where the best value was given for a structure rightly left empty, and where it could not be."""
    empty = scores.held & ~scores.truth
    marked = (empty & scores.predicted).any(axis=0) & (empty & ~scores.predicted).any(axis=0)
    if not marked.any():
        return []
    patients = len(np.unique(scores.owners[marked.any(axis=-1)]))
    structures = int(marked.sum())
    best = [f"{name} {best_value(name):g}" for name in scores.metrics if scores.granted[name].any()]
    without = [name for name in scores.metrics if name in metrics and best_value(name) is None]
    there = "structure" if structures == 1 else "structures"
    texts = []
    if best:
        texts.append(
            f"{structures} {there} of {counted(patients, 'patient')} {'is' if structures == 1 else 'are'} empty in "
            "truth, and some trials mark something there while others do not: a trial that rightly leaves one empty "
            f"gets the metric's best value for it ({', '.join(best)}), in the means and in the verdict."
        )
    left = [name for name in without if scores.undefined[name][:, marked].any()]
    if left:
        texts.append(
            f"{listed(left)} declare{'s' if len(left) == 1 else ''} no best value: where nothing is there, leaving "
            "it empty stays undefined, and a false positive may cost nothing in the verdict."
        )
    return texts


def _left_out(
    scores: Scores, measures: Sequence[Measure], results: Sequence[Result], reference: str
) -> list[str]:  # fmt: skip
    """Return how many patients with values are not compared, and why: one sentence for all it is true of."""
    tables = {(measure.metric, measure.channel): measure for measure in measures}
    groups: dict[tuple[int, int, int], list[Result]] = {}
    for result in results:
        measure = tables[result.metric, result.channel]
        own, other = measure.tables[result.variant], measure.tables[reference]
        if result.variant == reference or not len(own) or not len(other):
            continue
        both = np.concatenate([own, other])
        there = ~np.isnan(both).all(axis=0)
        if int(there.sum()) == result.patients_compared:
            continue
        holders = scores.holders(None if measure.channel not in scores.channels else measure.channel)
        held = holders[[*scores.rows(result.variant), *scores.rows(reference)]].all(axis=0)
        groups.setdefault(
            (result.patients_compared, int(there.sum()), int((there & ~held).sum())), []
        ).append(result)  # fmt: skip
    return [_sentence(*key, about) for key, about in groups.items()]


def _sentence(compared: int, total: int, elsewhere: int, about: Sequence[Result]) -> str:
    names = list(dict.fromkeys(f"{r.metric} of {r.channel}" if r.channel != "all" else r.metric for r in about))
    variants = list(dict.fromkeys(result.variant for result in about))
    undefined = total - compared - elsewhere
    why = [f"{elsewhere} not validated in every trial of both"] if elsewhere else []
    why += [f"{undefined} without a defined value in some of these trials"] if undefined else []
    return (
        f"{listed(variants)}: {listed(names)} {'is' if len(names) == 1 else 'are'} compared with the reference over "
        f"{compared} of {counted(total, 'patient')} ({'; '.join(why)}); the means are of other patients than the "
        "difference."
    )
