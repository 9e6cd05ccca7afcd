"""Check a run folder: complete and undamaged files that agree with each other and with a new evaluation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from segkit import files
from segkit.data.cache import DataCache, existing_cache
from segkit.errors import UserError, counted
from segkit.recipe import toml
from segkit.recipe.identity import (
    TRAINING_NUMBER,
    differences,
    incomparable_note,
    not_resumable,
    training_identity,
    with_current_defaults,
)
from segkit.recipe.model import Recipe
from segkit.study.sharing import is_worked_on
from segkit.testing.findings import Finding
from segkit.training.results import HEADER, OLD_HEADER, TEST, VALIDATION, History, cases_text
from segkit.training.status import ENDED, Status

NEEDED = ("recipe.toml", "metrics.csv", "cases.csv", "best.safetensors", "last.safetensors")


def check_run(run: Path) -> Iterator[Finding]:
    """Yield what is wrong with a run folder; each best checkpoint is evaluated again and compared with cases.csv."""
    trials = sorted(path.parent for path in run.glob("*/*/trial.json") if not path.parent.name.startswith("."))
    cache = DataCache(existing_cache(run.parent))
    if not trials:
        yield Finding("fault", "holds no trials. A run folder contains VARIANT/seed-N/trial.json.", str(run))
        return
    for folder in trials:
        try:
            yield from _check_trial(folder, cache)
        except UserError as error:
            yield Finding("fault", str(error), str(folder))
    yield from _check_report(run)


def _check_trial(folder: Path, cache: DataCache) -> Iterator[Finding]:
    from segkit.training import checkpoint

    status = Status.read(folder)
    finished = status.status == "finished"
    if not finished:
        state = f"is {status.status}" + (f": {status.error}" if status.error else "")
        if status.status == "running" and not is_worked_on(folder):
            state = ENDED
        yield Finding("note", f"{state.rstrip('.')}. `segkit run` resumes it.", str(folder))
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing and finished:
        yield Finding("fault", f"finished, but without {', '.join(missing)}. Train it again.", str(folder))
    recipe = Recipe.from_dict(toml.load(folder / "recipe.toml"), str(folder / "recipe.toml"))
    number = status.training_number
    if number != TRAINING_NUMBER:
        yield Finding("note", f"{incomparable_note(number)}.", str(folder))
    elif status.versions.get("segkit") == version("segkit") and training_identity(recipe) != status.identity:
        text = "differs from the recipe that trial.json was written for, or a plugin has changed since."
        yield Finding("fault", text, str(folder / "recipe.toml"))
    try:
        history = History.read(folder / "metrics.csv") if (folder / "metrics.csv").is_file() else History()
    except ValueError as error:
        raise UserError(f"{folder}: {error}.") from None
    whole = status.status in ("finished", "interrupted")  # else one file may be ahead of another
    if whole:
        yield from _check_metrics(folder, history, status)
    for name in ("best", "last"):
        path = folder / f"{name}.safetensors"
        if not path.is_file():
            continue
        meta = checkpoint.load(path).meta  # raises if the file is damaged
        changed = not_resumable(differences(with_current_defaults(meta["recipe"], str(path)), recipe.dump()))
        if number != TRAINING_NUMBER:
            changed.pop("train.threads", None)  # recorded in the checkpoints, but not in the recipes of that version
        if changed:
            what = "; ".join(f"{key} {text}" for key, text in changed.items())
            yield Finding("fault", f"comes from another trial: {what}.", str(path))
        if finished and name == "best" and status.best_epoch not in (None, meta["epoch"]):
            text = f"holds the weights of epoch {meta['epoch']}, trial.json says {status.best_epoch}."
            yield Finding("fault", text, str(path))
        if finished or (whole and meta["epoch"] <= len(history)):
            yield from _compare_with_metrics(path, meta, history)
    if finished and not missing and number == TRAINING_NUMBER:
        yield from _reevaluate(folder, recipe, status, cache)


def _check_metrics(folder: Path, history: History, status: Status) -> Iterator[Finding]:
    place, done = str(folder / "metrics.csv"), len(history)
    if history.column("epoch") != list(range(1, done + 1)):
        yield Finding("fault", "its epochs are not 1, 2, 3, ...", place)
    if done != status.epochs_done:
        yield Finding("fault", f"has {counted(done, 'epoch')}, trial.json says {status.epochs_done}.", place)
    cut_short = status.limited or status.stopped_early
    if status.status == "finished" and not cut_short and done != status.epochs:
        yield Finding("fault", f"has {counted(done, 'epoch')}, the recipe asks for {status.epochs}.", place)


def _compare_with_metrics(path: Path, meta: dict[str, Any], history: History) -> Iterator[Finding]:
    """Compare a checkpoint's metrics with its epoch's row of metrics.csv."""
    epoch = meta["epoch"] if meta["kind"] == "best" else meta["epoch"] - 1
    if not 1 <= epoch <= len(history):
        if meta["kind"] == "best":
            yield Finding("fault", f"is of epoch {epoch}, which metrics.csv does not have.", str(path))
        return
    row = history[epoch - 1]
    for name, value in meta["metrics"].items():
        number = row.get(name, math.nan)
        if not (number == value or (value is None and not math.isfinite(number))):
            other = "nothing" if math.isnan(number) else number
            yield Finding("fault", f"says {name} = {value}, metrics.csv says {other} for epoch {epoch}.", str(path))


def _reevaluate(folder: Path, recipe: Recipe, status: Status, cache: DataCache) -> Iterator[Finding]:
    """Evaluate the best checkpoint again and compare with cases.csv."""
    from segkit.api import evaluate

    if cache.read(recipe.data, recipe.intensity).fingerprint != status.data.fingerprint:
        yield Finding("note", "the data differ from those it was trained on: not evaluated again.", str(folder))
        return
    split = status.split or {}
    sets = [VALIDATION, *([TEST] if split.get(TEST) else [])]
    rows = [row for name in sets for row in evaluate(folder / "best.safetensors", on=name, cache=cache)]
    if status.limited and status.split is not None:
        kept = {name for names in (split[VALIDATION], split.get(TEST, [])) for name in names}
        rows = [row for row in rows if row.case in kept]
    text = files.read_text(folder / "cases.csv")
    header = OLD_HEADER if text.startswith(",".join(OLD_HEADER)) else HEADER
    written, again = text.splitlines(), cases_text(rows, header).splitlines()
    if again == written:
        return
    differing = sum(one != other for one, other in itertools.zip_longest(written[1:], again[1:]))
    text = f"{differing} of {len(written) - 1} rows differ from a new evaluation of best.safetensors on this machine."
    yield Finding("fault", text, str(folder / "cases.csv"))


def _check_report(run: Path) -> Iterator[Finding]:
    from segkit.study.summary import COLUMNS, summarize, to_csv

    missing = [name for name in ("summary.csv", "report.md", "report.html") if not (run / name).is_file()]
    if missing:
        yield Finding("note", f"missing: {', '.join(missing)}. `segkit report {run}` makes it.", str(run))
        return
    written, place = files.read_text(run / "summary.csv"), str(run / "summary.csv")
    columns = written.partition("\n")[0].split(",")
    if columns != list(COLUMNS) and {"variant", "metric", "channel", "verdict", "mean"} <= set(columns):
        yield Finding(
            "note", f"has the columns of another version of segkit. `segkit report {run}` makes it again.", place
        )
    elif written != to_csv(summarize(run)):
        yield Finding("fault", f"does not agree with the trials. `segkit report {run}` makes it again.", place)
