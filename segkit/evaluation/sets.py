"""Of which set of a checkpoint the cases of data are, and which checkpoints may be judged by them.

A checkpoint names the cases of each set, and the patients that it was trained on and validated with; those of older
versions only some of these. Patients of one name are one patient, in other data too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segkit.data.cases import StoredCase
from segkit.errors import UserError, counted, first_few, suggest

Meta = Mapping[str, Any]  # of a checkpoint

ALL = "all"
NEW = "new"
"""Where cases are that are in no set of a checkpoint."""
WATCHES_VALIDATION = "ReduceLROnPlateau"  # a scheduler


def default_set(metas: Iterable[Meta]) -> str:
    """Return the set on which checkpoints are evaluated if none is named."""
    return "test" if all(meta["split"]["test"] for meta in metas) else "validation"


def check_set(on: str, metas: Mapping[str, Meta]) -> None:
    """Raise unless each checkpoint, by its name in messages, has the set; several have no training set in common.

    Raises:
        UserError: the message names the sets that there are.
    """
    for path, meta in metas.items():
        have = [ALL, *(name for name, names in meta["split"].items() if names and name != "unlabelled")]
        if on not in have:
            raise UserError(f"{path}: it has no {on} set. {suggest(on, have)}")
    if on == "train" and len(metas) > 1:
        raise UserError(
            '--on train: several checkpoints are not evaluated on what they were trained on. Use "validation", "test" '
            'or "all", or one checkpoint.'
        )


def named_cases(cases: Sequence[StoredCase], names: Sequence[str], on: str, path: str | Path) -> list[int]:
    """Return the numbers of the cases of a set, in its order.

    Raises:
        UserError: the data lack some of them, or their masks.
    """
    by_name = {case.name: number for number, case in enumerate(cases)}
    missing = [name for name in names if name not in by_name]
    unlabelled = [name for name in names if name in by_name and not cases[by_name[name]].labelled]
    for found, what in ((missing, ""), (unlabelled, "masks of ")):
        if found:
            count = f"{len(found)} of its {counted(len(names), f'{on} case')}"
            raise UserError(f"{path}: the data lack {what}{count}, e.g. {found[0]}.")
    return [by_name[name] for name in names]


def set_of_each(cases: Sequence[StoredCase], meta: Meta) -> list[str]:
    """Return for each case the set of a checkpoint that its patient, or else it itself, is in."""
    sets = {case: name for name, names in reversed(meta["split"].items()) for case in names}
    sets |= dict.fromkeys(meta["split"].get("unlabelled", ()), "train")
    sets |= dict.fromkeys((meta["initial_weights"] or {}).get("cases", ()), "train")
    patients = {case.patient: sets[case.name] for case in cases if case.patient is not None and case.name in sets}
    patients |= dict.fromkeys(meta["validation_patients"], "validation")
    patients |= dict.fromkeys(meta["trained_patients"], "train")
    of_patients = (patients.get(case.patient) if case.patient is not None else None for case in cases)
    return [own or sets.get(case.name, NEW) for own, case in zip(of_patients, cases, strict=True)]


def by_set(cases: Sequence[StoredCase], meta: Meta) -> dict[str, list[int]]:
    """Return the numbers of all cases with masks, by the set of a checkpoint that they are in."""
    found: dict[str, list[int]] = {name: [] for name in (*meta["split"], NEW)}
    for number, name in enumerate(set_of_each(cases, meta)):
        if cases[number].labelled:
            found[name].append(number)
    return {name: part for name, part in found.items() if part}


def is_shaped_by_validation(meta: Meta) -> bool:
    """Return whether validation had a say in the weights: by choosing the epoch, ending the training or the rate."""
    train, scheduler = meta["recipe"].get("train", {}), meta["recipe"].get("scheduler") or {}
    chosen = meta["kind"] == "best" and train.get("select", "best") == "best"
    return chosen or train.get("patience") is not None or WATCHES_VALIDATION in scheduler


def nameless(cases: Sequence[StoredCase], metas: Mapping[str, Meta]) -> int:
    """Return how many checkpoints do not tell, of other data than their own, which patients they were chosen by."""
    names = {case.name for case in cases}
    return sum(
        is_shaped_by_validation(meta)
        and bool(meta["trained_patients"])
        and not meta["validation_patients"]
        and names.isdisjoint(meta["split"]["validation"])
        for meta in metas.values()
    )


def voters(cases: Sequence[StoredCase], metas: Mapping[str, Meta], on: str) -> dict[int, dict[int, str]]:
    """Return which checkpoints may predict which cases of a set: those that neither saw nor were chosen by the patient.

    Args:
        cases: of the data.
        metas: of the checkpoints, by their names in messages.
        on: "validation", "test" or "all". A case is in a set if it is in that of any checkpoint.

    Returns:
        For the number of each case, in order, the numbers of its checkpoints, and of each the set that the case is in.

    Raises:
        UserError: the data lack cases of the set; or patients that no checkpoint may predict: they are named.
    """
    wanted = {number for number, case in enumerate(cases) if case.labelled}
    if on != ALL:
        own = (named_cases(cases, meta["split"][on], on, path) for path, meta in metas.items())
        wanted = {number for numbers in own for number in numbers}
    found: dict[int, dict[int, str]] = {number: {} for number in sorted(wanted)}
    for place, meta in enumerate(metas.values()):
        seen = {"train", "validation"} if is_shaped_by_validation(meta) else {"train"}
        names = set_of_each(cases, meta)
        for number, usable in found.items():
            if names[number] not in seen:
                usable[place] = names[number]
    without = dict.fromkeys(cases[number].patient or cases[number].name for number, own in found.items() if not own)
    if without:
        tested = "the test set (--on test)" if default_set(metas.values()) == "test" else "a test set (split.test)"
        raise UserError(
            f"none of the {len(metas)} checkpoints may predict {counted(len(without), 'patient')} "
            f"({first_few(without)}): each was trained on the patient, or its epoch was chosen by it. Evaluate "
            f'{tested}, or other data (--set data...), or train with train.select = "last".'
        )
    return found
