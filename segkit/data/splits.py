"""Splits: whole patients into training, validation and test, fixed by the seed and the patients' names alone."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from segkit.errors import UserError, counted, first_few

MOST_NAMED = 3  # names in a message
SHOWN = {"train": "training", "validation": "validation", "test": "test"}


class Known(Protocol):
    """What a split knows of a case.

    Attributes:
        patient: None if the data do not say.
        labelled: whether it has masks; only then is it of any set.
        present: the numbers of the channels that it shows.
        digest: the same for the same image; "" for a constant one.
    """

    @property
    def name(self) -> str: ...
    @property
    def patient(self) -> str | None: ...
    @property
    def labelled(self) -> bool: ...
    @property
    def present(self) -> Collection[int]: ...
    @property
    def digest(self) -> str: ...


class KnownData(Protocol):
    """What a split knows of a data set: the `name` for messages, the names of its `channels`, its `cases`."""

    @property
    def name(self) -> str: ...
    @property
    def channels(self) -> Sequence[str]: ...
    @property
    def cases(self) -> Sequence[Known]: ...


@dataclass(frozen=True)
class Split:
    """Numbers of cases, in the order of the dataset; no patient is in two sets.

    Attributes:
        train: for training.
        validation: for validation, which chooses the epoch.
        full_train: for training, if the training fraction were 1.
        test: for the verdict; empty without a test set.
        unlabelled: without masks, for a training that can use them; empty otherwise.
        notes: what the user should know about the split.
        warnings: what makes its results doubtful.
    """

    train: tuple[int, ...]
    validation: tuple[int, ...]
    full_train: tuple[int, ...]
    test: tuple[int, ...] = ()
    unlabelled: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def split_cases(
    data: KnownData,
    *,
    validation: float | Sequence[str],
    train_fraction: float,
    seed: int,
    test: float | Sequence[str] | None = None,
    train: Sequence[str] | None = None,
    folds: int | Sequence[Sequence[str]] | None = None,
    fold: int | None = None,
    unlabelled: bool = False,
) -> Split:
    """Split by patient.

    Patients are ordered by the sha256 of seed and name. The last share of them is for the test. The first share is for
    validation, or with `folds` every patient of the others whose place, modulo `folds`, is the fold's. The training set
    is the first `train_fraction` of the rest. So the test set depends on nothing but its share, validation depends
    neither on it nor on `train_fraction`, smaller training sets lie within larger ones, and no version of a random
    generator matters. Shares are rounded to whole patients, at least one in each set.

    Args:
        data: each case without a patient counts as a patient, and a warning says so; cases without masks are in no set,
            or with `unlabelled` beside the training set.
        validation: share of the patients, 0 to 1, or names of patients (or of cases, which stand for their patients);
            a share is ignored with `folds`.
        train_fraction: share of the other patients, 0 to 1.
        seed: sets the order.
        test: share of the patients, or names.
        train: names of the patients from which training and, unless it is named, validation are taken.
        folds: the number of groups for cross-validation, at least 2, or the names of each.
        fold: the group for validation, from 1 to `folds`.
        unlabelled: whether cases without masks are trained on: all whose patient is not in validation or test.

    Raises:
        UserError: too few patients for a set or a group, no case with masks, a fold out of range, a name that the data
            do not have, or a patient or an image in two sets.
    """
    if folds is not None:
        count = folds if isinstance(folds, int) else len(folds)
        if fold is None or not 1 <= fold <= count:
            raise UserError(f"split.fold: must be from 1 to {count}, got {fold}.")
        if not isinstance(folds, int):  # the same as two lists
            train = [name for number, names in enumerate(folds, 1) if number != fold for name in names]
            validation, folds = folds[fold - 1], None
    groups = _groups(data.cases)
    if not groups:
        raise UserError(f"{data.name}: no case has masks, and these alone can be trained on or evaluated.")
    order = sorted(groups, key=lambda group: (hashlib.sha256(f"{seed}:{group}".encode()).digest(), group))
    lists = {"test": test, "validation": validation, "train": train}
    named = _named(data, {name: given for name, given in lists.items() if isinstance(given, Sequence)}, order)
    free = _without(order, *named.values())
    least = 0 if "train" in named else 1
    tested = _tested(test, free, len(order), least) if isinstance(test, float) else named.get("test", [])
    pool = named.get("train", _without(free, tested))
    if "validation" in named and not pool:
        raise UserError(f"split: no patient of {data.name} is left for training: name fewer in the other sets.")
    if isinstance(validation, float):
        drawn = len(pool) + (len(tested) if isinstance(test, float) and train is None else 0)
        validated = _validated(data.name, pool, validation, drawn, folds, fold)
    else:
        validated = named["validation"]
    rest = _without(pool, validated)
    chosen = rest[: _share(train_fraction, len(rest))], validated, rest, tested
    numbers = [tuple(sorted(number for group in part for number in groups[group])) for part in chosen]
    bare = _unlabelled(data.cases, {*validated, *tested}) if unlabelled else ()
    found = Split(train=numbers[0], validation=numbers[1], full_train=numbers[2], test=numbers[3], unlabelled=bare)
    check_separate(data, {"train": found.full_train + bare, "validation": found.validation, "test": found.test})
    unused = _without(order, rest, validated, tested)
    warnings = patient_warnings(sum(case.patient is None for case in data.cases), len(data.cases))
    return replace(found, notes=tuple(_notes(data, found, unused)), warnings=warnings)


def _group(case: Known) -> str:
    """Return the name of a case's patient; a prefix tells a patient from a case of the same name."""
    return f"patient {case.patient}" if case.patient is not None else f"case {case.name}"


