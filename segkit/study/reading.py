"""Read a run folder: its trials as planned and as found, finished, unfinished, failed or missing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from segkit.errors import UserError
from segkit.recipe import merge, toml
from segkit.recipe.model import Recipe
from segkit.recipe.sections import Split, Study
from segkit.recipe.source import Source
from segkit.recipe.variants import normalize_label, variants
from segkit.study.plan import trial_folders
from segkit.training.results import History, Keys, Rows, read_cases
from segkit.training.status import Status

FINISHED, MISSING, DAMAGED = "finished", "missing", "damaged"


@dataclass(frozen=True)
class Plan:
    """The planned trials of a study.

    Attributes:
        reference: the variant that the others are compared with, None if the recipe names none.
        trials: (variant, seed, fold, folder relative to the run).
        problem: why the plan is made from the folders on disk instead of the recipe; "" otherwise.
    """

    title: str
    reference: str | None
    trials: list[tuple[str, int, int | None, Path]]
    problem: str = ""


@dataclass(frozen=True)
class TrialRecord:
    """A trial as it is on disk.

    Attributes:
        status: "finished", "failed", "interrupted", "running", "missing" or "damaged" (no readable trial.json).
        info: the content of trial.json.
        curves: the columns of metrics.csv, by name, one number per epoch.
        rows: cases.csv of a finished trial.
        problem: what could not be read; "" otherwise.
    """

    variant: str
    seed: int
    fold: int | None
    folder: Path
    status: str
    info: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)
    rows: Rows | None = None
    problem: str = ""

    @property
    def name(self) -> str:
        """Its name in messages."""
        fold = f", fold {self.fold}" if self.fold else ""
        return f"{self.variant}, seed {self.seed}{fold}"

    @property
    def training_number(self) -> int:
        """Trials are comparable only if they have the same number."""
        return int(self.info.get("training_number", 1))

    @property
    def readable(self) -> bool:
        """Whether it is finished and all of its files could be read."""
        return self.status == FINISHED and not self.problem


def read_plan(run: Path) -> Plan:
    """Return the plan of the run's recipe; if that cannot be read (any more), the trials on disk."""
    try:
        tree, source = merge.read_file(run / "recipe.toml")
        unknown = sorted(tree.keys() - Recipe.model_fields)
        if unknown:
            raise UserError(f"{source.place((unknown[0],))}: {unknown[0]}: not a key of a recipe.")
        study = _section(Study, tree, source)
        found = list(_trials(run, tree, source, study))
    except UserError as error:
        problem = f"The recipe of this run cannot be read now, so missing trials are not listed: {error}"
        return _plan_from_disk(run, problem)
    reference = None if study.compare_with is None else normalize_label(study.compare_with)
    return Plan(str(tree.get("title") or run.name), reference, found)


Model = TypeVar("Model", bound=BaseModel)


def _section(model: type[Model], tree: dict[str, Any], source: Source) -> Model:
    """Validate one table of a recipe alone: the others may need plugins, or libraries that are slow to import."""
    name = model.__name__.lower()
    try:
        return model.model_validate_json(json.dumps(tree.get(name, {}), default=str), strict=True)
    except ValidationError:
        raise UserError(f"{source.place((name,))}: {name}: not as segkit writes it.") from None


def _seed(tree: dict[str, Any], source: Source) -> int:
    train = tree.get("train", {})
    seed = train.get("seed", 1) if isinstance(train, dict) else None
    if type(seed) is not int:
        raise UserError(f"{source.place(('train',))}: train: not as segkit writes it.")
    return seed


def _trials(
    run: Path, tree: dict[str, Any], source: Source, study: Study
) -> Iterator[tuple[str, int, int | None, Path]]:
    """Yield the trials as `plan_trials` does, from the tables alone that determine their number and names."""
    listed = [
        {name: variant[name] for name in ("label", "split", "train") if name in variant}
        | {"drop": [name for name in variant.get("drop", []) if str(name).split(".")[0] in ("split", "train")]}
        for variant in study.variants
    ]
    study = study.model_copy(update={"variants": listed, "compare_with": None})  # the report checks the latter
    document = merge.Document()
    document.merge({name: tree[name] for name in ("study", "split", "train") if name in tree}, source)
    found = [
        (label, _section(Split, layers.tree, source), _seed(layers.tree, source))
        for label, layers in variants(study, _section(Split, tree, source), str(tree.get("title", "")), document)
    ]
    for number, seed, fold, folder in trial_folders(found, study.seeds, run):
        yield found[number][0], seed, fold, folder


def _plan_from_disk(run: Path, problem: str) -> Plan:
    """Return the trials on disk, in the order of the recipe's variants as far as it can be read."""
    tree = stored_recipe(run)
    table = tree.get("study")
    study = table if isinstance(table, dict) else {}
    listed, reference = study.get("variants"), study.get("compare_with")
    listed = listed if isinstance(listed, list) else []
    labels = [normalize_label(str(variant.get("label"))) for variant in listed if isinstance(variant, dict)]
    found = []
    for folder in (path.parent for path in run.glob("*/*/trial.json")):
        match = re.fullmatch(r"(?:fold-(\d+)-)?seed-(\d+)", folder.name)
        if match:
            status = Status.find(folder) or Status()
            label = normalize_label(status.variant or folder.parent.name)
            place = labels.index(label) if label in labels else len(labels)
            trial = label, int(match[2]), int(match[1]) if match[1] else None, folder.relative_to(run)
            natural = [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", folder.parent.name)]
            found.append(((place, natural, trial[2] or 0, trial[1]), trial))
    found.sort(key=lambda pair: pair[0])
    reference = normalize_label(reference) if isinstance(reference, str) else None
    return Plan(str(tree.get("title") or run.name), reference, [trial for _, trial in found], problem)


def stored_recipe(folder: Path) -> dict[str, Any]:
    """Return the recipe in the folder of a run or a trial; {} if it cannot be read."""
    try:
        return toml.load(folder / "recipe.toml")
    except UserError:
        return {}


def read_trial(
    run: Path, variant: str, seed: int, fold: int | None, folder: Path, known: dict[bytes, Keys]
) -> TrialRecord:
    """Read a trial as planned; its record names what is missing or damaged. For `known` see `read_cases`."""
    path = run / folder
    found, problem, history, rows = Status(), "", History(), None
    try:
        if os.path.lexists(path / "trial.json"):
            found = Status.read(path)
        status = found.status if found.model_fields_set else MISSING
    except UserError as error:
        status, problem = DAMAGED, _reason(path / "trial.json", error)
    try:
        if (path / "metrics.csv").exists():
            history = History.read(path / "metrics.csv")
        if status == FINISHED:
            rows = read_cases(path / "cases.csv", known)
    except ValueError as error:
        problem = problem or str(error)
    curves = {name: history.column(name) for name in history.names}
    return TrialRecord(variant, seed, fold, path, status, found.known(), curves, rows, problem)


def _reason(path: Path, error: UserError) -> str:
    reason = str(error).removeprefix(f"{path}: ").removeprefix("cannot be read: ").removesuffix(".")
    return f"{path.name} is {reason}" if reason.startswith("damaged") else f"{path.name} cannot be read: {reason}"
