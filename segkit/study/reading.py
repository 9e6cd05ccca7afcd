"""What a run folder holds: its trials as planned and as found, whole, unfinished, failed or missing."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from segkit import files, toml
from segkit.errors import UserError

FINISHED, MISSING = "finished", "missing"
DAMAGED = "damaged"
MAX_TABLE = 2**30  # bytes


class CaseValue(NamedTuple):
    """One row of cases.csv; `value` is NaN where the metric is undefined."""

    case: str
    patient: str
    channel: str
    metric: str
    value: float
    truth_pixels: int
    predicted_pixels: int


@dataclass(frozen=True)
class Planned:
    """A study as its recipe says.

    Attributes:
        title: the question.
        reference: the variant that the others are compared with, None where the recipe names none.
        trials: (variant, seed, fold, folder relative to the run).
        problem: why the plan is only what is on disk; "" otherwise.
    """

    title: str
    reference: str | None
    trials: list[tuple[str, int, int | None, Path]]
    problem: str = ""


@dataclass(frozen=True)
class TrialRecord:
    """One trial as it is on disk.

    Attributes:
        status: "finished", "failed", "interrupted", "running", "missing" or "damaged" (no readable trial.json).
        info: what trial.json says.
        curves: the columns of metrics.csv, by name, one number an epoch.
        cases: the rows of cases.csv of a finished trial.
        problem: what of it could not be read; "" otherwise.
    """

    variant: str
    seed: int
    fold: int | None
    folder: Path
    status: str
    info: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)
    cases: list[CaseValue] = field(default_factory=list)
    problem: str = ""

    @property
    def name(self) -> str:
        """How messages call it."""
        fold = f", fold {self.fold}" if self.fold else ""
        return f"{self.variant}, seed {self.seed}{fold}"


def planned(run: Path) -> Planned:
    """Return what the run's recipe plans; where it cannot be read (any more), what is on disk."""
    from segkit.recipe import compose, validate
    from segkit.study.plan import trials

    try:
        document = compose(run / "recipe.toml")
        recipe = validate(document)
        found = [(trial.variant, trial.seed, trial.fold, trial.folder) for trial in trials(recipe, document)]
    except UserError as error:
        problem = f"The recipe of this run cannot be read now, so that missing trials are not seen: {error}"
        return _unplanned(run, problem)
    return Planned(recipe.title or run.name, recipe.study.compare_with, found)


