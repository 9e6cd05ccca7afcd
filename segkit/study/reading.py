"""What a run folder holds: its trials as planned and as found, whole, unfinished, failed or missing."""

from __future__ import annotations

import csv
import json
import math
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from segkit.errors import UserError

FINISHED, MISSING = "finished", "missing"


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
        status: "finished", "failed", "interrupted", "running" or "missing".
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
        tree = tomllib.loads((run / "recipe.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        tree = {}
    study = tree.get("study", {})
    labels = [variant.get("label") for variant in study.get("variants", [])]
    found = []
    for path in sorted(run.glob("*/*/trial.json"), key=lambda path: [_number(part) for part in path.parts]):
        match = re.fullmatch(r"(?:fold-(\d+)-)?seed-(\d+)", path.parent.name)
        if match:
            label = str(_json(path).get("variant", path.parent.parent.name))
            fold = int(match[1]) if match[1] else None
            found.append((label, int(match[2]), fold, path.parent.relative_to(run)))
    found.sort(key=lambda trial: labels.index(trial[0]) if trial[0] in labels else len(labels))
    return Planned(tree.get("title") or run.name, study.get("compare_with"), found, problem)


def _number(text: str) -> list[tuple[int, str]]:
    """Return a key that sorts "seed-10" after "seed-9"."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_trial(run: Path, variant: str, seed: int, fold: int | None, folder: Path) -> TrialRecord:
    """Return a trial as it is on disk; whatever is not there or damaged is said in the record."""
    path = run / folder
    info = _json(path / "trial.json")
    status = str(info.get("status", MISSING))
    curves: dict[str, list[float]] = {}
    cases: list[CaseValue] = []
    problem = ""
    try:
        if (path / "metrics.csv").exists():
            curves = _read_curves(path / "metrics.csv")
        if status == FINISHED:
            cases = _read_cases(path / "cases.csv")
    except (OSError, ValueError, KeyError, csv.Error) as error:
        problem = f"cannot be read: {error}"
    return TrialRecord(variant, seed, fold, path, status, info, curves, cases, problem)


def _read_curves(path: Path) -> dict[str, list[float]]:
    with path.open(newline="", encoding="utf-8") as file:
        names, *rows = csv.reader(file)
    return {name: [float(row[i]) if row[i] else math.nan for row in rows] for i, name in enumerate(names)}


def _read_cases(path: Path) -> list[CaseValue]:
    with path.open(newline="", encoding="utf-8") as file:
        return [
            CaseValue(
                row["case"],
                row["patient"],
                row["channel"],
                row["metric"],
                float(row["value"]) if row["value"] else math.nan,
                int(row["truth_pixels"]),
                int(row["predicted_pixels"]),
            )
            for row in csv.DictReader(file)
        ]
