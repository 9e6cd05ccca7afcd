"""What a trial writes: status, metrics, overlays, and the metadata of its checkpoints."""

from __future__ import annotations

import math
import platform
import time
from importlib.metadata import version
from typing import Any

import numpy as np

from segkit import files, plugins
from segkit.device import hardware_name
from segkit.evaluation.overlay import draw_overlay, picture_name
from segkit.evaluation.rows import Row
from segkit.locks import Folder
from segkit.recipe.identity import TRAINING_NUMBER, plugin_hashes
from segkit.training import checkpoint
from segkit.training.events import Event
from segkit.training.guards import NonFiniteError
from segkit.training.results import History
from segkit.training.setup import Setup
from segkit.training.status import Status
from segkit.training.trial import Trial

MAX_OVERLAYS = 64
VERSIONS = ("segkit", "torch", "numpy", "albumentations", "opencv-python-headless", "safetensors")


class Record:
    """The files of one trial.

    Attributes:
        history: the rows of metrics.csv.
        best: (score, epoch) of the best checkpoint so far.
        warnings: those of the guards.
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
        """Remember a warning and return it as an event."""
        if text not in self.warnings:
            self.warnings.append(text)
        return Event(self.trial.name, "warning", text)

    def write_metrics(self) -> None:
        """Write metrics.csv."""
        if self.history:
            self.history.write(self.folder / "metrics.csv")

    def write_status(self, status: str, *, error: str | None = None) -> None:
        """Write trial.json."""
        parts, dataset = self.parts, self.parts.dataset
        outline = self.trial.outline(status, error).model_dump()
        known = outline | {
            "epochs_done": len(self.history),
            "best_epoch": self.best[1] if self.best else None,
            "seconds": round(self.seconds_so_far(), 3),
            "warnings": self.warnings,
            "device": str(parts.device.device),
            "hardware": hardware_name(parts.device.device),
            "precision": parts.device.precision,
            "threads": self.recipe.train.threads,
            "compile": self.recipe.train.compile,
            "plugins": plugin_hashes(self.recipe),
            "versions": versions(),
            "data": {
                "name": dataset.name,
                "cases": len(dataset.cases),
                "patients": len({case.patient for case in dataset.cases if case.patient}),
                "fingerprint": parts.fingerprint,
            },
            "split": self._split(),
            "channels": list(dataset.channels),
            "first_batch": parts.state.first_batch,
        }
        Status(**known).write(self.folder / "trial.json")

    def _split(self) -> dict[str, list[str]]:
        cases, split = self.parts.dataset.cases, self.parts.split
        return {
            "train": [cases[n].name for n in split.train],
            "validation": [cases[n].name for n in split.validation],
        }

    def meta(self, kind: str) -> dict[str, Any]:
        """Return the metadata of a checkpoint."""
        parts = self.parts
        used = plugins.used_by(self.recipe.components())
        return {
            "kind": kind,
            "training_number": TRAINING_NUMBER,
            "identity": self.trial.identity,
            "variant": self.trial.variant,
            "recipe": self.recipe.dump(),
            "channels": list(parts.dataset.channels),
            "exclusive": self.recipe.channels == "exclusive",
            "normalization": {"mean": parts.normalization.mean, "std": parts.normalization.std},
            "split": self._split(),
            "metrics": {name: value for name, value in self._last_row().items() if name.startswith("val_")},
            "epoch": parts.state.epoch - (kind == "best"),
            "step": parts.state.step,
            "fingerprint": parts.fingerprint,
            "precision": parts.device.precision,
            "device": str(parts.device.device),
            "threads": self.recipe.train.threads,
            "compile": self.recipe.train.compile,
            "plugins": [
                {"module": p.module, "origin": p.origin, "sha256": p.sha256, "sources": p.sources} for p in used
            ],
            "versions": versions(),
        }

    def _last_row(self) -> dict[str, Any]:
        last = self.history[-1] if self.history else {}
        return {name: value if math.isfinite(value) else None for name, value in last.items()}

    def seconds_so_far(self) -> float:
        """Return how long the trial has been trained, in all its parts."""
        return self.seconds + time.monotonic() - self._started

    def save_batch(self, error: NonFiniteError) -> str:
        """Save the batch on which a loss was not finite; return the file's name."""
        path = self.folder / "nonfinite.safetensors"
        tensors = {"image": error.image.detach().cpu(), "target": error.target.detach().cpu()}
        checkpoint.save_tensors(path, tensors, {"terms": {name: str(value) for name, value in error.terms.items()}})
        return str(path)

    def out_of_memory(self) -> str:
        """Return the advice after the device ran out of memory."""
        size, together = self.recipe.train.batch_size, self.recipe.train.accumulate
        if size == 1:
            return "the device ran out of memory with one image a batch: use smaller crops, a smaller model or bf16."
        half = max(1, size // 2)
        return (
            f"the device ran out of memory with train.batch_size = {size}. Try --set train.batch_size={half} "
            f"--set train.accumulate={-(-size * together // half)}: the same number of images a step."
        )

    def evaluate_best(self) -> list[Row]:
        """Return the rows of the best checkpoint on the validation cases, and draw them.

        The weights come from the file, so that `segkit eval` on it gives the same to the last bit.
        """
        parts, model = self.parts, self.parts.state.model
        found = checkpoint.load(self.folder / "best.safetensors")
        kept = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        checkpoint.load_into(model, found.weights, str(self.folder / "best.safetensors"))
        drawn: list[str] = []

        def draw(case: Any, masks: Any) -> None:
            if len(drawn) < MAX_OVERLAYS:
                drawn.append(case.name)
                number = parts.evaluator.cases.index(case)
                write_overlay(self.folder, case, parts.evaluator.images[number], masks)

        rows, _ = parts.evaluator.run(model, parts.metrics, on_case=draw)
        model.load_state_dict(kept)
        return rows


def write_overlay(folder: Any, case: Any, image: Any, masks: Any) -> None:
    """Write a case's picture with truth and prediction outlined to `overlays/`."""
    import cv2

    from segkit.data.batches import to_uint8

    shown = image if image.shape == case.image.shape else to_uint8(case.image)
    picture = draw_overlay(shown, case.masks, masks)
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
    assert done, "a PNG of 8-bit RGB can always be encoded"
    target = folder / "overlays"
    target.mkdir(parents=True, exist_ok=True)
    files.write_bytes(target / picture_name(case.name), encoded.tobytes())


def versions() -> dict[str, str]:
    """Return the versions that a result may depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in VERSIONS}
