"""The record of a trial while it runs, its files and checkpoints."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from segkit import plugins
from segkit.data.cases import StoredCase
from segkit.device import hardware_name
from segkit.locks import Folder
from segkit.recipe.identity import TRAINING_NUMBER, evaluation_settings, plugin_hashes
from segkit.registry.faults import parts_of, raise_fault
from segkit.training import checkpoint
from segkit.training.loss_watch import NonFiniteError
from segkit.training.results import History
from segkit.training.selection import patience_ended
from segkit.training.setup import Setup
from segkit.training.status import Status
from segkit.training.trial import Event, Trial
from segkit.training.validation import Validated

# whose versions a result may depend on
VERSIONS = ("segkit", "torch", "numpy", "albumentations", "opencv-python-headless", "safetensors")
WRITE_SECONDS = 1.0  # between two writes of metrics.csv, at least, other than with the state


@dataclass(frozen=True)
class Kept:
    """The weights of the best epoch so far, on the device, until they are written.

    Attributes:
        step: optimizer steps done by then.
    """

    weights: dict[str, Tensor]
    epoch: int
    step: int


@dataclass(frozen=True)
class Waiting:
    """An epoch some of whose metrics are still computed.

    Attributes:
        first, last: what stands before and after the metrics in its row of metrics.csv.
        shown: what its event says besides.
    """

    validated: Validated
    first: dict[str, Any]
    last: dict[str, Any]
    shown: dict[str, Any]


class Record:
    """What is known of a trial that runs, and the files that say so.

    Attributes:
        history: the rows of metrics.csv.
        waiting: the epoch after those.
        best: (score, epoch) of the weights that are kept so far.
        kept: these weights, if best.safetensors does not hold them yet.
        seconds: of training before this process.
        initial_weights: which of them come from `train.init_from`, see `segkit.training.initial`; None without one.
    """

    def __init__(self, trial: Trial, parts: Setup) -> None:
        self.trial, self.recipe, self.parts = trial, trial.recipe, parts
        self.folder = Folder(trial.path)
        self.history = History()
        self.waiting: Waiting | None = None
        self.best: tuple[float, int] | None = None
        self.kept: Kept | None = None
        self.warnings: list[str] = []
        self.seconds = 0.0
        self.initial_weights = parts.initial_weights
        self._started = self._written = time.monotonic()

    @property
    def stopped_early(self) -> bool:
        """Whether `train.patience` has ended the training before its last epoch."""
        done = len(self.history) + (self.waiting is not None)
        return patience_ended(self.recipe.train, done, self.best[1] if self.best else None)

    def warn(self, text: str) -> Event:
        """Record a warning and return it as an event."""
        if text not in self.warnings:
            self.warnings.append(text)
        return Event(self.trial.name, "warning", text)

    @property
    def computing(self) -> bool:
        """Whether metrics of the last epoch are still computed."""
        later = self.waiting.validated.later if self.waiting else None
        return later is not None and not later.done()

    def end_epoch(self) -> Iterator[Event]:
        """Complete the row of an epoch that waits for metrics, and yield the epoch's event; raises as these do."""
        found, self.waiting = self.waiting, None
        if found is None:
            return
        values = {f"val_{key}": value for key, value in self.parts.validation.means(found.validated).items()}
        row = found.first | values | found.last
        self.history.append(row)
        if time.monotonic() - self._written > WRITE_SECONDS:
            self.write_metrics()
        yield Event(self.trial.name, "epoch", values=row | found.shown)

    def write_metrics(self) -> None:
        """Write metrics.csv."""
        if self.history:
            self.history.write(self.folder / "metrics.csv")
            self._written = time.monotonic()

    def write_status(self, status: str, error: str | None = None) -> None:
        """Write trial.json."""
        parts, data = self.parts, self.parts.data
        tags = {case.name: dict(case.tags) for case in _evaluated_volumes(parts) if case.tags}
        known = self.trial.outline(status, error).model_dump() | {
            "epochs_done": len(self.history),
            "best_epoch": self.best[1] if self.best else None,
            **({"stopped_early": True} if self.stopped_early else {}),
            "seconds": round(self.seconds_so_far(), 3),
            "warnings": self.warnings,
            "hardware": hardware_name(parts.device.device),
            "resident": self.recipe.train.resident is True,
            "plugins": plugin_hashes(self.recipe),
            "data": {
                "name": data.name,
                "cases": len(data.cases),
                "patients": len({case.patient for case in data.cases if case.patient}),
                "fingerprint": data.fingerprint,
                **({"tags": tags} if tags else {}),
            },
            "first_batch": parts.state.first_batch,
            "evaluated_with": self.recipe.evaluation.text or None,
            "select": self.recipe.train.select,
            "initial_weights": self.initial_weights,
        }
        Status(**known | self.conditions()).write(self.folder / "trial.json")

    def conditions(self) -> dict[str, Any]:
        """Return what both trial.json and the checkpoints say of how, and on which cases, the trial is trained."""
        parts, train = self.parts, self.recipe.train
        sets = {"train": parts.split.train, "validation": parts.split.validation, "test": parts.split.test}
        if parts.split.unlabelled:
            sets["unlabelled"] = parts.split.unlabelled
        return {
            "device": str(parts.device.device),
            "precision": parts.device.precision,
            "threads": train.threads,
            "compile": train.compile,
            "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONS},
            "channels": list(parts.data.channels),
            "split": {name: [parts.data.cases[n].name for n in numbers] for name, numbers in sets.items()},
        }

    def seconds_so_far(self) -> float:
        """Return how long the trial has been trained, earlier processes included."""
        return self.seconds + time.monotonic() - self._started