def _groups(cases: Sequence[Known]) -> dict[str, list[int]]:
    """Return the numbers of each patient's cases that have masks."""
    groups: dict[str, list[int]] = {}
    for number, case in enumerate(cases):
        if case.labelled:
            groups.setdefault(_group(case), []).append(number)
    return groups


def _unlabelled(cases: Sequence[Known], taken: Collection[str]) -> tuple[int, ...]:
    """Return the numbers of the cases without masks whose patient is not taken."""
    return tuple(number for number, case in enumerate(cases) if not case.labelled and _group(case) not in taken)


def _share(fraction: float, count: int) -> int:
    """Return a share of `count`, rounded half up, at least 1."""
    return max(1, math.floor(fraction * count + 0.5))


def _without(order: Sequence[str], *others: Sequence[str]) -> list[str]:
    """Return the patients that are in none of the others, in their order."""
    gone: set[str] = set().union(*others)
    return [group for group in order if group not in gone]


def _tested(share: float, free: Sequence[str], count: int, least: int) -> list[str]:
    """Return the last share of `count` patients, taken from those that no list names; at least so many stay."""
    wanted = _share(share, count)
    if wanted > len(free) - least:
        stay = ", and one must stay to train on" if least else ""
        raise UserError(
            f"split.test: a share of {share:g} is {wanted} of {counted(count, 'patient')}, but only {len(free)} "
            f"{'is' if len(free) == 1 else 'are'} in no list{stay}: give a smaller share, or name the patients."
        )
    return list(free[-wanted:])


def _validated(
    name: str, pool: Sequence[str], share: float, count: int, folds: int | None, fold: int | None
) -> Sequence[str]:
    """Return the patients of a fold, or the first share of `count` patients, which leaves one to train on."""
    needed, advice = folds or 2, "use fewer folds" if folds else "training and validation need a patient each"
    if len(pool) < needed:
        rest = " outside of the test set" if len(pool) < count else ""
        raise UserError(
            f"{name}: {counted(len(pool), 'patient')}{rest} cannot be split into {needed} groups: {advice}."
        )
    return pool[fold - 1 :: folds] if folds and fold else pool[: min(_share(share, count), len(pool) - 1)]


