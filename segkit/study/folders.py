"""The state of a study's trials in its run folder, and finished trials of other run folders that can be reused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from segkit import files
from segkit.data.cache import DataCache
from segkit.errors import UserError, first_few
from segkit.recipe import toml
from segkit.recipe.identity import (
    HARDWARE,
    TRAINING_NUMBER,
    differences,
    evaluation_identity,
    incomparable_note,
    not_resumable,
    training_identity,
    with_current_defaults,
)
from segkit.recipe.model import Recipe
from segkit.study.hardware import REMEDY
from segkit.study.reading import stored_recipe
from segkit.training import checkpoint
from segkit.training.status import ENDED, Status
from segkit.training.trial import Trial

RESULTS = ("metrics.csv", "cases.csv", "best.safetensors")

HARDWARE_KEYS = {f"train.{name}" for name in HARDWARE}
TRAIN_AGAIN = "Use --fresh to train it again, or --name for another run folder."
DATA_CHANGED = (
    "the data have changed since it was trained (their fingerprint differs), and a study compares trials of the same "
    "data. Restore the data, train again with --fresh, or choose another run folder with --name."
)

State = Literal["new", "open", "finished", "failed", "lost", "other"]


@dataclass(frozen=True)
class Existing:
    """The state of a trial's folder.

    Attributes:
        trial: as planned; with the hardware settings of its folder, if these may be mixed.
        state: "new": nothing there; "open": to be resumed or evaluated again; "finished"; "failed"; "lost": finished,
            but its weights are gone; "other": the folder holds another trial.
        reason: a line for the log, or for "other" the message; "" if there is nothing to say.
        fingerprint: of its data as they are now, None if they were not read.
    """

    trial: Trial
    state: State
    reason: str = ""
    fingerprint: str | None = None


def inspect_folder(trial: Trial, *, mix: bool) -> Existing:
    """Return the state of a trial's folder; `mix` allows other hardware settings there."""
    trial = _with_known_weights(trial)
    folder = trial.path
    status = Status.find(folder)
    if status is None:
        return Existing(trial, "new")
    if status.training_number != TRAINING_NUMBER:
        return Existing(trial, "other", f"{incomparable_note(status.training_number)}. {TRAIN_AGAIN}")
    identity, evaluation = stored_identities(folder, status)
    if identity != trial.identity:
        changed = _changed_keys(folder, trial.recipe)
        settings = changed.keys() & HARDWARE_KEYS
        if settings and mix:
            trial = _with_hardware_of_folder(trial)
        if identity != trial.identity:
            return _changed_trial(trial, status, changed, set() if mix else settings)
    if status.status != "finished":
        return Existing(trial, "failed" if status.status == "failed" else "open", _resume_note(folder, status))
    missing = _missing_results(folder)
    if "best.safetensors" in missing or not _is_readable(folder):
        problem = "gone" if "best.safetensors" in missing else "damaged"
        return Existing(trial, "lost", f"best.safetensors of this finished trial is {problem}: it is trained again")
    gone = [name for name in (*RESULTS, "last.safetensors") if not (folder / name).is_file()]
    if len(gone) > 1 and "last.safetensors" in gone:
        return Existing(trial, "lost", f"{' and '.join(gone)} of this finished trial are gone: it is trained again")
    if missing:
        return Existing(trial, "open", f"{' and '.join(missing)} of this finished trial is gone: written again")
    if evaluation != trial.evaluation:
        return Existing(trial, "open", "another evaluation than before: evaluated again, not trained")
    return Existing(trial, "finished")


def _changed_trial(trial: Trial, status: Status, changed: dict[str, str], settings: set[str]) -> Existing:
    """Return whether a trial can be resumed from a folder whose recipe differs in `changed`, `settings` among it."""
    fewer_epochs = trial.recipe.train.epochs < status.epochs_done
    other = {key: text for key, text in changed.items() if key not in HARDWARE_KEYS}
    if changed and not settings and not not_resumable(other) and not fewer_epochs:
        return Existing(trial, "open", _resume_note(trial.path, status))
    what = "; ".join(f"{key} {text}" for key, text in changed.items())
    if settings and settings == changed.keys():
        return Existing(trial, "other", f"{what}. {REMEDY}")
    what = what or "the source of a plugin it uses has changed"
    return Existing(trial, "other", f"holds another trial: {what}. {TRAIN_AGAIN}")


def _with_known_weights(trial: Trial) -> Trial:
    """Return a trial with the hash of the weights that it has begun with, where their file is gone."""
    train = trial.recipe.train
    if train.init_from is None or train.init_sha256 is not None:
        return trial
    stored = stored_recipe(trial.path).get("train", {})
    known = {"init_sha256": stored.get("init_sha256")} if stored.get("init_from") == str(train.init_from) else {}
    return replace(trial, recipe=trial.recipe.model_copy(update={"train": train.model_copy(update=known)}))


def _with_hardware_of_folder(trial: Trial) -> Trial:
    train = stored_recipe(trial.path).get("train", {})
    known = {name: train[name] for name in HARDWARE if name in train}
    return replace(trial, recipe=trial.recipe.model_copy(update={"train": trial.recipe.train.model_copy(update=known)}))


def _resume_note(folder: Path, status: Status) -> str:
    if status.status != "running":
        return ""
    resumes = (folder / "last.safetensors").is_file()
    return f"its process {ENDED}; {'resumes from its last save' if resumes else 'begins again: nothing was saved'}"


def stored_identities(folder: Path, status: Status) -> tuple[str, str]:
    """Return the training and evaluation identity of a trial on disk, filled with the current defaults."""
    stored = str(status.identity), str(status.evaluation)
    if status.training_number != TRAINING_NUMBER or status.plugins is None:
        return stored
    try:
        recipe = Recipe.from_dict(toml.load(folder / "recipe.toml"), str(folder / "recipe.toml"))
        hashes = status.plugins
        return training_identity(recipe, hashes["training"]), evaluation_identity(recipe, hashes["evaluation"])
    except (UserError, ValueError, KeyError, TypeError):
        return stored


