"""The training loop: a generator that trains and yields a report an epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from segkit.components.schedulers import Schedule
from segkit.device import Device
from segkit.registry.component import Component
from segkit.registry.faults import blame
from segkit.training.guards import Watch, look_back
from segkit.training.moves import Moves
from segkit.training.objective import Objective, gradient_shares


class Batches(Protocol):
    """What the loop trains on: (image, target) float tensors on the device, the same for an epoch whenever asked."""

    steps_per_epoch: int

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch (from 1), beginning with batch `start`."""


@dataclass
class State:
    """Everything that training changes: saved and restored, it goes on to the bit.

    Attributes:
        epoch: the epoch under way, from 1.
        batch: batches done of that epoch.
        step: optimizer steps done in all.
        rate: the learning rate at the epoch's begin.
        sums: per summand, the sum of its batch means in this epoch; on the device.
        parts: the recipe's components by slot, to be named where one fails.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    objective: Objective
    epoch: int = 1
    batch: int = 0
    step: int = 0
    rate: float = 0.0
    sums: Tensor | None = None
    first_batch: list[dict[str, Any]] = field(default_factory=list)
    parts: Mapping[str, Component] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.watch, self.moves = Watch(self), Moves(self)


@dataclass(frozen=True)
class Report:
    """What the loop hands its caller: a finished epoch, or a pause within one."""

    epoch: int
    step: int
    complete: bool
    learning_rate: float
    losses: dict[str, float]
    images_per_second: float


def train(
    state: State,
    batches: Batches,
    device: Device,
    *,
    epochs: int,
    accumulate: int = 1,
    clip_norm: float | None = None,
    pause: Callable[[int], bool] = lambda step: False,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Report]:
    """Train from `state` to the end of epoch `epochs`; yield a report an epoch, and one wherever `pause` says.

    Between two reports of an epoch nothing is reset: a caller may save the state at any of them. Epoch-wise schedules
    are the caller's to step, since they may follow its validation loss.
    """
    forward = forward or state.model
    objective, optimizer, scaler = state.objective, state.optimizer, state.scaler
    watch = state.watch
    total, autocast = batches.steps_per_epoch, device.autocast()
    while state.epoch <= epochs:
        state.model.train()
        if state.batch == 0:
            state.rate = float(optimizer.param_groups[0]["lr"])
        seen, started = 0, time.perf_counter()
        for image, target in batches.epoch(state.epoch, state.batch):
            with autocast:
                scores = forward(image)
            values = objective.terms(scores, target)
            loss = objective.total(values)
            if not state.first_batch:
                state.first_batch = _shares(state, values, scores, target)
            row = watch(values, loss, (image, target, scores))
            group = min(accumulate, total - state.batch // accumulate * accumulate)
            _backward(state, loss if group == 1 else loss / group)
            state.sums = row.clone() if state.sums is None else state.sums.add_(row)
            state.batch += 1
            seen += image.shape[0]
            if state.batch % accumulate == 0 or state.batch == total:
                if clip_norm is not None:
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(state.model.parameters(), clip_norm)
                _step(state)
                state.step += 1
                if pause(state.step) and state.batch < total:
                    watch.settle()
                    yield _report(state, seen, started, complete=False)
        watch.settle()
        state.moves.settle()
        report = _report(state, seen, started, complete=True)
        state.epoch, state.batch, state.sums = state.epoch + 1, 0, None
        yield report


def _shares(state: State, values: Sequence[Tensor], scores: Tensor, target: Tensor) -> list[dict[str, Any]]:
    try:
        shares = gradient_shares(values, state.objective)
    except BaseException as error:
        blame(_involved(state), error)
    look_back(state, scores, target, finite=all(math.isfinite(row["gradient_share"]) for row in shares))
    return shares


def _backward(state: State, loss: Tensor) -> None:
    try:
        state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    except BaseException as error:
        blame(_involved(state), error)


def _involved(state: State) -> list[Component]:
    """Return what takes part in a gradient."""
    terms = (*state.objective.losses, *state.objective.penalties)
    return [*(term.component for term in terms), *(state.parts[slot] for slot in state.parts if slot == "model")]


def _step(state: State) -> None:
    """Move the weights, and the learning rate of a schedule by step."""
    slot, optimizer = "optimizer", state.optimizer
    try:
        state.moves.before()
        state.scaler.step(optimizer)
        state.moves.after()
        state.scaler.update()
        if state.objective.steps:
            state.objective.step(optimizer.param_groups[0]["lr"])
        optimizer.zero_grad()
        slot = "scheduler"
        state.schedule.step_batch()
    except BaseException as error:
        blame([state.parts[slot]] if slot in state.parts else [], error)


def _report(state: State, seen: int, started: float, *, complete: bool) -> Report:
    """Return the means so far; the one place where the loop waits for the device."""
    sums = state.sums.tolist() if state.sums is not None else []
    means = {name: value / max(state.batch, 1) for name, value in zip(state.objective.names, sums, strict=False)}
    means["train_loss"] = sums[-1] / max(state.batch, 1) if sums else float("nan")
    speed = seen / max(time.perf_counter() - started, 1e-9)
    return Report(state.epoch, state.step, complete, state.rate, means, speed)
