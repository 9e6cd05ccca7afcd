"""All values of the compared trials, as arrays, and the values of structures that were rightly left empty.

A metric is undefined if a structure is neither present nor predicted. If such structures were merely dropped, a variant
with a false positive in a healthy patient would be compared on other patients than one that rightly predicts nothing,
at no cost. Therefore, if any compared trial predicts a structure whose truth is empty, a trial that leaves it empty
gets the metric's best value there; otherwise, and for metrics that declare no best value, it stays undefined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segkit.components.metrics import best_value
from segkit.study.reading import TrialRecord
from segkit.study.statistics import Table
from segkit.training.results import TEST, VALIDATION, Codes, Flags, Keys, Rows

Training = tuple[str, int, int | None]  # variant, seed, fold

ALL = "all"
"""The name of the mean over channels, which no channel may have."""


@dataclass(frozen=True)
class Scores:
    """The values of a study on one set. Arrays are (trainings, cases, channels).

    On the validation set all folds of a seed are one training: each validates other patients. On the test set, whose
    patients are the same for all folds, each fold is a training of its own.

    Attributes:
        set: "validation" or "test".
        trainings: variant, seed and, on the test set, fold of each.
        cases, channels, metrics, patients: names; a case without a patient is a patient of its own.
        owners: (cases,) the index of each case's patient, ascending.
        nameless: (cases,) whether the case names no patient.
        held: whether the case was evaluated.
        truth, predicted: whether the mask has any pixel.
        values: by metric, NaN if undefined or not computed.
        undefined: by metric, whether it was computed but is undefined.
        granted: by metric, whether the best value was given for a structure rightly left empty.
    """

    set: str
    trainings: list[Training]
    cases: list[str]
    channels: list[str]
    metrics: list[str]
    patients: list[str]
    owners: Codes
    nameless: Flags
    held: Flags
    truth: Flags
    predicted: Flags
    values: dict[str, Table]
    undefined: dict[str, Flags]
    granted: dict[str, Flags]

    def rows(self, variant: str) -> list[int]:
        """Return the indices of a variant's trainings."""
        return [row for row, (name, _, _) in enumerate(self.trainings) if name == variant]

    def training(self, trial: TrialRecord) -> int:
        """Return the index of the training that a trial belongs to."""
        return self.trainings.index(_training(trial, self.set))

    def columns(self, channel: str) -> slice:
        """Return the slice of a channel, or of all for `ALL`."""
        if channel == ALL:
            return slice(None)
        number = self.channels.index(channel)
        return slice(number, number + 1)

    def by_patient(self, metric: str, channel: str) -> Table:
        """Return the (trainings, patients) means over each patient's defined values, NaN if there are none."""
        total, count = _sums(self.values[metric][..., self.columns(channel)])
        if not self.cases:
            return np.full((len(self.trainings), 0), np.nan)
        starts = np.searchsorted(self.owners, np.arange(len(self.patients)))
        return _mean(np.add.reduceat(total, starts, axis=1), np.add.reduceat(count, starts, axis=1))

    def by_case(self, metric: str, rows: Sequence[int]) -> Table:
        """Return the (cases,) means over channels and some trainings, NaN if nothing is defined."""
        total, count = _sums(self.values[metric][list(rows)])
        return _mean(total.sum(axis=0), count.sum(axis=0))

    def holders(self, channel: str) -> Flags:
        """Return (trainings, patients): whether a training was evaluated on any case of the patient."""
        found = np.zeros((len(self.trainings), len(self.patients)), bool)
        held = np.any(self.held[..., self.columns(channel)], axis=-1)
        for row, cases in enumerate(held):
            found[row, self.owners[cases]] = True
        return found


def _sums(values: Table) -> tuple[Table, NDArray[np.int64]]:
    defined = ~np.isnan(values)
    return np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1)


def _mean(total: Table, count: NDArray[np.int64]) -> Table:
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def rightly_empty(held: Flags, truth: Flags, predicted: Flags) -> Flags:
    """Return where a training rightly left a structure empty that another predicted; arrays are (trainings, ...)."""
    empty = held & ~truth
    return empty & ~predicted & (empty & predicted).any(axis=0)