def with_data_checked(found: Existing, fingerprints: Mapping[str, str]) -> Existing:
    """Return the state of a trial's folder: "other" if it was trained on other data; see `fingerprint_data`."""
    fingerprint = fingerprints.get(_data_key(found.trial.recipe))
    status = Status.find(found.trial.path)
    before = status.data.fingerprint if status is not None else None
    if found.state not in ("open", "finished", "failed") or None in (before, fingerprint) or before == fingerprint:
        return replace(found, fingerprint=fingerprint)
    return Existing(found.trial, "other", DATA_CHANGED, fingerprint)


def _data_key(recipe: Recipe) -> str:
    return json.dumps(recipe.dump()["data"], sort_keys=True)


def fingerprint_data(recipes: Sequence[Recipe], cache: DataCache) -> tuple[dict[str, str], list[str]]:
    """Read the data of recipes; return their fingerprints, for `with_data_checked`, and every mistake once.

    A mistake here keeps the whole study from being trained. Other errors are left to the trials, which report them.
    """
    from segkit.training.setup import read_and_split

    found: dict[str, str] = {}
    mistakes: list[str] = []
    distinct = {
        recipe.model_dump_json(include={"data", "intensity", "split", "channels"}): recipe for recipe in recipes
    }
    for recipe in distinct.values():
        try:
            found[_data_key(recipe)] = read_and_split(recipe, cache)[0].fingerprint
        except (UserError, OSError) as error:
            mistakes.append(str(error))
        except Exception:
            continue
    return found, mistakes


def refuse_conflicts(existing: Sequence[Existing]) -> None:
    """Raise if folders hold other trials than planned; one line for all with the same reason."""
    folders: dict[str, list[str]] = {}
    for found in existing:
        if found.state == "other":
            folders.setdefault(found.reason, []).append(str(found.trial.path))
    if folders:
        raise UserError("\n".join(f"{first_few(paths, 1)}: {reason}" for reason, paths in folders.items()))


def _missing_results(folder: Path) -> list[str]:
    """Return the result files of a finished trial that are missing or incomplete."""
    return [name for name in RESULTS if not (folder / name).is_file() or not _is_complete(folder / name)]


def _is_complete(path: Path) -> bool:
    """Return whether a table ends with a line feed, or whether another file is not empty."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 1))
        return file.read() == b"\n" if path.suffix == ".csv" else size > 0


def is_finished(trial: Trial, fingerprint: str | None) -> bool:
    """Return whether a trial's folder holds its weights, trained to the end on the same data."""
    status = _status_if_whole(trial.path)
    if status is None or stored_identities(trial.path, status)[0] != trial.identity:
        return False
    return status.data.fingerprint == fingerprint and _is_readable(trial.path)


def _status_if_whole(folder: Path) -> Status | None:
    """Return the status of a trial that is finished by this training number, if its results are there."""
    status = Status.find(folder)
    if status is None or status.status != "finished" or status.training_number != TRAINING_NUMBER:
        return None
    return None if _missing_results(folder) else status


def find_reusable(run: Path, wanted: Mapping[str, str | None]) -> dict[str, Path]:
    """Return the folders of finished trials in the neighbouring run folders, by training identity.

    `wanted` has the training identities to look for, each with the fingerprint of its data.
    """
    found: dict[str, Path] = {}
    for path in sorted(run.parent.glob("*/*/*/trial.json")):
        if path.is_relative_to(run) or any(part.startswith(".") for part in path.relative_to(run.parent).parts):
            continue
        status = _status_if_whole(path.parent)
        if status is None or status.limited:
            continue
        identity = str(status.identity)
        if identity not in wanted and status.versions.get("segkit") != version("segkit"):
            identity, _ = stored_identities(path.parent, status)
        if identity in found or wanted.get(identity) is None:
            continue
        if status.data.fingerprint == wanted[identity] and _is_readable(path.parent):
            found[identity] = path.parent
    return found


def copy_trial(trial: Trial, source: Path, check: Callable[[], None]) -> bool:
    """Copy a finished trial of the same identity, whole or not at all; return whether its evaluation fits too.

    `check` is called before the copy takes its place; it raises if the trial is not this process's any more.
    """
    target = trial.path
    copy = files.make_folder(_copy_of(trial))
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("*.lock", ".*"), dirs_exist_ok=True)
    status = Status.read(copy).model_copy(update={"variant": trial.variant, "reused_from": str(source)})
    status.write(copy / "trial.json")
    check()
    if target.exists():
        shutil.rmtree(target)
    copy.replace(target)
    return stored_identities(target, status)[1] == trial.evaluation


def remove_copy(trial: Trial) -> None:
    """Remove what a process that died while copying a trial has left beside its folder."""
    shutil.rmtree(_copy_of(trial), ignore_errors=True)


def _copy_of(trial: Trial) -> Path:
    return trial.path.with_name(f".copy-{trial.path.name}")


def _is_readable(folder: Path) -> bool:
    """Return whether the best checkpoint of a trial can be read."""
    try:
        checkpoint.load(folder / "best.safetensors")
    except UserError:
        return False
    return True


def _changed_keys(folder: Path, recipe: Recipe) -> dict[str, str]:
    """Return the keys in which the recipe of a trial's folder differs from `recipe`, with both values."""
    old = stored_recipe(folder)
    if not old:
        return {"recipe.toml": "cannot be read"}
    return differences(with_current_defaults(old, str(folder / "recipe.toml")), recipe.dump())