def _named(data: KnownData, lists: Mapping[str, Sequence[str]], order: Sequence[str]) -> dict[str, list[str]]:
    """Return the patients that lists of patients or cases name, in `order`."""
    patients = {case.patient: _group(case) for case in data.cases if case.patient is not None}
    owners = {case.name: _group(case) for case in data.cases} | patients
    unknown = [name for names in lists.values() for name in names if name not in owners]
    if unknown:
        raise UserError(f"split: {data.name} has no patient or case called {_nearest(unknown, patients or owners)}.")
    found = {kind: {owners[name] for name in names} for kind, names in lists.items()}
    for (kind, names), (other, others) in itertools.combinations(found.items(), 2):
        if names & others:
            both = first_few(sorted(group.partition(" ")[2] for group in names & others))
            raise UserError(
                f"split: {both}: in {kind} and in {other}. A patient is in one set: leave out one of the two."
            )
    kept = {kind: [group for group in order if group in names] for kind, names in found.items()}
    for kind, groups in kept.items():
        if not groups:
            raise UserError(f"split.{kind}: names no case with masks, and these alone can be in a set.")
    return kept


def _nearest(unknown: Sequence[str], known: Collection[str]) -> str:
    """Return names with the nearest known one of each: the first few, and how many more."""
    shown = []
    for name in unknown[:MOST_NAMED]:
        close = difflib.get_close_matches(name[:100], known, n=1, cutoff=0.5)
        shown.append(f"{name} (nearest: {close[0]})" if close else name)
    return first_few([*shown, *unknown[MOST_NAMED:]], MOST_NAMED)


def _notes(data: KnownData, split: Split, unused: Sequence[str]) -> Iterator[str]:
    """Yield what is left out, and what a set does not show."""
    unlabelled = sum(not case.labelled for case in data.cases) - len(split.unlabelled)
    if unlabelled:
        yield f"{counted(unlabelled, 'case')} without masks: left out of every set."
    if unused:
        names = first_few(group.partition(" ")[2] for group in unused)
        is_named = "is" if len(unused) == 1 else "are"
        yield f"{counted(len(unused), 'patient')} {is_named} in no set of the split: left out ({names})."
    for side, numbers in (("training", split.train), ("validation", split.validation), ("test", split.test)):
        for channel, name in enumerate(data.channels) if numbers else ():
            if not any(channel in data.cases[number].present for number in numbers):
                yield f"no case of the {side} set shows any {name}."


def check_separate(data: KnownData, sets: Mapping[str, Sequence[int]]) -> None:
    """Raise if a patient, or the same image under two names, is in two sets; constant images may be.

    Args:
        data: the cases.
        sets: the numbers of the cases of "train", "validation" and "test".

    Raises:
        UserError: the message names the patient, or both cases.
    """
    for (one, numbers), (other, others) in itertools.combinations(sets.items(), 2):
        first = [data.cases[number] for number in numbers]
        patients = {case.patient: case.name for case in first if case.patient is not None}
        contents = {case.digest: case.name for case in first if case.digest}
        for case in (data.cases[number] for number in others):
            if case.patient in patients:
                raise UserError(
                    f"{data.name}: patient {case.patient} is on both sides: {patients[case.patient]} in {SHOWN[one]}, "
                    f"{case.name} in {SHOWN[other]}."
                )
            if case.digest in contents:
                raise UserError(
                    f"{data.name}: {contents[case.digest]} in {SHOWN[one]} and {case.name} in {SHOWN[other]} are the "
                    "same image: one patient under two names is on both sides. Remove one, or give both the same "
                    "patient."
                )


def patient_warnings(nameless: int, cases: int) -> tuple[str, ...]:
    """Return the warning about cases without a patient, and what to do; none if all have one."""
    if not nameless:
        return ()
    return (
        f"{nameless} of {counted(cases, 'case')} {'has' if nameless == 1 else 'have'} no patient: they are split "
        "case by case. Images of one patient may then be on both sides, which makes the validation look better than it "
        "is. Give each patient a folder of images, or a table a column of patients; or, if file names begin with the "
        'patient and the reader has this parameter, set patient = "^([^_]+)_", which takes what is before the first _.',
    )
