"""Check that a recipe can be trained: run one batch of every variant."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from segkit.data.cache import CACHE, DataCache
from segkit.recipe.model import Recipe
from segkit.study.hardware import resolve_alone
from segkit.testing.findings import Finding
from segkit.training.status import Status
from segkit.training.trial import Event, Limit, Trial

BATCH = 2  # images; enough for a check


def check_trials(planned: list[Trial]) -> Iterator[tuple[str, list[Finding], list[str]]]:
    """Train, validate, save and evaluate one batch of each variant's first trial; yield (variant, findings, log).

    The last log says how much disk the cache of all variants takes.
    """
    from segkit.training.run import run_trial

    first: dict[str, Trial] = {}
    for trial in planned:
        first.setdefault(trial.variant, trial)
    with tempfile.TemporaryDirectory(prefix="segkit-check-") as name:
        run = Path(name)
        cache = DataCache(run / CACHE)  # the variants share it, and data need not fit into memory
        resolved = resolve_alone([trial.recipe for trial in first.values()], cache)
        for trial, recipe in zip(first.values(), resolved, strict=True):
            small = replace(trial, recipe=_with_small_batches(recipe), run=run, limit=Limit(batches=1))
            events = list(run_trial(small, stop=lambda: False, cache=cache))
            log = [event.text for event in events if event.kind == "log"]
            if trial is list(first.values())[-1]:
                log.append(_size_of(cache))
            yield trial.variant, list(_findings(trial, events, run / small.folder, cache)), log


def _findings(trial: Trial, events: list[Event], folder: Path, cache: DataCache) -> Iterator[Finding]:
    """Yield what was wrong with a trial, of which one batch was run in `folder`."""
    from segkit.training.setup import read_and_split
    from segkit.training.warnings import large_batch

    for event in events:
        if event.kind in ("failed", "warning"):
            text = event.text.replace(f"{folder.parents[1]}/", "")
            yield Finding("fault" if event.kind == "failed" else "warning", text, trial.variant)
    status = Status.find(folder)
    if status is not None and status.split:  # of the whole training set, not of the check's small batch
        data, split = read_and_split(trial.recipe, cache)
        too_large = large_batch(trial.recipe, sum(len(data.cases[number].slices) for number in split.train))
        if too_large:
            yield Finding("warning", too_large, trial.variant)


def _size_of(cache: DataCache) -> str:
    found = (path.stat().st_size for path in cache.folder.rglob("*") if path.is_file()) if cache.folder else ()
    return f"cache: {sum(found) / (1 << 20):,.1f} MiB of decoded data, in {CACHE} beside the run, or in --cache DIR"


def _with_small_batches(recipe: Recipe) -> Recipe:
    train = recipe.train.model_copy(update={"batch_size": min(BATCH, recipe.train.batch_size), "workers": 0})
    return recipe.model_copy(update={"train": train})
