"""Whether a run folder is whole and tells the truth: integrity, recipe against metrics, checkpoint against table."""

from __future__ import annotations

import csv
import io
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import segkit
from segkit import files
from segkit.errors import UserError, counted
from segkit.locks import is_locked
from segkit.recipe import toml
from segkit.recipe.identity import TRAINING_NUMBER, differences, not_resumable, older, refilled, training_identity
from segkit.recipe.model import Recipe
from segkit.testing.findings import Finding
from segkit.training.events import ENDED

NEEDED = ("recipe.toml", "metrics.csv", "cases.csv", "best.safetensors", "last.safetensors")


def check_run(run: Path, *, evaluate: bool = True) -> Iterator[Finding]:
    """Yield what is wrong with a run folder; nothing where everything is as it should be.

    Args:
        run: the folder, e.g. runs/l1l2.
        evaluate: evaluate each best checkpoint again and compare the rows with cases.csv, byte by byte.
    """
    trials = sorted(path.parent for path in run.glob("*/*/trial.json") if not path.parent.name.startswith("."))
    if not trials:
        yield Finding("fault", "holds no trial. A run folder has VARIANT/seed-N/trial.json in it.", str(run))
        return
    for folder in trials:
        try:
            yield from _trial(folder, evaluate)
        except UserError as error:
            yield Finding("fault", str(error), str(folder))
    yield from _report(run)


def _trial(folder: Path, evaluate: bool) -> Iterator[Finding]:
    """Check one trial's files against each other."""
    from segkit.training import checkpoint

    status = _json(folder / "trial.json")
    if status.get("status") != "finished":
        said = f": {status['error']}" if status.get("error") else ""
        state = f"is {status.get('status')}{said}"
        if status.get("status") == "running" and not is_locked(folder.parents[1]):
            state = ENDED
        yield Finding("note", f"{state.rstrip('.')}. `segkit run` goes on with it.", str(folder))
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing and status.get("status") == "finished":
        yield Finding("fault", f"finished, but {', '.join(missing)} is not there. Train it anew.", str(folder))
    recipe = _recipe(folder)
    number = status.get("training_number", 1)
    if number != TRAINING_NUMBER:
        yield Finding("note", f"{older(number)}.", str(folder))
    elif _by_this_version(status) and training_identity(recipe) != status.get("identity"):
        yield Finding(
            "fault", "differs from the recipe that trial.json was written for, or a plugin has changed since.",
            str(folder / "recipe.toml"),
        )  # fmt: skip
    rows = _table(folder / "metrics.csv")
    yield from _metrics(folder, rows, status)
    for name in ("best", "last"):
        path = folder / f"{name}.safetensors"
        if not path.is_file():
            continue
        meta = checkpoint.load(path).meta  # raises where the file is damaged
        changed = not_resumable(differences(refilled(meta["recipe"], str(path)), recipe.dump()))
        if number != TRAINING_NUMBER:
            changed.pop("train.threads", None)  # which the recipes of then did not state, and the checkpoints did
        if changed:
            what = "; ".join(f"{key} {text}" for key, text in changed.items())
            yield Finding("fault", f"comes from another trial: {what}.", str(path))
        yield from _against_metrics(path, meta, rows)
    if evaluate and status.get("status") == "finished" and not missing and number == TRAINING_NUMBER:
        yield from _again(folder, recipe, status)


def _json(path: Path) -> dict[str, Any]:
    found = files.read_json(path)
    if not isinstance(found, dict):
        raise UserError(f"{path}: damaged: no JSON table.")
    return found


def _recipe(folder: Path) -> Recipe:
    path = folder / "recipe.toml"
    return Recipe.from_dict(toml.load(path), str(path))


def _by_this_version(status: dict[str, Any]) -> bool:
    """Return whether what trial.json says was computed with today's keys and defaults."""
    written = status.get("versions")
    return isinstance(written, dict) and written.get("segkit") == segkit.__version__