def _unplanned(run: Path, problem: str) -> Planned:
    """Return the trials that are on disk, with what the recipe's plain text says of them."""
    try:
        tree = toml.load(run / "recipe.toml")
    except UserError:
        tree = {}
    study = _table(tree.get("study"))
    listed = study.get("variants")
    labels = [_table(variant).get("label") for variant in listed] if isinstance(listed, list) else []
    found = []
    for path in sorted(run.glob("*/*/trial.json"), key=lambda path: [_number(part) for part in path.parts]):
        match = re.fullmatch(r"(?:fold-(\d+)-)?seed-(\d+)", path.parent.name)
        if match:
            label = str(_info(path)[0].get("variant", path.parent.parent.name))
            fold = int(match[1]) if match[1] else None
            found.append((label, int(match[2]), fold, path.parent.relative_to(run)))
    found.sort(key=lambda trial: labels.index(trial[0]) if trial[0] in labels else len(labels))
    return Planned(str(tree.get("title") or run.name), study.get("compare_with"), found, problem)


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(text: str) -> list[tuple[int, str]]:
    """Return a key that sorts "seed-10" after "seed-9"."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def _info(path: Path) -> tuple[dict[str, Any], str]:
    """Return what a trial.json says, and what is wrong with it; "" where nothing is, or where there is none."""
    if not os.path.lexists(path):
        return {}, ""
    try:
        found = files.read_json(path)
    except UserError as error:
        return {}, _unread(path, error)
    if not isinstance(found, dict):
        return {}, f"{path.name} cannot be read: it is no table of names and values"
    info = {name: value for name, value in found.items() if value is not None}
    wrong = [name for name, sound in _SOUND.items() if name in info and not sound(info[name])]
    if wrong:
        return {}, f"{path.name} is damaged: {', '.join(wrong)} is not what a training writes"
    return info, ""


def _unread(path: Path, error: UserError) -> str:
    reason = str(error).removeprefix(f"{path}: ").removeprefix("cannot be read: ")
    return f"{path.name} cannot be read: {reason.removesuffix('.')}"


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


_SOUND: dict[str, Callable[[Any], bool]] = {
    "status": lambda value: isinstance(value, str),
    "seconds": lambda value: isinstance(value, int | float),
    "warnings": lambda value: isinstance(value, list),
    "data": _is_table,
    "versions": _is_table,
    "split": lambda value: _is_table(value) and all(isinstance(names, list) for names in value.values()),
    "first_batch": lambda value: isinstance(value, list) and all(_is_table(term) and "term" in term for term in value),
}


def read_trial(run: Path, variant: str, seed: int, fold: int | None, folder: Path) -> TrialRecord:
    """Return a trial as it is on disk; whatever is not there or damaged is said in the record."""
    path = run / folder
    info, problem = _info(path / "trial.json")
    status = DAMAGED if problem else info.get("status", MISSING)
    curves: dict[str, list[float]] = {}
    cases: list[CaseValue] = []
    try:
        if (path / "metrics.csv").exists():
            curves = _read_curves(path / "metrics.csv")
        if status == FINISHED:
            cases = _read_cases(path / "cases.csv")
    except ValueError as error:
        problem = problem or str(error)
    return TrialRecord(variant, seed, fold, path, status, info, curves, cases, problem)


def _rows(path: Path, least: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return a table's names and rows, each as long as the names; ValueError says where that is not so."""
    try:
        text = files.read_text(path, MAX_TABLE)
        reader = csv.reader(io.StringIO(text, newline=""))
        names = next(reader, [])
        rows = [(reader.line_num, row) for row in reader]
    except UserError as error:
        raise ValueError(_unread(path, error)) from error
    except csv.Error as error:
        raise ValueError(f"{path.name} is damaged: {error}") from error
    if not names:
        raise ValueError(f"{path.name} is damaged: it is empty")
    missing = [name for name in least if name not in names]
    if missing:
        raise ValueError(f"{path.name} is damaged: it has no column {', '.join(missing)}")
    if not text.endswith("\n"):
        raise ValueError(f"{path.name} is damaged: it ends within line {len(rows) + 1}")
    for line, row in rows:
        if len(row) != len(names):
            raise ValueError(f"{path.name} is damaged: line {line} has {len(row)} of {len(names)} values")
    return names, [row for _, row in rows]


def _number_at(path: Path, row: int, text: str) -> float:
    """Return a value of a table, NaN for an empty one."""
    try:
        return float(text) if text else math.nan
    except ValueError:
        raise ValueError(f"{path.name} is damaged: line {row + 2} has {text!r} instead of a number") from None


def _read_curves(path: Path) -> dict[str, list[float]]:
    names, rows = _rows(path, ("epoch",))
    return {name: [_number_at(path, i, row[at]) for i, row in enumerate(rows)] for at, name in enumerate(names)}


def _read_cases(path: Path) -> list[CaseValue]:
    names, rows = _rows(path, CaseValue._fields)
    case, patient, channel, metric, *numbers = (names.index(name) for name in CaseValue._fields)
    found = []
    for i, row in enumerate(rows):
        value, truth, predicted = (_number_at(path, i, row[at]) for at in numbers)
        if not (math.isfinite(truth) and math.isfinite(predicted)):
            raise ValueError(f"{path.name} is damaged: line {i + 2} has no number of pixels")
        found.append(CaseValue(row[case], row[patient], row[channel], row[metric], value, int(truth), int(predicted)))
    return found
