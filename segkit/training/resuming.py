"""How a trial resumes from its files."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import torch

from segkit.errors import UserError
from segkit.recipe.identity import (
    TRAINING_NUMBER,
    differences,
    incomparable_note,
    not_resumable,
    with_current_defaults,
)
from segkit.training import checkpoint
from segkit.training.flatten import load_optimizer
from segkit.training.record import Record
from segkit.training.results import History
from segkit.training.selection import patience_ended
from segkit.training.status import Status
from segkit.training.trial import Trial

EVALUATED = ("best.safetensors", "cases.csv")
"""Files of a trial whose training has ended with a save."""


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
    state.training_step.owned.load(saved.get("training_step", {}))
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
    record.best = _best(record, saved["best"])
    record.warnings, record.seconds = saved["warnings"], saved["seconds"]
    record.initial_weights = found.meta["initial_weights"]
    if state.epoch > record.recipe.train.epochs or record.stopped_early:
        return "trained already: evaluated again"
    return f"resumes in epoch {state.epoch}, after step {state.step}"


def _best(record: Record, saved: Sequence[Any] | None) -> tuple[float, int] | None:
    """Return score and epoch of the best weights; None if best.safetensors does not hold them.

    It is written first, and so may be ahead of the state: then the epoch whose weights it holds is trained again.
    """
    with contextlib.suppress(UserError):  # it is damaged, or gone
        if saved is not None and checkpoint.load(record.folder / "best.safetensors").meta["epoch"] == saved[1]:
            return saved[0], saved[1]
    return None


def has_begun(trial: Trial) -> bool:
    """Return whether a trial resumes, or is evaluated again: it does not need its initial weights any more."""
    return (trial.path / "last.safetensors").exists() or _finished(trial) is not None


def _finished(trial: Trial) -> tuple[Status, History, int] | None:
    """Return status, history and best epoch of a trial whose training is over and whose best checkpoint is there."""
    status = Status.find(trial.path)
    if status is None or status.limited or not all((trial.path / name).is_file() for name in EVALUATED):
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