def _table(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    rows = list(csv.DictReader(io.StringIO(files.read_text(path), newline="")))
    if any(None in row or None in row.values() for row in rows):
        raise UserError(f"{path}: damaged: a row has more or fewer cells than the header.")
    return rows


def _metrics(folder: Path, rows: list[dict[str, str]], status: dict[str, Any]) -> Iterator[Finding]:
    place = str(folder / "metrics.csv")
    numbers, epochs = [row.get("epoch") for row in rows], counted(len(rows), "epoch")
    if numbers != [str(number) for number in range(1, len(rows) + 1)]:
        yield Finding("fault", "its epochs are not 1, 2, 3, ...", place)
    if len(rows) != status.get("epochs_done"):
        yield Finding("fault", f"has {epochs}, trial.json says {status.get('epochs_done')}.", place)
    if status.get("status") == "finished" and not status.get("limited") and len(rows) != status.get("epochs"):
        yield Finding("fault", f"has {epochs}, the recipe asks for {status.get('epochs')}.", place)


def _against_metrics(path: Path, meta: dict[str, Any], rows: list[dict[str, str]]) -> Iterator[Finding]:
    """Compare what a checkpoint says of its epoch with that epoch's row."""
    epoch = meta["epoch"] if meta["kind"] == "best" else meta["epoch"] - 1
    if not 1 <= epoch <= len(rows):
        if meta["kind"] == "best":
            yield Finding("fault", f"is of epoch {epoch}, which metrics.csv does not have.", str(path))
        return
    for name, value in meta["metrics"].items():
        cell = rows[epoch - 1].get(name, "")
        number = math.nan if cell == "" else float(cell)
        if not (number == value or (value is None and not math.isfinite(number))):
            yield Finding("fault", f"says {name} = {value}, metrics.csv says {cell} for epoch {epoch}.", str(path))


def _again(folder: Path, recipe: Recipe, status: dict[str, Any]) -> Iterator[Finding]:
    """Evaluate the best checkpoint again and compare with cases.csv."""
    from segkit.api import evaluate
    from segkit.training.assembly import load_data
    from segkit.training.trial import write_cases

    _, printed = load_data(recipe.data)
    if printed != status["data"]["fingerprint"]:
        yield Finding("note", "the data are others than it was trained on: not evaluated again.", str(folder))
        return
    rows = evaluate(folder / "best.safetensors")
    if status.get("limited"):
        kept = set(status["split"]["validation"])
        rows = [row for row in rows if row.case in kept]
    with tempfile.TemporaryDirectory() as name:
        again = Path(name) / "cases.csv"
        write_cases(again, rows)
        if again.read_bytes() == (folder / "cases.csv").read_bytes():
            return
        before, now = _table(folder / "cases.csv"), _table(again)
    differing = sum(one != other for one, other in zip(before, now, strict=False)) + abs(len(before) - len(now))
    yield Finding(
        "fault", f"{differing} of {len(before)} rows differ from what best.safetensors gives when evaluated again "
        "on this machine.", str(folder / "cases.csv"),
    )  # fmt: skip


def _report(run: Path) -> Iterator[Finding]:
    """Compare summary.csv with what the trials say."""
    from segkit.study.summary import COLUMNS, summarize, to_csv

    missing = [name for name in ("summary.csv", "report.md", "report.html") if not (run / name).is_file()]
    if missing:
        yield Finding("note", f"{', '.join(missing)} is not there: `segkit report {run}` makes it.", str(run))
        return
    written, place = files.read_text(run / "summary.csv"), str(run / "summary.csv")
    columns = written.partition("\n")[0].split(",")
    if columns != list(COLUMNS) and {"variant", "metric", "channel", "verdict", "mean"} <= set(columns):
        yield Finding(
            "note", f"has the columns of another version of segkit. `segkit report {run}` makes it anew.", place
        )
    elif written != to_csv(summarize(run)):
        yield Finding("fault", f"does not agree with the trials. `segkit report {run}` makes it anew.", place)
