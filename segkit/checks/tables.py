"""Guess which table of a folder lists its images and masks, and in which columns, and which one its sets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from segkit.checks.guess import Guess
from segkit.checks.layouts import is_mask
from segkit.components.datasets.formats.kinds import IMAGES, volume
from segkit.components.datasets.reading import inside
from segkit.components.datasets.sheet import Sheet, read_sheet
from segkit.errors import UserError
from segkit.recipe import toml
from segkit.recipe.listed_split import read_lists

MOST_TABLES = 5  # that are opened
LINES = 50  # that are looked at
PATIENT = re.compile(r"(patient|subject|person|pid)s?([-_ ]?(id|name|number))?", re.IGNORECASE)


def guess_table(root: Path, files: Iterable[str]) -> Guess | None:
    """Return how the dataset `table` reads the folder; None if no table at its top names images and masks."""
    for file in _tables(files):
        with suppress(UserError):  # another table, which no reader reads
            path = inside(root, root / file)
            guess = _guess(read_sheet(path, []))
            if guess:
                return guess
    return None


def split_lines(root: Path, files: Iterable[str]) -> list[str]:
    """Return commented lines of a recipe that read sets or folds from a table at the top of the folder."""
    for file in _tables(files):
        with suppress(UserError):  # another table
            path = inside(root, root / file)
            named = ", ".join(read_lists(path))
            return [
                f"# [split]  # this table names patients for {named}. Use it, or they are drawn by lot",
                f"# file = {toml.format_value(str(path))}",
            ]
    return []


def _tables(files: Iterable[str]) -> list[str]:
    return [file for file in files if "/" not in file and file.lower().endswith((".csv", ".tsv"))][:MOST_TABLES]


def _guess(sheet: Sheet) -> Guess | None:
    columns = [column for column in sheet.columns if _names_files(sheet, column)]
    masks = [column for column in columns if is_mask(column)]
    images = [column for column in columns if column not in masks]
    if not images or not masks:
        return None
    parameters: dict[str, Any] = {"file": str(sheet.path)}
    parameters |= {"image": images[0] if len(images) == 1 else images} if images != ["image"] else {}
    parameters |= {"mask": masks[0] if len(masks) == 1 else {name: name for name in masks}} if masks != ["mask"] else {}
    patient = next((column for column in sheet.columns if PATIENT.fullmatch(column)), None)
    parameters |= {"patient": patient} if patient and patient != "patient" else {}
    truth = [sheet.path.parent / row.cells[masks[0]] for row in sheet.rows if row.cells[masks[0]]]
    return Guess("table", parameters, tuple(truth) if len(masks) == 1 else ())


def _names_files(sheet: Sheet, column: str) -> bool:
    """Return whether the cells of a column are names of images, but for empty ones."""
    cells = [row.cells[column] for row in sheet.rows[:LINES] if row.cells[column]]
    return bool(cells) and all(cell.lower().endswith(IMAGES) or volume(cell) for cell in cells)
