"""What a run folder already holds of the trials of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from segkit.errors import UserError
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
from segkit.training import checkpoint
from segkit.training.status import ENDED, Status
from segkit.training.trial import Trial

RESULTS = ("metrics.csv", "cases.csv", "best.safetensors")

State = Literal["new", "open", "finished", "failed", "lost", "other"]


@dataclass(frozen=True)
class Existing:
    """What the folder of a trial holds.

    Attributes:
        trial: the trial; with the hardware settings of what is there, where these may be mixed.
        state: "new": nothing; "open": to be resumed, or to be evaluated again; "finished"; "failed"; "lost": it
            was finished, but its weights are gone; "other": another trial.
        why: a line for the log; "" for none.
    """

    trial: Trial
    state: State
    reason: str = ""


def inspect_folder(trial: Trial, *, mix: bool) -> Existing:
    """Return what a run folder holds of a trial.

    Args:
        trial: the trial, its hardware settled.
        mix: whether a trial that was trained with other hardware settings is taken for it.
    """
    folder = trial.path
    status = Status.find(folder)
    if status is None:
        return Existing(trial, "new")
    if status.training_number != TRAINING_NUMBER:
        why = f"{folder}: {incomparable_note(status.training_number)}. Use --fresh to train it again, or --name for "
        return Existing(trial, "other", why + "another run folder.")
    identity, evaluation = stored_identities(folder, status)
    if identity != trial.identity:
        changed = changed_keys(folder, trial.recipe)
        settings = {key: text for key, text in changed.items() if key in {f"train.{name}" for name in HARDWARE}}
        if settings and mix:
            trial = _as_trained(folder, trial)
        if identity != trial.identity:
            return _changed(folder, trial, status, {} if mix else settings, changed)
    if status.status != "finished":
        return Existing(trial, "failed" if status.status == "failed" else "open", _explanation(folder, status))
    missing = missing_results(folder)
    if "best.safetensors" not in missing and not _is_readable(folder):
        return Existing(trial, "lost", "best.safetensors of this finished trial is damaged: it is trained again")
    if "best.safetensors" in missing:
        return Existing(trial, "lost", "best.safetensors of this finished trial is gone: it is trained again")
    if missing:
        return Existing(trial, "open", f"{' and '.join(missing)} of this finished trial is gone: made again")
    if evaluation != trial.evaluation:
        return Existing(trial, "open", "other metrics than before: evaluated again, not trained")
    return Existing(trial, "finished")


def stored_identities(folder: Path, status: Status) -> tuple[str, str]:
    """Return the training and evaluation identity of a trial on disk, as filled with today's defaults.

    Args:
        folder: the trial's.
        status: its trial.json.
    """
    stored = str(status.identity), str(status.evaluation)
    if status.training_number != TRAINING_NUMBER or status.plugins is None:
        return stored
    try:
        recipe = Recipe.from_dict(toml.load(folder / "recipe.toml"), str(folder / "recipe.toml"))
        return training_identity(recipe, status.plugins["training"]), evaluation_identity(
            recipe, status.plugins["evaluation"]
        )
    except (UserError, ValueError, KeyError, TypeError):
        return stored


def with_data_checked(found: Existing, fingerprint: str | None) -> Existing:
    """Return what a run folder holds of a trial whose data are read by now: another trial, if it saw other data.

    Args:
        found: what `look` returned.
        fingerprint: of the data as they are; None where they were not read.
    """
    folder = found.trial.path
    before = _fingerprint_of(Status.find(folder))
    if found.state not in ("open", "finished", "failed") or None in (before, fingerprint) or before == fingerprint:
        return found
    return Existing(
        found.trial, "other", f"{folder}: the data have changed since it was trained (their fingerprint differs), and "
        "a study compares trials of the same data. Restore the data, train again with --fresh, or choose another run "
        "folder with --name.",
    )  # fmt: skip


def refuse_conflicts(looked: Sequence[Existing]) -> None:
    """Raise if a run folder holds other trials than planned; one line for all of which the same is true."""
    texts: dict[str, list[str]] = {}
    for found in looked:
        if found.state == "other":
            place, _, text = found.reason.partition(": ")
            texts.setdefault(text, []).append(place)
    if texts:
        more = {text: f" and {len(places) - 1:,} more" if len(places) > 1 else "" for text, places in texts.items()}
        raise UserError("\n".join(f"{places[0]}{more[text]}: {text}" for text, places in texts.items()))


def _fingerprint_of(status: Status | None) -> str | None:
    """Return the fingerprint of the data of a trial, None where it is not stated."""
    return status.data.fingerprint if status is not None and status.data is not None else None


def _explanation(folder: Path, status: Status) -> str:
    if status.status != "running":
        return ""
    return f"its process {ENDED}; " + (
        "resumes from its last save" if (folder / "last.safetensors").is_file() else "begins again: nothing was saved"
    )


def _as_trained(folder: Path, trial: Trial) -> Trial:
    """Return the trial with the hardware settings of what its folder holds."""
    train = _stored(folder).get("train", {})
    known = {name: train[name] for name in HARDWARE if name in train}
    return replace(trial, recipe=trial.recipe.model_copy(update={"train": trial.recipe.train.model_copy(update=known)}))


def _changed(folder: Path, trial: Trial, status: Status, settings: dict[str, str], changed: dict[str, str]) -> Existing:
    """Return whether a trial can be resumed from what its folder holds, which differs from it."""
    fewer = trial.recipe.train.epochs < status.epochs_done
    if changed and not settings and not not_resumable(_without_hardware(changed)) and not fewer:
        return Existing(trial, "open", _explanation(folder, status))
    what = "; ".join(f"{key} {text}" for key, text in changed.items())
    if settings and settings.keys() == changed.keys():
        return Existing(trial, "other", f"{folder}: {what}. {REMEDY}")
    return Existing(
        trial, "other", f"{folder}: holds another trial: {what or 'the source of a plugin it uses has changed'}. "
        "Use --fresh to train it again, or --name for another run folder.",
    )  # fmt: skip


def _without_hardware(changed: dict[str, str]) -> dict[str, str]:
    return {key: text for key, text in changed.items() if key.removeprefix("train.") not in HARDWARE}


def missing_results(folder: Path) -> list[str]:
    """Return the results that are not there, or end within a line, of a trial that is finished."""
    return [name for name in RESULTS if not (folder / name).is_file() or not _is_whole(folder / name)]


def _is_whole(path: Path) -> bool:
    """Return whether a table ends with a whole line; of another file, whether it holds anything."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 1))
        return file.read() == b"\n" if path.suffix == ".csv" else size > 0


