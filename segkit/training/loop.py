"""The training loop: a generator that yields after every step of the optimizer."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from segkit.device import Device
from segkit.registry.component import Component
from segkit.registry.faults import raise_fault
from segkit.training.first_batch import check_gradients, gradient_shares
from segkit.training.state import State


class Batches(Protocol):
    """What the loop trains on: (image, target) float tensors on the device, the same whenever an epoch is asked for."""

    steps_per_epoch: int

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch (from 1), beginning with batch `start`."""


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
    forward: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Report]:
    """Train from `state` to the end of epoch `epochs`; yield a report after every step of the optimizer.

    A caller may save the state at any of them, once it has asked for the losses. Epoch-wise schedules are the caller's
    to step, since they may follow its validation loss.
    """
    forward = forward or state.model
    objective, optimizer, scaler, watch = state.objective, state.optimizer, state.scaler, state.loss_watch
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
            row = watch(values, loss, (image, target, scores.detach()), state.epoch, state.step)
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
                if state.batch < total:
                    yield _report(state, False, seen, started)
        report = _report(state, True, seen, started)
        _ = report.losses
        state.step_watch.end_epoch()
        state.epoch, state.batch, state.sums = state.epoch + 1, 0, None
        yield report


def _report(state: State, complete: bool, seen: int, started: float) -> Report:
    return Report(state, state.epoch, state.step, state.rate, complete, seen, time.perf_counter() - started)


def _shares(state: State, values: Sequence[Tensor], scores: Tensor, target: Tensor) -> list[dict[str, Any]]:
    try:
        shares = gradient_shares(values, state.objective)
    except BaseException as error:
        raise_fault(_involved(state), error)
    finite = all(math.isfinite(row["gradient_share"]) for row in shares)
    check_gradients(state, scores, target, finite=finite)
    return shares


def _backward(state: State, loss: Tensor) -> None:
    try:
        state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    except BaseException as error:
        raise_fault(_involved(state), error)


def _involved(state: State) -> list[Component]:
    """Return the components that take part in a gradient."""
    terms = (*state.objective.losses, *state.objective.penalties)
    return [*(term.component for term in terms), *state.blamed("model")]


def _step(state: State) -> None:
    """Step the optimizer, and a schedule that steps with it."""
    slot, optimizer = "optimizer", state.optimizer
    try:
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
    state.step += 1
