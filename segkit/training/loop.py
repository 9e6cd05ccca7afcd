"""The training loop, a generator that yields after every step of the optimizer, and the state that it changes."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from segkit.components.schedulers import Schedule, scaled_rates, warmth
from segkit.device import Device
from segkit.registry.component import Component
from segkit.registry.faults import raise_fault
from segkit.training.average import Average
from segkit.training.loss_watch import LossWatch
from segkit.training.objective import Objective
from segkit.training.step_watch import StepWatch
from segkit.training.training_step import Seen, TrainingStep
from segkit.types import Batch, Forward, Scores


class Batches(Protocol):
    """What the loop trains on: batches on the device, the same whenever an epoch is asked for."""

    steps_per_epoch: int

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch (from 1), beginning with batch `start`."""


@dataclass
class State:
    """The model and what moves it, and how far the training has come; saved and restored, it continues to the bit.

    Attributes:
        scaler: of the loss, for float16.
        training_step: computes the losses of a batch.
        average: of the model's weights, if the recipe asks for one.
        parts: the recipe's components by slot, to be named in errors.
        warmup: optimizer steps over which the rates rise to the schedule's.
        epoch: the epoch under way, from 1.
        batch: batches done of that epoch.
        step: optimizer steps done in all.
        rate: the learning rate at the beginning of the epoch.
        sums: per summand, the sum of its batch means in this epoch; on the device.
        first_batch: value, weight and gradient share of each summand on the first batch.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    objective: Objective
    training_step: TrainingStep = field(default_factory=TrainingStep)
    average: Average | None = None
    parts: Mapping[str, Component] = field(default_factory=dict)
    warmup: int = 0
    epoch: int = 1
    batch: int = 0
    step: int = 0
    rate: float = 0.0
    sums: Tensor | None = None
    first_batch: list[dict[str, Any]] = field(default_factory=list)

    def blamed(self, slot: str) -> list[Component]:
        """Return the component of a slot, if the recipe has one, to be named in an error."""
        return [self.parts[slot]] if slot in self.parts else []

    @property
    def evaluated(self) -> nn.Module:
        """The model that is validated and kept: with the averaged weights where there are such."""
        return self.model if self.average is None else self.average.model

    def __post_init__(self) -> None:
        self.step_watch = StepWatch(self.objective, self.optimizer, self.parts, self.training_step.module)
        self.loss_watch = LossWatch(self.objective, self.step_watch)


@dataclass(frozen=True)
class Report:
    """What the loop yields after a step; it is valid until the next one is asked for.

    Attributes:
        epoch: the epoch of the step, from 1.
        step: steps done in all.
        rate: the learning rate at the beginning of the epoch.
        complete: whether the step was the epoch's last.
        seen: images since the epoch began, or was resumed.
        seconds: of training since then.
    """

    state: State
    epoch: int
    step: int
    rate: float
    complete: bool
    seen: int
    seconds: float

    @functools.cached_property
    def losses(self) -> dict[str, float]:
        """Each summand's mean over the epoch so far, and `train_loss`, their weighted sum; waits for the device.

        Raises:
            NonFiniteError: a loss up to this step is not finite.
        """
        state = self.state
        state.loss_watch.check_pending()
        sums = state.sums.tolist() if state.sums is not None else []
        means = {name: value / max(state.batch, 1) for name, value in zip(state.objective.names, sums, strict=False)}
        return means | {"train_loss": sums[-1] / max(state.batch, 1) if sums else math.nan}


def train(
    state: State,
    batches: Batches,
    device: Device,
    *,
    epochs: int,
    accumulate: int = 1,
    clip_norm: float | None = None,
    forward: Forward | None = None,
) -> Iterator[Report]:
    """Train from `state` to the end of epoch `epochs`; yield a report after every step of the optimizer.

    A caller may save the state at any of them, once it has asked for the losses. Epoch-wise schedules are the caller's
    to step, since they may follow its validation loss.
    """
    model, training_step = _in_precision(forward or state.model, device), state.training_step
    objective, optimizer, scaler, watch = state.objective, state.optimizer, state.scaler, state.loss_watch
    total = batches.steps_per_epoch
    while state.epoch <= epochs:
        state.model.train()
        if state.batch == 0:
            state.rate = float(optimizer.param_groups[0]["lr"]) * warmth(state.step, state.warmup)
        seen, started = 0, time.perf_counter()
        for batch in batches.epoch(state.epoch, state.batch):
            values, scored = training_step(model, batch, objective)
            loss = objective.total(values)
            if not state.first_batch:
                state.first_batch = _shares(state, values, scored)
            row = watch(values, loss, batch, scored, state.epoch, state.step)
            group = min(accumulate, total - state.batch // accumulate * accumulate)
            _backward(state, loss if group == 1 else loss / group)
            state.sums = row.clone() if state.sums is None else state.sums.add_(row)
            state.batch += 1
            seen += batch.image.shape[0]
            if state.batch % accumulate == 0 or state.batch == total:
                if clip_norm is not None:
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(state.model.parameters(), clip_norm)
                _step(state)
                if state.batch < total:
                    report, paused = _report(state, False, seen, started), time.perf_counter()
                    yield report
                    started += time.perf_counter() - paused  # what the caller does is not training
        _ = _report(state, True, seen, started).losses  # the host waits for the device, whose time counts
        report = _report(state, True, seen, started)
        _ = report.losses
        state.step_watch.end_epoch()
        state.epoch, state.batch, state.sums = state.epoch + 1, 0, None
        yield report


def _in_precision(forward: Forward, device: Device) -> Forward:
    """Return the forward pass as a step gets it: in the device's precision, scores in float32 whatever that is."""
    autocast = device.autocast()

    def run(image: Tensor) -> Scores:
        with autocast:
            scores = forward(image)
        if isinstance(scores, tuple):
            return tuple(level.float() for level in scores)
        return scores if scores.dtype == torch.float32 else scores.float()

    return run