def find_reusable(run: Path, wanted: Mapping[str, str | None]) -> dict[str, Path]:
    """Return the complete trials of the neighbouring run folders, by their training identities.

    Args:
        run: the run folder.
        wanted: the training identities to look for, each with the fingerprint of the data to be trained on.
    """
    index: dict[str, Path] = {}
    for path in sorted(run.parent.glob("*/*/*/trial.json")):
        if path.is_relative_to(run) or any(part.startswith(".") for part in path.relative_to(run.parent).parts):
            continue
        status = Status.find(path.parent)
        if status is None or status.status != "finished" or status.limited:
            continue
        if status.training_number != TRAINING_NUMBER or missing_results(path.parent):
            continue
        identity = str(status.identity)
        if identity not in wanted and status.versions.get("segkit") != version("segkit"):
            identity, _ = stored_identities(path.parent, status)
        if identity not in wanted or identity in index or wanted[identity] is None:
            continue
        if _fingerprint_of(status) == wanted[identity] and _is_readable(path.parent):
            index[identity] = path.parent
    return index


def _is_readable(folder: Path) -> bool:
    """Return whether the weights of a finished trial can be read."""
    try:
        checkpoint.load(folder / "best.safetensors")
    except UserError:
        return False
    return True


def _stored(folder: Path) -> dict[str, Any]:
    try:
        return toml.load(folder / "recipe.toml")
    except UserError:
        return {}


def changed_keys(folder: Path, recipe: Recipe) -> dict[str, str]:
    """Return the keys in which a trial folder's filled recipe differs from `recipe`, with both values."""
    old = _stored(folder)
    if not old:
        return {"recipe.toml": "cannot be read"}
    return differences(with_current_defaults(old, str(folder / "recipe.toml")), toml.read(recipe.to_toml()))
