"""The hardware settings of a study's trials: resolved once, kept in the run folder, the same for all trials."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segkit.data.cache import DataCache
from segkit.data.preparing import prepare
from segkit.errors import UserError
from segkit.recipe.identity import HARDWARE
from segkit.recipe.model import Recipe
from segkit.recipe.sections import Train
from segkit.study.executor import Local
from segkit.study.places import Place
from segkit.study.reading import stored_recipe
from segkit.training.trial import Trial

RESIDENT_SHARE = 0.25
"""Of the memory that a trial has of a GPU, which data may take at most to live there by themselves."""
REMEDY = (
    "A study compares trials with the same hardware settings. Restore the setting, choose another run folder with "
    "--name, train again with --fresh, or allow both with --mix-hardware: the report then mentions it."
)


def recorded_settings(run: Path) -> dict[str, Any]:
    """Return the hardware settings that a run folder's trials were trained with; {} if nothing was trained yet."""
    train = stored_recipe(run).get("train", {}) if any(run.glob("*/*/trial.json")) else {}
    if not isinstance(train, dict) or train.get("threads", "auto") == "auto":  # nothing, or an older version's
        return {}
    device_type = str(train.get("device")).partition(":")[0]
    resident = {"resident": train.get("resident", False)}  # before it was a key, no samples lived on a device
    return resident | {key: train[key] for key in HARDWARE if key in train} | {"device": device_type}


def resolve_study(
    recipe: Recipe,
    planned: Sequence[Trial],
    known: dict[str, Any],
    jobs: str | int,
    place: Place,
    cache: DataCache,
    *,
    mix: bool,
) -> tuple[Recipe, list[Trial], int]:
    """Return the study's recipe and trials with every "auto" resolved, and how many trials to train at a time.

    "auto" is the setting that the run folder's trials were trained with, or in a new study this machine's choice. A
    trial whose device is missing stays unresolved: `check_devices` reports it.

    Args:
        recipe, planned: the study's recipe and its trials, at least one.
        known: the result of `recorded_settings`.
        jobs: trials at a time, or "auto".
        place: where they are trained.
        cache: reads the data; asked only where they might live on a device.
        mix: whether trials may differ from each other, and from `known`.

    Raises:
        UserError: they differ, and `mix` is false.
    """
    train, trials = planned[0].recipe.train, len({trial.identity for trial in planned})
    threads = known.get("threads") if train.threads == "auto" else train.threads
    device = _resolved(planned[0].recipe, known, 1, place).train.device.replace("auto", "cpu")
    at_a_time, count = place.jobs(jobs, trials, device, threads)
    share, chosen = place.share(min(at_a_time, trials), device), known
    if "resident" not in known:
        chosen = known | {"resident": _resident([trial.recipe for trial in planned], place, cache, share)}
    resolved = [
        replace(trial, recipe=_resolved(trial.recipe, chosen, count, place), gpu_share=share) for trial in planned
    ]
    if not mix:
        _check_same(resolved, known)
    return _resolved(recipe, chosen, count, place), resolved, at_a_time


def _resident(recipes: Sequence[Recipe], place: Place, cache: DataCache, share: float) -> bool:
    """Return whether the data of every recipe that does not say so fit into their part of a trial's share of a GPU."""
    asking = [recipe for recipe in recipes if recipe.train.resident == "auto"]
    given = {"data", "intensity", "transforms", "channels"}  # of which the samples are made that would live there
    distinct = {recipe.model_dump_json(include=given): recipe for recipe in asking}
    for recipe in distinct.values():
        try:
            memory = place.memory(place.resolve(recipe.train.device, recipe.train.precision)[0])
            if memory is None:
                return False
            data, exclusive = cache.read(recipe.data, recipe.intensity), recipe.channels == "exclusive"
            slices, _ = prepare(data, recipe.transforms.train, exclusive=exclusive)
            if slices.size > RESIDENT_SHARE * share * memory:
                return False
        except Exception:  # what is wrong with device or data is found, and told, where they are checked
            return False
    return bool(distinct)


def resolve_auto(train: Train, threads: int, place: Place | None = None) -> Train:
    """Return training settings with every "auto" of the hardware replaced: `threads`, or the choice of a place.

    Raises:
        UserError: the place, by default this machine, does not have the requested device or precision.
    """
    device, precision = (place or Local()).resolve(train.device, train.precision)
    count = threads if train.threads == "auto" else train.threads
    update = {"device": device, "precision": precision, "threads": count}
    return train.model_copy(update=update | {"resident": train.resident is True})


def resolve_alone(recipes: Sequence[Recipe], cache: DataCache) -> list[Recipe]:
    """Return recipes with every "auto" resolved as in a study of them on one CPU thread of this machine.

    One whose device is missing is returned as it is.
    """
    place = Local()
    known = {"resident": _resident(recipes, place, cache, 1.0)}
    return [_resolved(recipe, known, 1, place) for recipe in recipes]


def with_hardware_of(recipe: Recipe, planned: Sequence[Trial]) -> Recipe:
    """Return a study's recipe with the hardware settings of its trials, unless these differ."""
    first, *others = [{key: getattr(trial.recipe.train, key) for key in HARDWARE} for trial in planned]
    if any(other != first for other in others):
        return recipe
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=first)})


def check_devices(recipes: Sequence[Recipe], mistakes: Iterable[str], place: Place) -> None:
    """Check the devices of recipes.

    Raises:
        UserError: `mistakes` of the data, and each device or precision that the place does not have; each once.
    """
    found = dict.fromkeys(mistakes)
    for name, precision in dict.fromkeys((recipe.train.device, recipe.train.precision) for recipe in recipes):
        try:
            place.resolve(name, precision)
        except UserError as error:
            found[str(error)] = None
    if found:
        raise UserError("\n".join(found))


def _resolved(recipe: Recipe, known: dict[str, Any], threads: int, place: Place) -> Recipe:
    """Return a recipe with every "auto" resolved from `known` or by a place; unchanged if its device is missing."""
    train = recipe.train.model_copy(update={k: v for k, v in known.items() if getattr(recipe.train, k) == "auto"})
    try:
        return recipe.model_copy(update={"train": resolve_auto(train, threads, place)})
    except UserError:
        return recipe


def _check_same(planned: Sequence[Trial], known: dict[str, Any]) -> None:
    """Raise UserError unless all trials have the settings of each other and of those that are trained already."""
    resolved = [trial for trial in planned if trial.recipe.train.threads != "auto"]
    for key in HARDWARE:
        variants = {getattr(trial.recipe.train, key): trial.variant for trial in resolved}
        if key == "device":
            variants = {name.partition(":")[0]: variant for name, variant in variants.items()}
        if len(variants) > 1:
            values = ", ".join(f"{value} ({variant})" for value, variant in variants.items())
            raise UserError(f"train.{key}: the variants of this study differ in it: {values}. {REMEDY}")
        for value in variants:
            if key in known and known[key] != value:
                raise UserError(f"train.{key}: is {value} now, but its trials so far had {known[key]}. {REMEDY}")
