"""Splits: whole patients, the same for every training fraction, nested, and never one image on both sides."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, replace
from typing import Any

import pytest

from segkit import UserError
from segkit.data.splits import Split, check_separate, split_cases


@dataclass(frozen=True)
class Made:
    """A case as splits know it."""

    name: str
    patient: str | None
    labelled: bool = True
    present: tuple[int, ...] = (0,)
    digest: str = ""


@dataclass(frozen=True)
class MadeData:
    cases: tuple[Made, ...]
    name: str = "made"
    channels: tuple[str, ...] = ("x",)


def dataset(patients: int = 16, named: bool = True, each: int = 5) -> MadeData:
    return MadeData(
        tuple(
            Made(f"p{p}/{n}", f"p{p}" if named else None, digest=f"{p} {n}")
            for p in range(patients)
            for n in range(each)
        )
    )


def split(data: MadeData, **options: Any) -> Split:
    return split_cases(data, **{"validation": 0.2, "train_fraction": 1.0, "seed": 1} | options)


def patients_of(data: MadeData, numbers: tuple[int, ...]) -> set[str | None]:
    return {data.cases[number].patient for number in numbers}


def test_no_patient_is_on_both_sides_and_nobody_is_left_out() -> None:
    data = dataset()
    for seed in range(20):
        found = split(data, seed=seed)
        assert not patients_of(data, found.train) & patients_of(data, found.validation)
        assert len(found.train) + len(found.validation) == len(data.cases)
        assert len(patients_of(data, found.validation)) == 3
    assert split(data, seed=1).validation != split(data, seed=2).validation


def test_training_sets_are_nested_and_validation_stays() -> None:
    data = dataset()
    found = [split(data, train_fraction=fraction) for fraction in (0.25, 0.5, 0.75, 1.0)]
    assert len({part.validation for part in found}) == 1
    for smaller, larger in itertools.pairwise(found):
        assert set(smaller.train) < set(larger.train)
        assert smaller.full_train == larger.full_train == found[-1].train


def test_the_split_does_not_depend_on_the_order_of_the_cases() -> None:
    data = dataset()
    turned = MadeData(data.cases[::-1])
    assert patients_of(data, split(data).validation) == patients_of(turned, split(turned).validation)


def test_folds_cover_every_patient_once() -> None:
    data = dataset()
    held = [patients_of(data, split(data, folds=4, fold=fold).validation) for fold in range(1, 5)]
    assert sum(len(part) for part in held) == 16
    assert set().union(*held) == patients_of(data, tuple(range(len(data.cases))))
    with pytest.raises(UserError, match=r"split\.fold: must be from 1 to 4, got 5"):
        split(data, folds=4, fold=5)


def test_cases_without_patients_are_reported() -> None:
    found = split(dataset(named=False))
    assert found.notes == ()
    (warning,) = found.warnings
    assert warning.startswith("80 of 80 cases have no patient: they are split case by case.")
    assert "Give each patient a folder" in warning
    assert split(dataset()).warnings == ()


def test_too_few_patients() -> None:
    with pytest.raises(UserError, match=r"1 patient cannot be split into 2 groups"):
        split(dataset(patients=1))
    with pytest.raises(UserError, match="use fewer folds"):
        split(dataset(patients=3), folds=4, fold=1)


def test_one_image_under_two_patients_is_a_leak() -> None:
    data = dataset(patients=4, each=1)
    doubled = MadeData((*data.cases, Made("again", "another", digest=data.cases[0].digest)))
    seed = next(seed for seed in range(30) if _apart(doubled, seed))
    with pytest.raises(UserError, match="are the same image: one patient under two names is on both sides"):
        split(doubled, seed=seed)


def _apart(data: MadeData, seed: int) -> bool:
    """Return whether the twins are split."""
    try:
        split(data, seed=seed)
    except UserError:
        return True
    return False


# test sets


def test_a_test_set_changes_no_validation_set_and_depends_on_its_share_alone() -> None:
    data = dataset()
    before = split(data)
    found = [
        split(data, test=0.25, **options)
        for options in ({}, {"validation": 0.4}, {"train_fraction": 0.5}, {"folds": 3, "fold": 2})
    ]
    assert {part.test for part in found} == {found[0].test}
    assert len(patients_of(data, found[0].test)) == 4
    assert found[0].validation == before.validation
    assert set(split(data, test=0.125).test) < set(found[0].test)
    assert set(found[0].full_train) | set(found[0].test) == set(before.full_train)
    assert split(data, test=0.25, seed=2).test != found[0].test


def test_folds_divide_what_is_not_of_the_test_set() -> None:
    data = dataset()
    found = [split(data, test=0.25, folds=4, fold=fold) for fold in range(1, 5)]
    held = [number for part in found for number in part.validation]
    assert sorted([*held, *found[0].test]) == list(range(len(data.cases)))
    assert not set(found[0].train) & set(found[0].test)


@pytest.mark.parametrize(
    ("options", "train", "validation", "test"),
    [
        ({"validation": ["p1", "p2"]}, {"p0", "p3", "p4", "p5"}, {"p1", "p2"}, set()),
        ({"validation": ["p1"], "test": ["p2"]}, {"p0", "p3", "p4", "p5"}, {"p1"}, {"p2"}),
        ({"validation": ["p1"], "test": ["p2"], "train": ["p3"]}, {"p3"}, {"p1"}, {"p2"}),
        ({"validation": ["p1/0"], "test": ["p2/1"], "train": ["p3"]}, {"p3"}, {"p1"}, {"p2"}),  # cases for patients
        ({"folds": [["p0", "p1"], ["p2"]], "fold": 1, "test": ["p5"]}, {"p2"}, {"p0", "p1"}, {"p5"}),
        ({"folds": [["p0", "p1"], ["p2"]], "fold": 2}, {"p0", "p1"}, {"p2"}, set()),
    ],
)
def test_sets_may_be_named(options: dict[str, Any], train: set[str], validation: set[str], test: set[str]) -> None:
    data = dataset(6, each=2)
    found = split(data, **options)
    assert [patients_of(data, part) for part in (found.train, found.validation, found.test)] == [
        train, validation, test,
    ]  # fmt: skip
    left = 6 - len(train | validation | test)
    assert [note for note in found.notes if "in no set of the split: left out" in note] == (
        [note for note in found.notes if note.startswith(f"{left} patient")] if left else []
    )


def test_shares_are_drawn_from_what_is_not_named() -> None:
    data = dataset(20, each=1)
    names = [f"p{number}" for number in range(10)]
    found = split(data, train=names, validation=0.2)
    assert len(found.validation) == 2
    assert patients_of(data, (*found.train, *found.validation)) == set(names)
    found = split(data, train=names, validation=0.2, test=0.25)
    assert len(found.test) == 5
    assert not patients_of(data, found.test) & set(names)
    folds = [split(data, train=names, folds=5, fold=fold).validation for fold in range(1, 6)]
    assert patients_of(data, tuple(number for fold in folds for number in fold)) == set(names)


def test_a_test_set_may_take_all_that_no_list_names() -> None:
    data = dataset(4, each=1)
    assert patients_of(data, split(data, train=["p0", "p1"], test=0.5).test) == {"p2", "p3"}


def test_twenty_thousand_patients_are_split_at_once() -> None:
    data = dataset(20_000, each=1)
    names = [f"p{number}" for number in range(10_000)]
    started = time.process_time()
    assert len(split(data, train=names, validation=0.2, test=0.25).test) == 5000
    assert time.process_time() - started < 2


def test_cases_without_masks_are_in_no_set_and_counted() -> None:
    data = dataset(8, each=2)
    half = MadeData(tuple(replace(case, labelled=not case.name.endswith("/1")) for case in data.cases))
    found = split(half, test=0.25)
    assert all(half.cases[number].labelled for number in (*found.train, *found.validation, *found.test))
    assert "8 cases without masks: left out of every set." in found.notes
    none = MadeData(tuple(replace(case, labelled=False) for case in data.cases))
    for options in ({}, {"test": 0.25}, {"folds": 3, "fold": 1}):
        with pytest.raises(UserError, match="made: no case has masks, and these alone can be trained on or evaluated"):
            split(none, **options)
    assert patients_of(half, found.validation) == patients_of(data, split(data, test=0.25).validation)


def test_channels_that_a_set_does_not_show_are_noted() -> None:
    data = dataset(6, each=1)
    empty = MadeData(tuple(replace(case, present=()) if case.patient == "p2" else case for case in data.cases))
    assert split(empty, test=["p2"]).notes == ("no case of the test set shows any x.",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": ["p11"]}, r"split: made has no patient or case called p11 \(nearest: p1\)\."),
        ({"validation": ["x", "y", "z", "q", "w"]}, r"called x, y, z and 2 more\."),
        ({"validation": ["p1"], "test": ["p1"]}, "split: p1: in test and in validation. A patient is in one set"),
        ({"validation": ["p1/0"], "test": ["p1/1"]}, "split: p1: in test and in validation"),
        ({"validation": ["p0", "p1"], "test": ["p2", "p3"]}, "split: no patient of made is left for training"),
        ({"test": 0.9}, "split.test: a share of 0.9 is 4 of 4 patients, but only 4 are in no list"),
        ({"test": 0.5, "train": ["p0", "p1", "p2"]}, "split.test: a share of 0.5 is 2 of 4 patients, but only 1"),
        (
            {"test": 0.75},
            "made: 1 patient outside of the test set cannot be split into 2 groups: training and validation",
        ),
        ({"train": ["p0"]}, "made: 1 patient cannot be split into 2 groups"),
        (
            {"test": 0.25, "folds": 4, "fold": 1},
            "made: 3 patients outside of the test set cannot be split into 4 groups: use fewer folds",
        ),
        ({"folds": [["p0"], ["p1"]], "fold": 3}, "split.fold: must be from 1 to 2, got 3"),
        ({"test": ["bare"]}, "split.test: names no case with masks, and these alone can be in a set"),
    ],
)
def test_sets_that_cannot_be_made(options: dict[str, Any], message: str) -> None:
    data = dataset(4, each=2)
    data = MadeData((*data.cases, Made("bare/0", "bare", labelled=False)))
    with pytest.raises(UserError, match=message):
        split(data, **options)


def test_three_sets_are_kept_apart() -> None:
    cases = (Made("a", "A", digest="1"), Made("b", "B", digest="2"), Made("c", "C", digest="1"), Made("d", "A"))
    data = MadeData(cases)
    check_separate(data, {"train": [0], "validation": [1], "test": []})
    with pytest.raises(UserError, match="made: a in training and c in test are the same image"):
        check_separate(data, {"train": [0], "validation": [1], "test": [2]})
    with pytest.raises(UserError, match="patient A is on both sides: a in validation, d in test"):
        check_separate(data, {"train": [1], "validation": [0], "test": [3]})
