"""A run folder becomes one summary: what the tables, the figures and summary.csv say."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from segkit.metrics import direction
from segkit.study.reading import DAMAGED, FINISHED, CaseValue, Planned, TrialRecord, planned, read_trial
from segkit.study.statistics import Table
from segkit.study.verdicts import Measure, Result, judge

ALL = "all"
HEADLINE = "dice"
P_VALUES = ("p_wilcoxon", "p_wilcoxon_holm", "p_seeds", "p_patients", "p", "p_holm")


COLUMNS = (
    *("variant", "metric", "channel", "verdict", "trials", "failed_trials", "unfinished_trials", "seeds", "patients"),
    *("mean", "sd_seeds", "sd_patients", "patients_compared", "difference", "ci_low", "ci_high", "t_low", "t_high"),
    *P_VALUES,
    *("smallest_detectable", "structures", "undefined", "empty_truth", "missed", "false_positive_on_empty"),
)


@dataclass(frozen=True)
class Counts:
    """How often the masks of a variant's finished trials were empty, a case and channel each.

    Attributes:
        structures: all of them.
        empty_truth: nothing was there.
        missed: something was there and nothing was predicted.
        false_positive_on_empty: nothing was there and something was predicted.
    """

    structures: int = 0
    empty_truth: int = 0
    missed: int = 0
    false_positive_on_empty: int = 0


@dataclass(frozen=True)
class Line:
    """One line of summary.csv."""

    result: Result
    trials: int
    failed_trials: int
    unfinished_trials: int
    counts: Counts
    undefined: int

    def cells(self) -> dict[str, str]:
        """Return every column as text; tables and figures show these very texts."""
        result = self.result
        cells = {name: _text(name, getattr(result, name)) for name in (f.name for f in fields(Result))}
        cells |= {name: str(getattr(self, name)) for name in ("trials", "failed_trials", "unfinished_trials")}
        cells |= {name: str(value) for name, value in vars(self.counts).items()}
        return cells | {"undefined": str(self.undefined)}


@dataclass(frozen=True)
class Summary:
    """A study, read and judged.

    Attributes:
        reference: the variant that the others are compared with.
        trials: all planned trials, in the order of the plan.
        whole: the finished trials of seeds that have all their folds: those that are compared.
        lines: a line for each variant, metric and channel, the headline's first.
        missing: what is not there, a sentence each.
        notes: what else a reader must know, a sentence each.
    """

    run: Path
    title: str
    variants: list[str]
    reference: str
    trials: list[TrialRecord]
    channels: list[str]
    whole: list[TrialRecord]
    lines: list[Line]
    missing: list[str]
    notes: list[str]

    @property
    def headline(self) -> list[Line]:
        """The lines of the headline: Dice over all channels, a variant each."""
        return self.lines[: len(self.variants)]

    def of(self, variant: str) -> list[TrialRecord]:
        """Return the trials of a variant."""
        return [trial for trial in self.trials if trial.variant == variant]

    def finished(self, variant: str) -> list[TrialRecord]:
        """Return the finished trials of a variant."""
        return [trial for trial in self.of(variant) if trial.status == FINISHED and not trial.problem]

    def compared(self, variant: str) -> list[TrialRecord]:
        """Return the trials of a variant that the tables are about."""
        return [trial for trial in self.whole if trial.variant == variant]


def _text(name: str, value: str | int | float) -> str:
    """Return a value as every table shows it: four decimals, p-values three digits, nothing for NaN."""
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return ""
    return f"{value:.3g}" if name in P_VALUES else f"{value + 0.0:.4f}".replace("-0.0000", "0.0000")


def summarize(run: Path) -> Summary:
    """Read a run folder and judge the study; unfinished, failed and missing trials are tolerated and said."""
    plan = planned(run)
    trials = [read_trial(run, *trial) for trial in plan.trials]
    variants = list(dict.fromkeys(trial.variant for trial in trials))
    reference = plan.reference or (variants[0] if variants else "")
    whole, incomplete = _complete(trials)
    measures = _measures(whole, variants)
    results = judge(measures, variants, reference)
    channels = list(dict.fromkeys(case.channel for trial in whole for case in trial.cases))
    counts = {(v, c): _counts(whole, v, c) for v in variants for c in (ALL, *channels)}
    undefined = _undefined(whole)
    lines = [
        Line(
            result,
            trials=sum(trial.variant == result.variant for trial in whole),
            failed_trials=sum(t.variant == result.variant and t.status == "failed" for t in trials),
            unfinished_trials=sum(t.variant == result.variant and t.status not in ("failed", FINISHED) for t in trials),
            counts=counts[result.variant, result.channel],
            undefined=undefined[result.variant, result.metric, result.channel],
        )
        for result in results
    ]
    missing = [_missing(trial) for trial in trials if trial.status != FINISHED or trial.problem] + incomplete
    notes = _notes(plan, variants, reference, whole)
    return Summary(run, plan.title, variants, reference, trials, channels, whole, lines, missing, notes)


def _missing(trial: TrialRecord) -> str:
    """Return what is the matter with a trial that is not finished."""
    if trial.problem and trial.status in (FINISHED, DAMAGED):
        return f"{trial.name}: {trial.problem}: left out of the tables"
    done, epochs = trial.info.get("epochs_done", 0), trial.info.get("epochs", "?")
    if trial.status == "failed":
        return (
            f"{trial.name}: failed after {done} of {epochs} epochs: {trial.info.get('error') or 'no reason recorded'}"
        )
    if trial.status == "missing":
        return f"{trial.name}: not started"
    return f"{trial.name}: {trial.status}, {done} of {epochs} epochs done"


def _complete(trials: Sequence[TrialRecord]) -> tuple[list[TrialRecord], list[str]]:
    """Return the finished trials whose seed has all its folds, and a sentence for each seed that has not."""
    finished = [trial for trial in trials if trial.status == FINISHED and not trial.problem]
    folds = {trial.fold for trial in trials}
    have = Counter((trial.variant, trial.seed) for trial in finished)
    partial = {key for key, count in have.items() if count < len(folds)}
    said = [
        f"{variant}, seed {seed}: only {have[variant, seed]} of {len(folds)} folds are finished: left out of the tables"
        for variant, seed in sorted(partial)
    ]
    return [trial for trial in finished if (trial.variant, trial.seed) not in partial], said


def _notes(plan: Planned, variants: Sequence[str], reference: str, whole: Sequence[TrialRecord]) -> list[str]:
    """Return what a reader must know before reading the tables."""
    notes = [plan.problem] if plan.problem else []
    if plan.reference is None and len(variants) > 1:
        notes.append(f"The recipe names no study.compare_with: the first variant, {reference}, is the reference.")
    if any(not case.patient for trial in whole for case in trial.cases[:1]):
        notes.append("The data do not say which patient a case is of: every case counts as a patient of its own.")
    if any(trial.info.get("limited") for trial in whole):
        notes.append("These trainings were cut short on purpose (a dry run or an overfit run): the values mean little.")
    if any(trial.info.get("reused_from") for trial in whole):
        count = sum(bool(trial.info.get("reused_from")) for trial in whole)
        notes.append(f"Copies of identical trials that were trained before: {count} of {len(whole)}.")
    return notes


def _measures(trials: Sequence[TrialRecord], variants: Sequence[str]) -> list[Measure]:
    """Return each metric of all channels and of each, the headline first; one channel alone is not told twice."""
    patients = {name: i for i, name in enumerate(dict.fromkeys(_patient(c) for t in trials for c in t.cases))}
    names = list(dict.fromkeys(case.metric for trial in trials for case in trial.cases))
    channels = list(dict.fromkeys(case.channel for trial in trials for case in trial.cases))
    names = sorted(names or [HEADLINE], key=lambda name: name != HEADLINE)
    keys = [(name, channel) for name in names for channel in ([ALL, *channels] if len(channels) > 1 else [ALL])]
    seeds = {v: list(dict.fromkeys(t.seed for t in trials if t.variant == v)) for v in variants}
    wanted = set(keys)
    sums = {key: {v: np.zeros((2, len(seeds[v]), len(patients))) for v in variants} for key in keys}
    for trial in trials:
        row = seeds[trial.variant].index(trial.seed)
        for case in trial.cases:
            if math.isfinite(case.value):
                for channel in (ALL, case.channel):
                    if (case.metric, channel) in wanted:
                        sums[case.metric, channel][trial.variant][:, row, patients[_patient(case)]] += case.value, 1
    return [
        Measure(name, channel, direction(name), {v: _mean(*sums[name, channel][v]) for v in variants})
        for name, channel in keys
    ]


def _patient(case: CaseValue) -> str:
    return case.patient or case.case


def _mean(total: Table, count: Table) -> Table:
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _counts(trials: Sequence[TrialRecord], variant: str, channel: str) -> Counts:
    """Count empty masks once a case and channel, whatever the number of metrics."""
    cases = [
        (case.truth_pixels, case.predicted_pixels)
        for trial in trials
        if trial.variant == variant
        for case in trial.cases
        if case.metric == trial.cases[0].metric and channel in (ALL, case.channel)
    ]
    return Counts(
        structures=len(cases),
        empty_truth=sum(not truth for truth, _ in cases),
        missed=sum(bool(truth) and not predicted for truth, predicted in cases),
        false_positive_on_empty=sum(not truth and bool(predicted) for truth, predicted in cases),
    )


def _undefined(trials: Sequence[TrialRecord]) -> Counter[tuple[str, str, str]]:
    """Count the values that are no number, by variant, metric and channel."""
    return Counter(
        (trial.variant, case.metric, channel)
        for trial in trials
        for case in trial.cases
        if not math.isfinite(case.value)
        for channel in (ALL, case.channel)
    )


def to_csv(summary: Summary) -> str:
    """Return summary.csv: a line for each variant, metric and channel."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(line.cells() for line in summary.lines)
    return out.getvalue()
