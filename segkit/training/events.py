"""The events of a trial, for whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["start", "log", "warning", "step", "epoch", "finished", "failed", "interrupted", "skipped", "reused"]


@dataclass(frozen=True)
class Event:
    """One thing that happened in a trial.

    Attributes:
        trial: the trial's folder below the run, e.g. "none/seed-1".
        text: one line for the log.
        values: numbers, e.g. an epoch's row of `metrics.csv`.
    """

    trial: str
    kind: Kind
    text: str = ""
    values: dict[str, Any] = field(default_factory=dict)
