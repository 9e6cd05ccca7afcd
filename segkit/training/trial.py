"""A trial: one training, from the plan of its study to its files, and the events that whoever watches it sees."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from segkit.leases import Lease
from segkit.recipe.identity import TRAINING_NUMBER, evaluation_identity, training_identity
from segkit.recipe.model import Recipe
from segkit.training.status import Status

Progress = Literal["start", "log", "warning", "step", "epoch", "lost"]
End = Literal["finished", "failed", "interrupted", "skipped", "reused", "elsewhere"]
ENDS: tuple[End, ...] = get_args(End)


@dataclass(frozen=True)
class Event:
    """One thing that happened in a trial.

    Attributes:
        trial: the trial's folder below the run, e.g. "none/seed-1"; "" for a line about the study.
        kind: "lost": another process has taken over; "elsewhere": another process works on it, and is not waited for.
        text: one line for the log.
        values: numbers, e.g. an epoch's row of `metrics.csv`.
    """

    trial: str
    kind: Progress | End
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
class Trial:
    """One training: one variant, one seed, one fold.

    Attributes:
        fold: counted from 1, None where the split has none.
        recipe: the filled recipe of this trial alone; it has no study.
        folder: where its files go, below the run folder.
        run: the study's run folder.
        limit: how the training is cut short.
        fresh: whether what its folder holds is removed first.
        gpu_share: of a GPU's memory, which it may take at most, since other trials have the rest.
        lease: checked before each file is written; None where nobody else could work on the trial.
    """

    variant: str
    seed: int
    fold: int | None
    recipe: Recipe
    folder: Path
    run: Path = Path()
    limit: Limit = Limit()
    fresh: bool = False
    gpu_share: float = 1.0
    lease: Lease | None = None

    @property
    def name(self) -> str:
        """The name in events and messages, e.g. "none/seed-1"."""
        return str(self.folder)

    @property
    def path(self) -> Path:
        """The folder of its files."""
        return self.run / self.folder

    @functools.cached_property
    def identity(self) -> str:
        """The hash of all that its weights depend on."""
        return training_identity(self.recipe)

    @functools.cached_property
    def evaluation(self) -> str:
        """The hash of what is decided after the scores."""
        return evaluation_identity(self.recipe)

    def outline(self, status: str, error: str | None = None) -> Status:
        """Return the status of the trial as far as it is known before it is set up."""
        return Status(
            status=status,
            training_number=TRAINING_NUMBER,
            identity=self.identity,
            evaluation=self.evaluation,
            variant=self.variant,
            seed=self.seed,
            fold=self.fold,
            limited=self.limit != Limit(),
            epochs=self.recipe.train.epochs,
            epochs_done=0,
            error=error,
        )

    def write_status(self, status: str, error: str | None = None) -> None:
        """Write the status of a trial that is not set up; what an earlier process wrote about it is kept."""
        outline, before = self.outline(status, error), Status.find(self.path)
        if before is not None:
            outline = before.model_copy(update=outline.model_dump(exclude_unset=True, exclude={"epochs_done"}))
        outline.write(self.path / "trial.json")
