"""Splits: whole patients into training and validation, fixed by the seed and the patients' names alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from segkit.data.cases import Data
from segkit.errors import UserError, counted


@dataclass(frozen=True)
class Split:
    """Numbers of cases, in the order of the dataset.

    Attributes:
        train: for training.
        validation: for validation; none of their patients is in `train`.
        full_train: for training, if the training fraction were 1.
        notes: what the user should know about the split.
        warnings: what makes its results doubtful.
    """

    train: tuple[int, ...]
    validation: tuple[int, ...]
    full_train: tuple[int, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def split_cases(
    dataset: Data,
    *,
    validation: float,
    train_fraction: float,
    seed: int,
    folds: int | None = None,
    fold: int | None = None,
) -> Split:
    """Split by patient.

    Patients are ordered by the sha256 of seed and name. The first share of them is for validation, or with `folds`
    every patient whose place, modulo `folds`, is the fold's. The training set is the first `train_fraction` of the
    others. So validation does not depend on `train_fraction`, smaller training sets lie within larger ones, and no
    version of a random generator matters. Shares are rounded to whole patients, at least one on each side.

    Args:
        dataset: each case without a patient counts as a patient, and a warning says so.
        validation: share of the patients, 0 to 1; ignored with `folds`.
        train_fraction: share of the other patients, 0 to 1.
        seed: sets the order.
        folds: the number of groups for cross-validation, at least 2.
        fold: the group for validation, from 1 to `folds`.

    Raises:
        UserError: fewer patients than groups, a fold out of range, or one image on both sides.
    """
    groups: dict[str, list[int]] = {}
    for number, case in enumerate(dataset.cases):
        # A prefix tells a patient from a case of the same name.
        group = f"patient {case.patient}" if case.patient is not None else f"case {case.name}"
        groups.setdefault(group, []).append(number)
    order = sorted(groups, key=lambda group: (hashlib.sha256(f"{seed}:{group}".encode()).digest(), group))
    needed = folds or 2
    if len(order) < needed:
        advice = "use fewer folds" if folds else "training and validation need a patient each"
        raise UserError(
            f"{dataset.name}: {counted(len(order), 'patient')} cannot be split into {needed} groups: {advice}."
        )
    if folds is None:
        validated = order[: min(_share(validation, len(order)), len(order) - 1)]
    elif fold is not None and 1 <= fold <= folds:
        validated = order[fold - 1 :: folds]
    else:
        raise UserError(f"split.fold: must be from 1 to {folds}, got {fold}.")
    rest = [group for group in order if group not in set(validated)]
    kept = rest[: _share(train_fraction, len(rest))]
    train, held_out, full_train = (
        tuple(sorted(number for group in chosen for number in groups[group])) for chosen in (kept, validated, rest)
    )
    check_separate(dataset, full_train, held_out)
    notes = tuple(
        f"no case of the {side} set shows any {name}."
        for side, numbers in (("training", train), ("validation", held_out))
        for channel, name in enumerate(dataset.channels)
        if not any(channel in dataset.cases[number].present for number in numbers)
    )
    warnings = patient_warnings(sum(case.patient is None for case in dataset.cases), len(dataset.cases))
    return Split(train, held_out, full_train, notes, warnings)


def _share(fraction: float, count: int) -> int:
    """Return a share of `count`, rounded half up, at least 1."""
    return max(1, math.floor(fraction * count + 0.5))


def check_separate(dataset: Data, train: Sequence[int], validation: Sequence[int]) -> None:
    """Raise if a patient, or the same image under two names, is on both sides; constant images may be.

    Raises:
        UserError: the message names the patient, or both cases.
    """
    trained = [dataset.cases[number] for number in train]
    patients = {case.patient: case.name for case in trained if case.patient is not None}
    contents = {case.digest: case for case in trained if case.digest}
    for case in (dataset.cases[number] for number in validation):
        if case.patient in patients:
            raise UserError(
                f"{dataset.name}: patient {case.patient} is on both sides: {patients[case.patient]} in training, "
                f"{case.name} in validation."
            )
        twin = contents.get(case.digest)
        if twin is not None:
            raise UserError(
                f"{dataset.name}: {twin.name} in training and {case.name} in validation are the same image: one "
                "patient under two names is on both sides. Remove one, or give both the same patient."
            )


def patient_warnings(nameless: int, cases: int) -> tuple[str, ...]:
    """Return the warning about cases without a patient, and what to do; none if all have one."""
    if not nameless:
        return ()
    return (
        f"{nameless} of {counted(cases, 'case')} {'has' if nameless == 1 else 'have'} no patient: they are split "
        "case by case. Images of one patient may then be on both sides, which makes the validation look better than it "
        "is. Give each patient a folder of images, or, if file names begin with the patient and the reader has this "
        'parameter, set patient = "^([^_]+)_", which takes the part before the first _.',
    )
