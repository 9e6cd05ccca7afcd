"""The CSV of a split, such as challenges publish, becomes lists of patients: a filled recipe needs no other file."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from segkit.components.datasets.reading import decode
from segkit.errors import UserError, first_few, join_mistakes, truncate
from segkit.files import display_path, read_bytes
from segkit.recipe.merge import Document
from segkit.recipe.source import Source

FILE = ("split", "file")
MOST_BYTES = 500_000  # the names become a part of recipes and checkpoints
SETS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
Lists = dict[str, Any]  # split.train, split.validation and split.test, or split.folds, as in a recipe


def with_listed_split(document: Document) -> Document:
    """Return merged layers with the lists of `split.file` in its place; the same ones without such a file.

    What the file says replaces what an earlier layer says, e.g. the recipe that this one extends.

    Raises:
        UserError: the file cannot be used, a variant names one, or a key beside it says otherwise.
    """
    split = document.tree.get("split")
    name = split.get("file") if isinstance(split, Mapping) else None
    if not isinstance(split, Mapping) or not isinstance(name, str):
        return document
    source, place = document.origins[FILE], f"{document.place(FILE)}: split.file"
    if source.prefix[:1] == ("study",):
        raise UserError(f"{place}: the variants of a study share one file. Set it in [split], or give variants lists.")
    try:
        lists = read_lists(Path(name))
    except UserError as error:
        raise join_mistakes(f"{place}: {line}" for line in str(error).splitlines()) from None
    stated = {"file", *lists, *(("folds", "fold") if "validation" in lists else ())}
    stated |= {"train", "validation"} if "folds" in lists else set()
    kept = {}
    for key, value in split.items():
        later = key != "file" and _is_later(document, ("split", key), source)
        if later and key in stated:
            shown = display_path(Path(name))
            raise UserError(f"{document.place(('split', key))}: split.{key}: {shown} says this too: leave out one.")
        if key not in stated and (later or not isinstance(value, list)):  # other lists go with those that it replaces
            kept[key] = value
    made = document.copy()
    made.tree["split"] = kept | lists
    made.origins.update({("split", key): Source(display_path(Path(name)), None, source.folder) for key in lists})
    return made


def _is_later(document: Document, path: tuple[str, ...], source: Source) -> bool:
    """Return whether a value comes from the same layer as `split.file` or from a later one."""
    own = document.origin(path)
    order = list(document.origins)
    places = [place for place, other in enumerate(order) if other[: len(path)] == path]
    return (own is not None and own.name == source.name) or max(places, default=-1) > order.index(FILE)


def read_lists(path: Path) -> Lists:
    """Return the sets or the folds that a CSV names.

    Columns: `patient` (or `case`), and `set` (train, validation, test) or `fold` (1, 2, ...); with both, `set` says
    which are for the test. Case does not matter; the separator is a comma, a semicolon or a tab.

    Raises:
        UserError: it cannot be read, or contradicts itself; a mistake a line, each with its place.
    """
    name = display_path(path)
    lines = decode(read_bytes(Path(name), MOST_BYTES), name).splitlines()
    head = lines[0] if lines else ""
    delimiter = max(",;\t", key=head.count)
    try:
        rows = list(csv.reader(lines, delimiter=delimiter))
    except csv.Error as error:
        raise UserError(f"{name}: not a CSV: {error}.") from None
    columns = [cell.strip().lower() for cell in rows[0]] if rows else []
    by = next((column for column in ("patient", "case") if column in columns), None)
    if by is None or not {"set", "fold"} & set(columns):
        found = truncate(head) or "nothing"
        raise UserError(f"{name}: needs the columns patient (or case), and set or fold; its first line is: {found}")
    places, mistakes = _places(name, columns, by, rows)
    lists = {} if mistakes else _lists(name, places, mistakes)
    if mistakes:
        raise join_mistakes(mistakes)
    return lists


def _places(
    name: str, columns: list[str], by: str, rows: Iterable[list[str]]
) -> tuple[dict[str, str | int], list[str]]:
    """Return the set or the fold of each patient, and the mistakes."""
    places: dict[str, str | int] = {}
    first: dict[str, int] = {}
    mistakes: list[str] = []
    for line, row in enumerate(rows, 1):
        cells = dict(zip(columns, (cell.strip() for cell in row), strict=False))
        if line == 1 or not any(cells.values()):
            continue
        who, place, wrong = cells.get(by, ""), *_place(cells)
        if not who:
            wrong = f"has no {by}"
        elif not wrong and places.setdefault(who, place) != place:
            wrong = f"{by} {truncate(who)} is in {_shown(place)}, but in {_shown(places[who])} on line {first[who]}"
        if wrong:
            mistakes.append(f"{name}:{line}: {wrong}.")
        first.setdefault(who, line)
    return places, mistakes


def _place(cells: Mapping[str, str]) -> tuple[str | int, str]:
    """Return the set or the fold of a row, and what is wrong with it."""
    text, number = cells.get("set", ""), cells.get("fold", "")
    kind = SETS.get(text.lower(), "")
    if text and not kind:
        return "", f"the set is train, validation or test, got '{truncate(text)}'"
    if not number or kind == "test":
        return kind, "" if kind else "names neither a set nor a fold"
    if not number.isascii() or not number.isdigit() or not 1 <= int(number[:9]) <= 1000:
        return "", f"folds are numbered 1, 2, ..., got '{truncate(number)}'"
    return int(number), "" if kind != "validation" else "names a fold, which is validated in turn, and a set too"


def _shown(place: str | int) -> str:
    return f"fold {place}" if isinstance(place, int) else f"the {place} set"


def _lists(name: str, places: Mapping[str, str | int], mistakes: list[str]) -> Lists:
    """Return the sets or the folds as a recipe writes them; add what is missing to `mistakes`."""
    found: dict[str | int, list[str]] = {}
    for who, place in sorted(places.items()):  # the same split is the same recipe, in any order of the lines
        found.setdefault(place, []).append(who)
    folds = sorted(place for place in found if isinstance(place, int))
    if not folds:
        if "train" not in found:
            mistakes.append(f"{name}: no line has the set train: nothing would be trained on.")
        return {kind: found[kind] for kind in ("train", "validation", "test") if kind in found}
    missing = [number for number in range(1, max(folds[-1], 2) + 1) if number not in found]
    if missing:
        mistakes.append(
            f"{name}: folds are numbered 1 to {max(folds[-1], 2)}, but no line has {first_few(map(str, missing))}."
        )
    others = [who for kind in ("train", "validation") for who in found.get(kind, [])]
    if others:
        mistakes.append(
            f"{name}: {first_few(others)}: has a set, but no fold, as others have. Give each a fold, or test."
        )
    lists: Lists = {"folds": [found.get(number, []) for number in folds]}
    return lists | ({"test": found["test"]} if "test" in found else {})
