"""The record of a trial while it runs, its files and checkpoints, and how it resumes from them."""

from __future__ import annotations

import math
import platform
import time
from importlib.metadata import version
from typing import Any

import torch

from segkit import plugins
from segkit.data.cases import StoredCase
from segkit.device import hardware_name
from segkit.errors import UserError
from segkit.locks import Folder
from segkit.recipe.identity import (
    TRAINING_NUMBER,
    differences,
    evaluation_settings,
    incomparable_note,
    not_resumable,
    plugin_hashes,
    with_current_defaults,
)
from segkit.registry.faults import parts_of, raise_fault
from segkit.training import checkpoint
from segkit.training.flatten import load_optimizer
from segkit.training.loss_watch import NonFiniteError
from segkit.training.results import History
from segkit.training.selection import patience_ended
from segkit.training.setup import Setup
from segkit.training.status import Status
from segkit.training.trial import Event, Trial

# whose versions a result may depend on
VERSIONS = ("segkit", "torch", "numpy", "albumentations", "opencv-python-headless", "safetensors")


class Record:
    """What is known of a trial that runs, and the files that say so.

    Attributes:
        history: the rows of metrics.csv.
        best: (score, epoch) of the checkpoint that is kept so far.
        seconds: of training before this process.
        initial_weights: which of them come from `train.init_from`, see `segkit.training.initial`; None without one.
    """

    def __init__(self, trial: Trial, parts: Setup) -> None:
        self.trial, self.recipe, self.parts = trial, trial.recipe, parts
        self.folder = Folder(trial.path)
        self.history = History()
        self.best: tuple[float, int] | None = None
        self.warnings: list[str] = []
        self.seconds = 0.0
        self.initial_weights = parts.initial_weights
        self._started = time.monotonic()

    @property
    def stopped_early(self) -> bool:
        """Whether `train.patience` has ended the training before its last epoch."""
        return patience_ended(self.recipe.train, len(self.history), self.best[1] if self.best else None)

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
        parts, data = self.parts, self.parts.data
        tags = {case.name: dict(case.tags) for case in _evaluated_volumes(parts) if case.tags}
        known = self.trial.outline(status, error).model_dump() | {
            "epochs_done": len(self.history),
            "best_epoch": self.best[1] if self.best else None,
            **({"stopped_early": True} if self.stopped_early else {}),
            "seconds": round(self.seconds_so_far(), 3),
            "warnings": self.warnings,
            "hardware": hardware_name(parts.device.device),
            "plugins": plugin_hashes(self.recipe),
            "data": {
                "name": data.name,
                "cases": len(data.cases),
                "patients": len({case.patient for case in data.cases if case.patient}),
                "fingerprint": data.fingerprint,
                **({"tags": tags} if tags else {}),
            },
            "first_batch": parts.state.first_batch,
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


def save_best(record: Record) -> None:
    """Write the current weights as best.safetensors."""
    weights = record.parts.state.evaluated.state_dict()
    checkpoint.save(record.folder / "best.safetensors", weights, _meta(record, "best"))


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


def save_last(record: Record) -> None:
    """Write everything that training changes as last.safetensors.

    Raises:
        ComponentError: the state of a plugin's optimizer, scheduler or step cannot be saved.
    """
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
    owned = state.training_step.state()
    extra |= {"training_step": owned} if owned else {}
    extra |= {"raw_weights": state.model.state_dict()} if state.average is not None else {}
    try:
        checkpoint.save(record.folder / "last.safetensors", state.evaluated.state_dict(), _meta(record, "last"), extra)
    except TypeError as error:  # it names the part of the state that cannot be saved
        raise_fault(state.blamed("scheduler" if str(error).startswith("state.schedule") else "optimizer"), error)


def _meta(record: Record, kind: str) -> dict[str, Any]:
    parts = record.parts
    used = plugins.used_by(record.recipe.components())
    last = record.history[-1] if record.history else {}
    trained = (parts.data.cases[n].patient for n in (*parts.split.train, *parts.split.unlabelled))
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
        "metrics": {name: x if math.isfinite(x) else None for name, x in last.items() if name.startswith("val_")},
        "epoch": parts.state.epoch - (kind == "best"),
        "step": parts.state.step,
        "fingerprint": parts.data.fingerprint,
        "initial_weights": record.initial_weights,
        "trained_patients": list(dict.fromkeys(patient for patient in trained if patient is not None)),
        "plugins": [{"module": p.module, "origin": p.origin, "sha256": p.sha256, "sources": p.sources} for p in used],
    } | record.conditions()


