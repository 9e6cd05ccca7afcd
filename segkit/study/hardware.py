"""On what hardware, and how, the trials of a study compute: settled once, kept in its run folder, the same for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segkit import device
from segkit.errors import UserError
from segkit.recipe import toml
from segkit.recipe.identity import HARDWARE
from segkit.recipe.model import Recipe
from segkit.recipe.sections import Train
from segkit.study.executor import choose_jobs
from segkit.training.trial import Trial

REMEDY = (
    "A study compares trials of one hardware setting. Set it back, choose another run folder with --name, train anew "
    "with --fresh, or allow both with --mix-hardware: the report then says so."
)


def recorded_settings(run: Path) -> dict[str, Any]:
    """Return the settings that a run folder's trials were trained with; none where nothing has been trained yet."""
    if not any(run.glob("*/*/trial.json")):
        return {}
    try:
        train = toml.load(run / "recipe.toml").get("train", {})
    except (UserError, ValueError):
        return {}
    if train.get("threads", "auto") == "auto":  # of an older version, which settled nothing
        return {}
    return {key: train[key] for key in HARDWARE if key in train} | {"device": str(train["device"]).partition(":")[0]}


def resolve_study(
    recipe: Recipe, planned: Sequence[Trial], known: dict[str, Any], jobs: str | int, *, mix: bool
) -> tuple[Recipe, list[Trial], int]:
    """Return the study's recipe and trials with every "auto" settled, and how many trials to train side by side.

    "auto" is what the run folder's trials were trained with; in a new study it is what this machine suggests. A trial
    whose device is missing is left as it is: checking its inputs reports that.

    Args:
        recipe: the study's.
        planned: its trials, at least one.
        known: the result of `recorded`.
        jobs: trials side by side, or "auto".
        mix: whether trials may differ from each other, and from what is known.

    Raises:
        UserError: they differ, and `mix` is not given.
    """
    first = _filled(planned[0].recipe.train, known)
    here = _settled(first, 1)
    kind = here.device.partition(":")[0] if here else "cpu"
    asked = None if first.threads == "auto" else first.threads
    side_by_side, threads = choose_jobs(jobs, len({trial.identity for trial in planned}), kind, asked)
    settled = [replace(trial, recipe=_with(trial.recipe, known, threads)) for trial in planned]
    if not mix:
        _check_same(settled, known)
    return _with(recipe, known, threads), settled, side_by_side


def resolve_auto(train: Train, threads: int) -> Train:
    """Return settings of training with every "auto" of the hardware replaced by what this machine makes of it.

    Args:
        train: of a recipe.
        threads: the CPU threads that "auto" stands for.

    Raises:
        UserError: the machine does not have what was asked for.
    """
    found = device.choose(train.device, train.precision)
    name = found.device.type if train.device == "auto" else train.device
    count = threads if train.threads == "auto" else train.threads
    return train.model_copy(update={"device": name, "precision": found.precision, "threads": count})


def with_hardware_of(recipe: Recipe, planned: Sequence[Trial]) -> Recipe:
    """Return a study's recipe with the settings of its trials, unless these differ."""
    first, *others = [{key: getattr(trial.recipe.train, key) for key in HARDWARE} for trial in planned]
    if any(other != first for other in others):
        return recipe
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=first)})


def _filled(train: Train, known: dict[str, Any]) -> Train:
    """Return the settings with what is known in place of "auto"."""
    return train.model_copy(update={key: known[key] for key in known if getattr(train, key) == "auto"})


def _settled(train: Train, threads: int) -> Train | None:
    try:
        return resolve_auto(train, threads)
    except UserError:
        return None


def _with(recipe: Recipe, known: dict[str, Any], threads: int) -> Recipe:
    train = _settled(_filled(recipe.train, known), threads)
    return recipe.model_copy(update={"train": train}) if train else recipe


def values_of(train: Train) -> dict[str, Any]:
    """Return the settings by name; of a device, its type."""
    found = {key: getattr(train, key) for key in HARDWARE}
    return found | {"device": train.device.partition(":")[0]}


def _check_same(settled: Sequence[Trial], known: dict[str, Any]) -> None:
    """Raise unless all trials compute alike, and like those that were trained before."""
    for key in HARDWARE:
        wanted = {values_of(trial.recipe.train)[key]: trial.variant for trial in settled if _is_settled(trial)}
        if len(wanted) > 1:
            listed = ", ".join(f"{value} ({variant})" for value, variant in wanted.items())
            raise UserError(f"train.{key}: the variants of this study differ in it: {listed}. {REMEDY}")
        for value in wanted:
            if key in known and known[key] != value:
                raise UserError(f"train.{key}: is {value} now, but its trials so far had {known[key]}. {REMEDY}")


def _is_settled(trial: Trial) -> bool:
    return trial.recipe.train.threads != "auto"
