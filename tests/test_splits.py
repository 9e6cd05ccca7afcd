"""Splits: whole patients, the same for every training fraction, nested, and never one image on both sides."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from segkit import UserError
from segkit.components.datasets import Case, Dataset
from segkit.data.splits import Split, split_cases


def dataset(patients: int = 16, named: bool = True, each: int = 5) -> Dataset:
    random = np.random.default_rng(0)
    cases = [
        Case(
            name=f"p{p}/{n}",
            patient=f"p{p}" if named else None,
            image=random.integers(0, 99, (4, 4), dtype=np.uint8),
            masks=np.ones((1, 4, 4), bool),
            spacing_mm=None,
        )
        for p in range(patients)
        for n in range(each)
    ]
    return Dataset("made", ("x",), tuple(cases))


def split(data: Dataset, **options: Any) -> Split:
    return split_cases(data, **{"validation": 0.2, "train_fraction": 1.0, "seed": 1} | options)


def patients_of(data: Dataset, numbers: tuple[int, ...]) -> set[str | None]:
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
    turned = Dataset("made", ("x",), data.cases[::-1])
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
    twin = Case("again", "another", data.cases[0].image, data.cases[0].masks, None)
    doubled = Dataset("made", ("x",), (*data.cases, twin))
    seed = next(seed for seed in range(30) if _apart(doubled, seed))
    with pytest.raises(UserError, match="are the same image: one patient under two names is on both sides"):
        split(doubled, seed=seed)


def _apart(data: Dataset, seed: int) -> bool:
    """Return whether the twins are split."""
    try:
        split(data, seed=seed)
    except UserError:
        return True
    return False
