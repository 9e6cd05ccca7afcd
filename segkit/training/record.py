"""The record of a trial while it runs: its metrics and warnings, and the files that hold them."""

from __future__ import annotations

import platform
import time
from importlib.metadata import version
from typing import Any

from segkit.device import hardware_name
from segkit.locks import Folder
from segkit.recipe.identity import plugin_hashes
from segkit.training.results import History
from segkit.training.setup import Setup
from segkit.training.status import Status
from segkit.training.trial import Event, Trial

# whose versions a result may depend on
VERSIONS = ("segkit", "torch", "numpy", "albumentations", "opencv-python-headless", "safetensors")


class Record:
    """What is known of a trial that runs, and the files that say so.

    Attributes:
        history: the rows of metrics.csv.
        best: (score, epoch) of the best checkpoint so far.
        seconds: of training before this process.
    """

    def __init__(self, trial: Trial, parts: Setup) -> None:
        self.trial, self.recipe, self.parts = trial, trial.recipe, parts
        self.folder = Folder(trial.path)
        self.history = History()
        self.best: tuple[float, int] | None = None
        self.warnings: list[str] = []
        self.seconds = 0.0
        self._started = time.monotonic()

    def warn(self, text: str) -> Event:
        """Record a warning and return it as an event."""
        if text not in self.warnings:
            self.warnings.append(text)
        return Event(self.trial.name, "warning", text)

    def write_metrics(self) -> None:
        """Write metrics.csv."""
        if self.history:
            self.history.write(self.folder / "metrics.csv")

    def write_status(self, status: str, error: str | None = None) -> None:
        """Write trial.json."""
        parts, dataset = self.parts, self.parts.dataset
        known = self.trial.outline(status, error).model_dump() | {
            "epochs_done": len(self.history),
            "best_epoch": self.best[1] if self.best else None,
            "seconds": round(self.seconds_so_far(), 3),
            "warnings": self.warnings,
            "hardware": hardware_name(parts.device.device),
            "plugins": plugin_hashes(self.recipe),
            "data": {
                "name": dataset.name,
                "cases": len(dataset.cases),
                "patients": len({case.patient for case in dataset.cases if case.patient}),
                "fingerprint": parts.fingerprint,
            },
            "first_batch": parts.state.first_batch,
        }
        Status(**known | self.conditions()).write(self.folder / "trial.json")

    def conditions(self) -> dict[str, Any]:
        """Return what both trial.json and the checkpoints say of how, and on which cases, the trial is trained."""
        parts, train = self.parts, self.recipe.train
        sets = {"train": parts.split.train, "validation": parts.split.validation}
        return {
            "device": str(parts.device.device),
            "precision": parts.device.precision,
            "threads": train.threads,
            "compile": train.compile,
            "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONS},
            "channels": list(parts.dataset.channels),
            "split": {name: [parts.dataset.cases[n].name for n in numbers] for name, numbers in sets.items()},
        }

    def seconds_so_far(self) -> float:
        """Return how long the trial has been trained, earlier processes included."""
        return self.seconds + time.monotonic() - self._started