def save_batch(record: Record, error: NonFiniteError) -> str:
    """Save the batch on which a loss was not finite; return the file's name."""
    path = record.folder / "nonfinite.safetensors"
    tensors = {"image": error.image.detach().cpu(), "target": error.target.detach().cpu()}
    checkpoint.save_tensors(path, tensors, {"terms": {name: str(value) for name, value in error.terms.items()}})
    return str(path)


def restore(record: Record) -> str:
    """Resume from last.safetensors where there is one; return a line for the log, "" for a new start.

    Raises:
        UserError: the checkpoint is damaged, of another trial, or the data is not what it was trained on.
    """
    path = record.folder / "last.safetensors"
    if not path.exists():
        return _restore_finished(record)
    found = checkpoint.load(path, with_state=True)
    if found.meta["training_number"] != TRAINING_NUMBER:
        raise UserError(f"{path}: {incomparable_note(found.meta['training_number'])}. Train it again with --fresh.")
    changed = not_resumable(differences(with_current_defaults(found.meta["recipe"], str(path)), record.recipe.dump()))
    if changed:
        what = "; ".join(f"{key} {text}" for key, text in changed.items())
        raise UserError(f"{path}: belongs to another trial: {what}. Train it again with --fresh.")
    if found.meta["fingerprint"] != record.parts.data.fingerprint:
        raise UserError(
            f"{path}: the data has changed since this trial began (its fingerprint differs). "
            "Restore the data, or train again with --fresh."
        )
    state, saved = record.parts.state, found.state
    if saved is None:
        raise UserError(f"{path}: holds no training state. Train it again with --fresh.")
    checkpoint.load_into(state.evaluated, found.weights, str(path))
    if state.average is not None:
        state.model.load_state_dict(saved["raw_weights"])
    state.training_step.load(saved.get("training_step", {}))
    load_optimizer(state.optimizer, saved["optimizer"])
    state.schedule.load_state_dict(saved["schedule"])
    state.scaler.load_state_dict(saved["scaler"])
    torch.set_rng_state(saved["rng"]["cpu"])
    device = record.parts.device.device
    if device.type == "cuda" and "cuda" in saved["rng"]:
        torch.cuda.set_rng_state(saved["rng"]["cuda"], device)
    state.epoch, state.batch, state.step, state.rate = (saved[name] for name in ("epoch", "batch", "step", "rate"))
    state.sums = saved["sums"].to(device) if saved["sums"] is not None else None
    state.first_batch, record.history = saved["first_batch"], History.of(saved["history"])
    record.best = (saved["best"][0], saved["best"][1]) if saved["best"] else None
    record.warnings, record.seconds = saved["warnings"], saved["seconds"]
    record.initial_weights = found.meta["initial_weights"]
    if state.epoch > record.recipe.train.epochs or record.stopped_early:
        return "trained already: evaluated again"
    return f"resumes in epoch {state.epoch}, after step {state.step}"


def has_begun(trial: Trial) -> bool:
    """Return whether a trial resumes, or is evaluated again: it does not need its initial weights any more."""
    return (trial.path / "last.safetensors").exists() or _finished(trial) is not None


def _finished(trial: Trial) -> tuple[Status, History, int] | None:
    """Return status, history and best epoch of a trial whose training is over and whose best checkpoint is there."""
    status = Status.find(trial.path)
    if status is None or status.limited or not (trial.path / "best.safetensors").is_file():
        return None
    try:
        history = History.read(trial.path / "metrics.csv")
    except ValueError:
        return None
    train, best = trial.recipe.train, status.best_epoch
    ended = len(history) == train.epochs or patience_ended(train, len(history), best)
    return (status, history, best) if best is not None and len(history) == status.epochs_done and ended else None


def _restore_finished(record: Record) -> str:
    """Restore a finished trial that has no last.safetensors, to evaluate it again; return a line for the log."""
    found = _finished(record.trial)
    if found is None:
        return ""
    status, record.history, best = found
    record.best = (math.nan, best)
    record.warnings, record.seconds = status.warnings, status.seconds
    record.initial_weights = status.initial_weights
    record.parts.state.first_batch = status.first_batch
    record.parts.state.epoch = record.recipe.train.epochs + 1
    return "trained already: evaluated again"
