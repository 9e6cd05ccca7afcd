"""Check that a recipe can be trained: run one batch of every variant."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from segkit.errors import UserError
from segkit.recipe.model import Recipe
from segkit.study.hardware import resolve_auto
from segkit.testing.findings import Finding
from segkit.training.status import Status
from segkit.training.trial import Limit, Trial

BATCH = 2  # images; enough for a check


@dataclass(frozen=True)
class TriedVariant:
    """A variant that was tried: its findings and log."""

    variant: str
    findings: tuple[Finding, ...]
    log: tuple[str, ...]


def check_trials(planned: list[Trial]) -> Iterator[TriedVariant]:
    """Train, validate, save and evaluate one batch of each variant of a study; yield the findings.

    Args:
        planned: the study's trials; the first of each variant is tried, with batches of two images.
    """
    from segkit.training.run import run_trial

    seen: set[str] = set()
    for trial in planned:
        if trial.variant in seen:
            continue
        seen.add(trial.variant)
        with tempfile.TemporaryDirectory(prefix="segkit-check-") as run:
            small = replace(trial, recipe=_with_small_batches(trial.recipe), run=Path(run), limit=Limit(batches=1))
            events = list(run_trial(small, stop=lambda: False))
            too_large = _too_large(trial, Status.find(small.path))
        findings = [
            Finding("fault" if event.kind == "failed" else "warning", event.text.replace(f"{run}/", ""), trial.variant)
            for event in events
            if event.kind in ("failed", "warning")
        ]
        findings += [Finding("warning", too_large, trial.variant)] if too_large else []
        yield TriedVariant(trial.variant, tuple(findings), tuple(event.text for event in events if event.kind == "log"))


def _too_large(trial: Trial, status: Status | None) -> str | None:
    """Return the warning about batches of the recipe's own size, given the status of a training with small ones."""
    from segkit.training.warnings import large_batch

    return large_batch(trial.recipe, len(status.split["train"])) if status is not None and status.split else None


def _with_small_batches(recipe: Recipe) -> Recipe:
    train = recipe.train.model_copy(update={"batch_size": min(BATCH, recipe.train.batch_size), "workers": 0})
    with contextlib.suppress(UserError):  # a missing device: the trial reports it
        train = resolve_auto(train, 1)
    return recipe.model_copy(update={"train": train})