def _evaluated_volumes(parts: Setup) -> list[StoredCase]:
    """Return the volumes that are not trained on."""
    trained = set(parts.split.train)
    return [case for n, case in enumerate(parts.data.cases) if len(case.shape) == 3 and n not in trained]


def keep(record: Record, score: float) -> None:
    """Keep the weights of the epoch that has just ended, until `save` writes them."""
    state, before = record.parts.state, record.kept.weights if record.kept else {}
    weights = {
        name: before[name].copy_(tensor) if name in before else tensor.detach().clone()
        for name, tensor in state.evaluated.state_dict().items()
    }
    record.kept = Kept(weights, state.epoch - 1, state.step)
    record.best = (score, state.epoch - 1)


def save(record: Record) -> None:
    """Write metrics.csv and the state of the training: first the best weights, which that does not hold.

    Raises:
        ComponentError: the state of a plugin's optimizer, scheduler or step cannot be saved.
    """
    record.write_metrics()
    save_best(record)
    _save_last(record)


def save_best(record: Record) -> None:
    """Write the best weights as best.safetensors, if it does not hold them."""
    if record.kept is not None:
        checkpoint.save(record.folder / "best.safetensors", record.kept.weights, _meta(record, "best"))
        record.kept = None


def refresh_best(record: Record, found: checkpoint.Checkpoint) -> None:
    """Write best.safetensors again, with the same weights, if it says another evaluation than the trial's recipe.

    What is evaluated and predicted from the file is then what the trial's cases.csv holds.
    """
    now, stored = _meta(record, "best"), {plugin["sha256"] for plugin in found.meta["plugins"]}
    parts = [part for component in record.recipe.evaluation.postprocess for part in parts_of(component)]
    used = {plugin.sha256 for plugin in plugins.used_by(parts)}
    if evaluation_settings(found.meta["recipe"]) != evaluation_settings(now["recipe"]) or not used <= stored:
        changed = {name: now[name] for name in ("recipe", "plugins")}
        checkpoint.save(record.folder / "best.safetensors", found.weights, found.meta | changed)


