"""Check that a recipe can be trained: run one batch of every variant."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from segkit.errors import UserError
from segkit.recipe.model import Recipe
from segkit.study.hardware import resolve_auto
from segkit.testing.findings import Finding
from segkit.training.status import Status
from segkit.training.trial import Limit, Trial

BATCH = 2  # images; enough for a check


def check_trials(planned: list[Trial]) -> Iterator[tuple[str, list[Finding], list[str]]]:
    """Train, validate, save and evaluate one batch of each variant's first trial; yield (variant, findings, log)."""
    from segkit.data.cache import DataCache
    from segkit.training.run import run_trial
    from segkit.training.setup import read_and_split
    from segkit.training.warnings import large_batch

    cache = DataCache()
    first: dict[str, Trial] = {}
    for trial in planned:
        first.setdefault(trial.variant, trial)
    for trial in first.values():
        with tempfile.TemporaryDirectory(prefix="segkit-check-") as run:
            small = replace(trial, recipe=_with_small_batches(trial.recipe), run=Path(run), limit=Limit(batches=1))
            events = list(run_trial(small, stop=lambda: False, cache=cache))
            status = Status.find(small.path)
        too_large = None
        if status is not None and status.split:
            data, split = read_and_split(trial.recipe, cache)
            too_large = large_batch(trial.recipe, sum(len(data.cases[number].slices) for number in split.train))
        findings = [
            Finding("fault" if event.kind == "failed" else "warning", event.text.replace(f"{run}/", ""), trial.variant)
            for event in events
            if event.kind in ("failed", "warning")
        ]
        findings += [Finding("warning", too_large, trial.variant)] if too_large else []
        yield trial.variant, findings, [event.text for event in events if event.kind == "log"]


def _with_small_batches(recipe: Recipe) -> Recipe:
    train = recipe.train.model_copy(update={"batch_size": min(BATCH, recipe.train.batch_size), "workers": 0})
    with contextlib.suppress(UserError):  # a missing device: the trial reports it
        train = resolve_auto(train, 1)
    return recipe.model_copy(update={"train": train})
