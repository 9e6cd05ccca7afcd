"""The summary of a run folder, from which summary.csv, tables and figures are made."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segkit import files, plugins
from segkit.components.metrics import direction, metrics
from segkit.errors import printable
from segkit.study.reading import FINISHED, Plan, TrialRecord, read_plan, read_trial
from segkit.study.scores import ALL, Scores, gather_scores, judged_set
from segkit.study.sharing import is_live
from segkit.study.verdicts import Measure, Result, judge
from segkit.training.results import Keys

HEADLINE = "dice"
P_VALUES = ("p_wilcoxon", "p_wilcoxon_holm", "p_seeds", "p_patients", "p", "p_holm")
COLUMNS = (
    *(
        "variant",
        "metric",
        "channel",
        "set",
        "verdict",
        "trials",
        "failed_trials",
        "unfinished_trials",
        "seeds",
        "patients",
    ),
    *("mean", "sd_seeds", "sd_patients", "patients_compared", "difference", "ci_low", "ci_high", "t_low", "t_high"),
    *(*P_VALUES, "smallest_detectable", "structures", "undefined", "rightly_empty", "empty_truth", "missed"),
    "false_positive_on_empty",
)


@dataclass(frozen=True)
class Line:
    """One line of summary.csv: a result, its numbers of trials, masks and values, by column, and the set it is of."""

    result: Result
    counts: dict[str, int]
    set: str

    def cells(self) -> dict[str, str]:
        """Return every column as text, as in tables and figures."""
        values = vars(self.result) | self.counts | {"set": self.set}
        return {name: _text(name, values[name]) for name in COLUMNS}


@dataclass(frozen=True)
class Summary:
    """A study, read and judged.

    Attributes:
        live: whether a process is working on the run.
        reference: the variant that the others are compared with.
        trials: all planned ones.
        whole: the compared trials, see `compared`.
        scores: their values.
        measures: the means by patient on which the verdicts are based.
        lines: one per variant, metric and channel, the headline's first.
    """

    run: Path
    plan: Plan
    live: bool
    variants: list[str]
    reference: str
    trials: list[TrialRecord]
    whole: list[TrialRecord]
    scores: Scores
    measures: list[Measure]
    lines: list[Line]

    @property
    def headline(self) -> list[Line]:
        """The lines of the headline: Dice over all channels, one per variant."""
        return self.lines[: len(self.variants)]

    @property
    def metric(self) -> str:
        """The headline's metric."""
        return self.measures[0].metric

    @property
    def finished(self) -> list[TrialRecord]:
        """The trials that are finished and readable."""
        return [trial for trial in self.trials if trial.readable]

    def of(self, variant: str) -> list[TrialRecord]:
        """Return the trials of a variant."""
        return [trial for trial in self.trials if trial.variant == variant]

    def compared(self, variant: str) -> list[TrialRecord]:
        """Return the compared trials of a variant."""
        return [trial for trial in self.whole if trial.variant == variant]


def _text(name: str, value: str | int | float) -> str:
    """Return a value with four decimals, three significant digits for a p-value, "" for NaN."""
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return ""
    return f"{value:.3g}" if name in P_VALUES else f"{value + 0.0:.4f}".replace("-0.0000", "0.0000")


def compared(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the finished trials of the newest training number, of variants and seeds with all their folds."""
    finished = [trial for trial in trials if trial.readable]
    newest = max((trial.training_number for trial in finished), default=1)
    finished = [trial for trial in finished if trial.training_number == newest]
    folds = Counter((trial.variant, trial.seed) for trial in finished)
    planned_folds = len({trial.fold for trial in trials})
    return [trial for trial in finished if folds[trial.variant, trial.seed] == planned_folds]


def summarize(run: Path) -> Summary:
    """Read a run folder and judge the study; unfinished, failed and missing trials are allowed."""
    plan = read_plan(run)
    known: dict[bytes, Keys] = {}
    trials = [read_trial(run, *trial, known) for trial in plan.trials]
    variants = list(dict.fromkeys(trial.variant for trial in trials))
    reference = plan.reference if plan.reference in variants else variants[0] if variants else ""
    whole = compared(trials)
    if not {name for trial in whole if trial.rows for name in trial.rows.keys.names[3]} <= {e.name for e in metrics}:
        plugins.load()  # for the direction and best value of a plugin's metric
    scores = gather_scores(whole, judged_set(whole))
    measures = _measures(scores, variants)
    counted = {
        "trials": Counter(trial.variant for trial in whole),
        "failed_trials": Counter(trial.variant for trial in trials if trial.status == "failed"),
        "unfinished_trials": Counter(trial.variant for trial in trials if trial.status not in ("failed", FINISHED)),
    }
    lines = [
        Line(
            found,
            {name: counts[found.variant] for name, counts in counted.items()} | _counts(scores, found),
            scores.set,
        )
        for found in judge(measures, variants, reference)
    ]
    return Summary(run, plan, is_live(run), variants, reference, trials, whole, scores, measures, lines)


def _measures(scores: Scores, variants: Sequence[str]) -> list[Measure]:
    """Return each metric of all channels and of each channel, the headline first; a single channel only once."""
    names = sorted(scores.metrics, key=lambda name: name != HEADLINE)
    if not names:
        return [Measure(HEADLINE, ALL, direction(HEADLINE), {v: np.zeros((0, 0)) for v in variants})]
    folds = {v: [scores.trainings[row][2] for row in scores.rows(v)] for v in variants}
    measures = []
    for name in names:
        for channel in (ALL, *scores.channels) if len(scores.channels) > 1 else (ALL,):
            table = scores.by_patient(name, channel)
            measures.append(
                Measure(name, channel, direction(name), {v: table[scores.rows(v)] for v in variants}, folds)
            )
    return measures


def _counts(scores: Scores, result: Result) -> dict[str, int]:
    """Count the masks of a result, one per compared trial, case and channel, and the special values of its metric."""
    rows, columns = scores.rows(result.variant), scores.columns(result.channel)
    # a study without any metric has no cases either
    by_metric = (flags.get(result.metric, scores.held) for flags in (scores.undefined, scores.granted))
    held, truth, predicted, undefined, granted = (
        flags[rows][..., columns] for flags in (scores.held, scores.truth, scores.predicted, *by_metric)
    )
    found = {
        "structures": held,
        "empty_truth": held & ~truth,
        "missed": held & truth & ~predicted,
        "false_positive_on_empty": held & ~truth & predicted,
        "undefined": undefined,
        "rightly_empty": granted,  # the best value was given
    }
    return {name: int(flags.sum()) for name, flags in found.items()}


def to_csv(summary: Summary) -> str:
    """Return summary.csv: one line per variant, metric and channel."""
    return files.to_csv(COLUMNS, [[printable(text) for text in line.cells().values()] for line in summary.lines])