def _save_last(record: Record) -> None:
    """Write everything that training changes as last.safetensors; raises as `save` does."""
    state, device, slot = record.parts.state, record.parts.device, "optimizer"
    try:
        optimizer = state.optimizer.state_dict()
        slot = "scheduler"
        schedule = state.schedule.state_dict()
    except BaseException as error:
        raise_fault(state.blamed(slot), error)
    extra = {
        "optimizer": optimizer,
        "schedule": schedule,
        "scaler": state.scaler.state_dict(),
        "rng": {"cpu": torch.get_rng_state()}
        | ({"cuda": torch.cuda.get_rng_state(device.device)} if device.is_cuda else {}),
        "epoch": state.epoch,
        "batch": state.batch,
        "step": state.step,
        "rate": state.rate,
        "sums": state.sums,
        "first_batch": state.first_batch,
        "history": record.history.state(),
        "best": list(record.best) if record.best else None,
        "warnings": record.warnings,
        "seconds": record.seconds_so_far(),
    }
    owned = state.training_step.owned.state()
    extra |= {"training_step": owned} if owned else {}
    extra |= {"raw_weights": state.model.state_dict()} if state.average is not None else {}
    try:
        checkpoint.save(record.folder / "last.safetensors", state.evaluated.state_dict(), _meta(record, "last"), extra)
    except TypeError as error:  # it names the part of the state that cannot be saved
        raise_fault(state.blamed("scheduler" if str(error).startswith("state.schedule") else "optimizer"), error)


def _meta(record: Record, kind: str) -> dict[str, Any]:
    parts, rows, kept = record.parts, record.history, record.kept if kind == "best" else None
    epoch, step = (kept.epoch, kept.step) if kept else (parts.state.epoch, parts.state.step)
    row = rows[-1] if rows else {}
    if kept:
        row = rows[epoch - 1] if epoch <= len(rows) else {}  # it failed with a metric of that epoch
    used = plugins.used_by(record.recipe.components())
    return {
        "kind": kind,
        "training_number": TRAINING_NUMBER,
        "identity": record.trial.identity,
        "variant": record.trial.variant,
        "recipe": record.recipe.dump(),
        "exclusive": record.recipe.channels == "exclusive",
        "inputs": list(parts.data.inputs),
        "overlapping": any(parts.data.cases[number].overlapping for number in parts.split.train),
        "normalization": {name: list(found) for name, found in vars(parts.feed.normalization).items()},
        "metrics": {name: x if math.isfinite(x) else None for name, x in row.items() if name.startswith("val_")},
        "epoch": epoch,
        "step": step,
        "fingerprint": parts.data.fingerprint,
        "initial_weights": record.initial_weights,
        "trained_patients": _trained_patients(record),
        "validation_patients": _patients(parts, parts.split.validation),
        "plugins": [{"module": p.module, "origin": p.origin, "sha256": p.sha256, "sources": p.sources} for p in used],
    } | record.conditions()


def _trained_patients(record: Record) -> list[str]:
    """Return whose cases the weights are of, those of the checkpoint that training began with included."""
    own = _patients(record.parts, (*record.parts.split.train, *record.parts.split.unlabelled))
    return list(dict.fromkeys([*own, *(record.initial_weights or {}).get("patients", ())]))


def _patients(parts: Setup, cases: Iterable[int]) -> list[str]:
    """Return the patients of cases, each once."""
    found = (parts.data.cases[number].patient for number in cases)
    return list(dict.fromkeys(patient for patient in found if patient is not None))


def save_batch(record: Record, error: NonFiniteError) -> str:
    """Save the batch on which a loss was not finite; return the file's name."""
    path = record.folder / "nonfinite.safetensors"
    tensors = {"image": error.image.detach().cpu(), "target": error.target.detach().cpu()}
    checkpoint.save_tensors(path, tensors, {"terms": {name: str(value) for name, value in error.terms.items()}})
    return str(path)
