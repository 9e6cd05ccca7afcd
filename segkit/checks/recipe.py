"""Check that a recipe can be trained: run one batch of every variant."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from segkit.data.cache import CACHE, DataCache
from segkit.errors import UserError
from segkit.recipe.model import Recipe
from segkit.study.hardware import resolve_auto
from segkit.testing.findings import Finding
from segkit.training.status import Status
from segkit.training.trial import Limit, Trial

BATCH = 2  # images; enough for a check


def check_trials(planned: list[Trial]) -> Iterator[tuple[str, list[Finding], list[str]]]:
    """Train, validate, save and evaluate one batch of each variant's first trial; yield (variant, findings, log)."""
    from segkit.training.run import run_trial

    first: dict[str, Trial] = {}
    for trial in planned:
        first.setdefault(trial.variant, trial)
    with tempfile.TemporaryDirectory(prefix="segkit-check-") as run:
        cache = DataCache(Path(run) / CACHE)
        for trial in first.values():
            small = replace(trial, recipe=_with_small_batches(trial.recipe), run=Path(run), limit=Limit(batches=1))
            events = list(run_trial(small, stop=lambda: False, cache=cache))
            found = [
                Finding(
                    "fault" if event.kind == "failed" else "warning", event.text.replace(f"{run}/", ""), trial.variant
                )
                for event in events
                if event.kind in ("failed", "warning")
            ]
            log = [event.text for event in events if event.kind == "log"]
            if log:  # else it failed before the data were read
                size = sum(path.stat().st_size for path in (Path(run) / CACHE).rglob("*") if path.is_file())
                log.append(f"cache: {size / 1e6:,.1f} MB, in .cache beside the run folder or in --cache DIR")
            too_large = _large_batch(trial.recipe, Status.find(small.path), cache)
            yield trial.variant, [*found, *too_large], log


def _large_batch(recipe: Recipe, status: Status | None, cache: DataCache) -> Iterator[Finding]:
    """Yield the warning about a batch of more samples than there are, which the small batch of the check is not."""
    from segkit.training.warnings import large_batch

    if status is not None and status.split:
        data, train = cache.read(recipe.data, recipe.intensity), set(status.split["train"])
        samples = sum(len(case.slices) for case in data.cases if case.name in train)
        text = large_batch(recipe, samples)
        if text:
            yield Finding("warning", text, status.variant or "")


def _with_small_batches(recipe: Recipe) -> Recipe:
    train = recipe.train.model_copy(update={"batch_size": min(BATCH, recipe.train.batch_size), "workers": 0})
    with contextlib.suppress(UserError):  # a missing device: the trial reports it
        train = resolve_auto(train, 1)
    return recipe.model_copy(update={"train": train})
