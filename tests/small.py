"""A dataset and a recipe small enough to train in a second, for tests of whole trials."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import segkit
from segkit import UserError
from segkit.components.datasets.case import Case, Dataset
from segkit.data.cases import Data
from segkit.data.filling import fill
from segkit.data.samples import Samples
from segkit.recipe.model import Recipe
from segkit.registry.component import Component
from segkit.study.hardware import resolve_auto
from segkit.training.run import run_trial
from segkit.training.trial import Event, Trial

BACKGROUND = 300  # another grey level is other data behind the same recipe


def discs(*, patients: int = 6, size: int = 32) -> Dataset:
    """Bright rings around dark discs, two images a patient."""
    cases = []
    for number in range(2 * patients):
        random = np.random.default_rng(number)
        rows, columns = np.mgrid[:size, :size]
        row, column = random.uniform(10, size - 10, 2)
        distance, radius = np.hypot(rows - row, columns - column), random.uniform(5, 9)
        cavity = distance < radius - 3
        wall = (distance < radius) & ~cavity
        grey = random.normal(0, 40, (size, size)) + 200 * cavity + 400 * wall + BACKGROUND
        patient = f"p{number // 2}"
        image = grey.clip(0, 4000).astype(np.uint16)
        cases.append(Case(f"{patient}/{number}", patient, image, np.stack([wall, cavity]), (1.0, 1.0)))
    return Dataset("discs", ("wall", "cavity"), tuple(cases))


def data_of(cases: Sequence[Case]) -> Data:
    """Return cases as data in memory."""
    case = cases[0]
    channels = tuple(f"class {number}" for number in range(1 if case.masks is None else len(case.masks)))
    return fill(Dataset("made", channels, tuple(cases)), segkit.intensities.component("percentile"))


def samples_of(cases: Sequence[Case], components: Sequence[Component] = ()) -> Samples:
    """Return cases as samples."""
    return Samples.of(data_of(cases), range(len(cases)), components, exclusive=False)


if "discs" not in segkit.datasets:
    segkit.datasets.register("discs")(discs)

BASE: dict[str, Any] = {
    "data": {"discs": {}},
    "split": {"validation": 0.34},
    "transforms": {
        "train": [
            {"CLAHE": {"clip_limit": 2.0, "tile_grid_size": [2, 2], "p": 1}},
            {"Rotate": {"limit": 180, "p": 0.5}},
            {"RandomCrop": {"height": 24, "width": 24}},
        ],
        "eval": [{"CLAHE": {"clip_limit": 2.0, "tile_grid_size": [2, 2], "p": 1}}],
    },
    "model": {"unet": {"widths": [4, 8]}},
    "optimizer": {"Adam": {"lr": 1e-2}},
    "train": {"epochs": 3, "batch_size": 3, "device": "cpu", "threads": 1},
}


def recipe(*sets: str) -> Recipe:
    """Return the small recipe with `path=value` settings."""
    from segkit.recipe import merge
    from segkit.recipe.model import validate
    from segkit.recipe.source import Source

    document = merge.Document()
    document.merge(BASE, Source("small.toml", None, Path.cwd()))
    for assignment in sets:
        merge.apply_setting(document, assignment)
    return validate(document)


def trial(run: Path, made: Recipe, **options: Any) -> Trial:
    """Return the one trial of a recipe, on one thread."""
    with contextlib.suppress(UserError):  # a device that is not here
        made = made.model_copy(update={"train": resolve_auto(made.train, 1)})
    return Trial("only", made.train.seed, None, made, Path("only/seed-1"), run, **options)


def train(run: Path, *sets: str, stop_after: int | None = None, **options: Any) -> list[Event]:
    """Train the small recipe in `run`; `stop_after` so many questions of whether to stop, say yes."""
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return stop_after is not None and asked > stop_after

    return list(run_trial(trial(run, recipe(*sets), **options), stop=stop))


def kinds(events: Sequence[Event]) -> list[str]:
    """Return the kinds of the events."""
    return [event.kind for event in events]
