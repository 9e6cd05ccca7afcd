"""Whether a recipe can be trained: every variant is built and runs one batch of everything."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segkit import files
from segkit.errors import UserError
from segkit.recipe.identity import training_identity
from segkit.recipe.model import Recipe
from segkit.study.plan import Trial
from segkit.testing.findings import Finding

BATCH = 2  # images; what a batch costs is not what is asked here


@dataclass(frozen=True)
class Tried:
    """A variant that was tried: what was found, and what the log said."""

    variant: str
    findings: tuple[Finding, ...]
    log: tuple[str, ...]


def check_trials(planned: list[Trial]) -> Iterator[Tried]:
    """Yield each variant of a study after one batch through everything: train, validate, checkpoint, evaluate.

    Args:
        planned: the study's trials; the first of each variant is tried, with batches of two images.
    """
    from segkit.training.events import Job, Limit
    from segkit.training.trial import run_trial

    seen: set[str] = set()
    for trial in planned:
        if trial.variant in seen:
            continue
        seen.add(trial.variant)
        recipe = _small(trial.recipe)
        with tempfile.TemporaryDirectory(prefix="segkit-check-") as run:
            job = Job(
                recipe=recipe.dump(),
                run=Path(run),
                folder=trial.folder,
                variant=trial.variant,
                seed=trial.seed,
                fold=trial.fold,
                identity=training_identity(recipe),
                evaluation=trial.evaluation,
                limit=Limit(batches=1),
            )
            events = list(run_trial(job, stop=lambda: False))
            large = _too_large(trial, Path(run) / trial.folder / "trial.json")
        findings = [
            Finding("fault" if event.kind == "failed" else "warning", event.text.replace(f"{run}/", ""), trial.variant)
            for event in events
            if event.kind in ("failed", "warning")
        ]
        findings += [Finding("warning", large, trial.variant)] if large else []
        yield Tried(trial.variant, tuple(findings), tuple(event.text for event in events if event.kind == "log"))


def _too_large(trial: Trial, status: Path) -> str | None:
    """Return the warning about batches of the recipe's own size, given the trial.json of the small ones."""
    from segkit.training.doubts import batch_warning

    with contextlib.suppress(UserError, KeyError):
        return batch_warning(trial.recipe, len(files.read_json(status)["split"]["train"]))
    return None


def _small(recipe: Recipe) -> Recipe:
    from segkit.device import settled

    train = recipe.train.model_copy(update={"batch_size": min(BATCH, recipe.train.batch_size), "workers": 0})
    with contextlib.suppress(UserError):  # a device that is not here: the trial says so
        train = settled(train, 1)
    return recipe.model_copy(update={"train": train})