def _report(state: State, complete: bool, seen: int, started: float) -> Report:
    return Report(state, state.epoch, state.step, state.rate, complete, seen, time.perf_counter() - started)


def _shares(state: State, values: Sequence[Tensor], scored: Seen | None) -> list[dict[str, Any]]:
    try:
        shares = state.objective.gradient_shares(values)
    except BaseException as error:
        raise_fault(_involved(state), error)
    finite = all(math.isfinite(row["gradient_share"]) for row in shares)
    state.step_watch.check_first_batch(state.model, values, scored, finite=finite)
    return shares


def _backward(state: State, loss: Tensor) -> None:
    try:
        state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    except BaseException as error:
        raise_fault(_involved(state), error)


def _involved(state: State) -> list[Component]:
    """Return the components that take part in a gradient."""
    terms = (*state.objective.losses, *state.objective.penalties)
    return [*state.blamed("step"), *(term.component for term in terms), *state.blamed("model")]


def _step(state: State) -> None:
    """Step the optimizer, and a schedule that steps with it."""
    slot, optimizer = "optimizer", state.optimizer
    try:
        warm = state.step >= state.warmup
        with contextlib.nullcontext() if warm else scaled_rates(optimizer, warmth(state.step, state.warmup)):
            state.step_watch.before_step(state.step)
            state.scaler.step(optimizer)
            state.step_watch.after_step()
            state.scaler.update()
            if state.objective.steps:
                state.objective.step(optimizer.param_groups[0]["lr"])
        optimizer.zero_grad()
        slot = "scheduler"
        state.schedule.step_batch()
    except BaseException as error:
        raise_fault(state.blamed(slot), error)
    state.training_step.updated(state.model)
    if state.average is not None:
        state.average.update(state.step)
    state.step += 1