def judged_set(trials: Sequence[TrialRecord]) -> str:
    """Return the set on which trials are compared: "test" if all of them have one, otherwise "validation"."""
    tested = [trial.rows is not None and TEST in trial.rows.keys.names[4] for trial in trials]
    return TEST if tested and all(tested) else VALIDATION


def _training(trial: TrialRecord, on: str) -> Training:
    return trial.variant, trial.seed, trial.fold if on == TEST else None


def gather_scores(trials: Sequence[TrialRecord], on: str = VALIDATION) -> Scores:
    """Return the values of finished trials on one of their sets, "validation" or "test"."""
    restricted: dict[int, tuple[Keys, Flags]] = {}
    found = [(_training(trial, on), _of_set(trial.rows, on, restricted)) for trial in trials if trial.rows]
    distinct = list({id(rows.keys): rows.keys for _, rows in found}.values())  # trials share them
    trainings = list(dict.fromkeys(training for training, _ in found))
    cases, owners, nameless, patients = _cases(distinct)
    channels, metrics = (list(dict.fromkeys(name for keys in distinct for name in keys.names[k])) for k in (2, 3))
    shape = len(trainings), len(cases), len(channels)
    held, truth, predicted = (np.zeros(shape, bool) for _ in range(3))
    computed, granted = (np.zeros((len(metrics), *shape), bool) for _ in range(2))
    values = np.full((len(metrics), *shape), np.nan)
    places = {0: _places(cases), 2: _places(channels), 3: _places(metrics)}
    for training, rows in found:
        names, codes = rows.keys.names, rows.keys.codes
        case, channel, metric = (
            np.array([place.get(name, -1) for name in names[k]], np.int32)[codes[k]] for k, place in places.items()
        )
        at = (trainings.index(training), case, channel)
        held[at], truth[at], predicted[at] = True, rows.truth, rows.predicted
        computed[(metric, *at)], values[(metric, *at)] = True, rows.values
    values[~np.isfinite(values)] = np.nan
    right = rightly_empty(held, truth, predicted)
    for number, name in enumerate(metrics):
        value = best_value(name)
        if value is not None:
            granted[number] = right & computed[number] & np.isnan(values[number])
            values[number][granted[number]] = value
    undefined = computed & np.isnan(values)
    by_name = [dict(zip(metrics, part, strict=True)) for part in (values, undefined, granted)]
    return Scores(
        on, trainings, cases, channels, metrics, patients, owners, nameless, held, truth, predicted, *by_name
    )  # fmt: skip


def _of_set(rows: Rows, on: str, restricted: dict[int, tuple[Keys, Flags]]) -> Rows:
    """Return the rows of a set; those that shared their keys still do."""
    keys, kept = restricted.get(id(rows.keys)) or (rows.keys, rows.keys.of_set(on))
    if id(rows.keys) not in restricted and not kept.all():
        keys = Keys(rows.keys.names, rows.keys.codes[:, kept])
    restricted[id(rows.keys)] = keys, kept
    return rows if kept.all() else Rows(keys, rows.values[kept], rows.truth[kept], rows.predicted[kept])


def _cases(distinct: Sequence[Keys]) -> tuple[list[str], Codes, Flags, list[str]]:
    """Return the cases by patient, each case's patient, whether it names none, and the patients."""
    patient_of: dict[str, str] = {}
    for keys in distinct:
        (cases, names, *_), codes = keys.names, keys.codes
        for case, row in zip(*np.unique(codes[0], return_index=True), strict=True):
            patient_of.setdefault(cases[case], names[codes[1, row]])
    patients = list(dict.fromkeys(patient or case for case, patient in patient_of.items()))
    numbers = _places(patients)
    owner = {case: numbers[patient or case] for case, patient in patient_of.items()}
    ordered = sorted(owner, key=owner.__getitem__)
    owners = np.array([owner[case] for case in ordered], np.int32)
    return ordered, owners, np.array([not patient_of[case] for case in ordered], bool), patients


def _places(names: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}
