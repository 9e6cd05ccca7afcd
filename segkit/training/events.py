"""What a trial tells whoever watches it, and what it is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Kind = Literal["start", "log", "warning", "step", "epoch", "finished", "failed", "interrupted", "skipped", "reused"]

# of a trial that says "running" while nothing runs
ENDED = "ended without a word (killed, out of memory, or a crash inside native code)"


@dataclass(frozen=True)
class Event:
    """One thing that happened in a trial.

    Attributes:
        trial: the trial's folder below the run, e.g. "none/seed-1".
        kind: what happened.
        text: one line for the log.
        values: numbers, e.g. an epoch's row of `metrics.csv`.
    """

    trial: str
    kind: Kind
    text: str = ""
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Limit:
    """A training cut short on purpose: `--dry-run` and `--overfit N`.

    Attributes:
        batches: train and validate on so many batches for one epoch.
        overfit: train and validate on the same first so many training cases.
    """

    batches: int | None = None
    overfit: int | None = None


@dataclass(frozen=True)
class Job:
    """One trial to train, in plain values that reach any process.

    Attributes:
        recipe: the filled recipe of the trial as plain values, its hardware settled.
        run: the study's run folder.
        folder: the trial's folder below it.
        identity, evaluation: what it is trained and evaluated as (see `segkit.recipe.identity`).
        plugins: plugin folders to load first.
    """

    recipe: dict[str, Any]
    run: Path
    folder: Path
    variant: str
    seed: int
    fold: int | None
    identity: str
    evaluation: str
    plugins: tuple[str, ...] = ()
    limit: Limit = Limit()
    fresh: bool = False
