"""The watch over the losses of a training: one that is not finite stops it, and the likely cause is named."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segkit.registry.component import Component
from segkit.registry.faults import ComponentError, fault, plugin_parts
from segkit.training.objective import Objective
from segkit.training.step_watch import StepWatch

Batch = tuple[Tensor, Tensor, Tensor]  # image, target, scores


class NonFiniteError(Exception):
    """A loss is not finite; training stops.

    Attributes:
        terms: the value of each summand, in the order of the recipe.
        image, target: the batch on which it happened.
    """

    def __init__(self, message: str, terms: dict[str, float], image: Tensor, target: Tensor) -> None:
        super().__init__(message)
        self.terms, self.image, self.target = terms, image, target


class LossWatch:
    """Checks that losses are finite without making the host wait: on CUDA a step is read when its copy has arrived.

    Args:
        objective: whose values are checked.
        optimizer: whose learning rate is named where it is the likely cause.
        parts: the recipe's components by slot, to be named where one fails.
        steps: the watch over the optimizer's steps.
    """

    def __init__(
        self, objective: Objective, optimizer: torch.optim.Optimizer, parts: Mapping[str, Component], steps: StepWatch
    ) -> None:
        self.objective, self.optimizer, self.parts, self.steps = objective, optimizer, parts, steps
        self._pending: deque[tuple[Tensor, Any, Batch, int, int]] = deque()
        self._last: Batch | None = None  # on which the loss was finite

    def __call__(self, values: Sequence[Tensor], loss: Tensor, batch: Batch, epoch: int, step: int) -> Tensor:
        """Check the summands and their total; return them as one vector on the device.

        Args:
            values: the summands.
            loss: their weighted sum.
            batch: image, target and scores.
            epoch: the epoch under way, from 1.
            step: optimizer steps done in all.

        Raises:
            NonFiniteError: this step's loss, or on CUDA an earlier one's, is not finite.
        """
        if len(values) == 1 and values[0] is loss:
            row = loss.detach().expand(2)  # half of what stacking costs
        else:
            row = torch.stack([value.detach().reshape(()) for value in (*values, loss)])
        image, target, scores = batch
        batch = image, target, scores.detach()
        if row.is_cuda:
            copy = torch.empty(row.shape, dtype=row.dtype, pin_memory=True)
            copy.copy_(row, non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
            self._pending.append((copy, arrived, batch, epoch, step))
            while self._pending and self._pending[0][1].query():
                self._check(*self._pending.popleft())
        else:
            self._check(row, None, batch, epoch, step)
        return row

    def check_pending(self) -> None:
        """Check every step that the device had not finished yet.

        Raises:
            NonFiniteError: the loss of one is not finite.
        """
        while self._pending:
            self._pending[0][1].synchronize()
            self._check(*self._pending.popleft())

    def fault_in_step(self, step: int) -> ComponentError | None:
        """Return the error of the plugin that made the last step's gradients or weights not finite, if one did."""
        if self._last is None:
            return None
        _, target, scores = self._last
        return self.objective.infinite_gradient(scores, target) or self.steps.infinite_weights(step)

    def _check(self, row: Tensor, arrived: Any, batch: Batch, epoch: int, step: int) -> None:
        found = row.tolist()
        if abs(found[-1]) < float("inf"):  # false for NaN too
            self._last = batch
            return
        image, target, _ = batch
        terms = dict(zip(self.objective.names, found, strict=False))
        bad = [name for name, value in terms.items() if not abs(value) < float("inf")] or ["their weighted sum"]
        shown = ", ".join(f"{name} = {value:.4g}" for name, value in terms.items())
        message = f"{', '.join(bad)} is not finite at epoch {epoch}, step {step + 1} ({shown})."
        raise NonFiniteError(f"{message} {self._cause(terms, batch, step)}", terms, image, target)

    def _cause(self, terms: dict[str, float], batch: Batch, step: int) -> str:
        image, target, scores = batch
        if not bool(torch.isfinite(image).all()):
            return "The images themselves contain non-finite values: check the transforms and the data."
        wrong = self.objective.infinite_value(terms, scores, target)
        if wrong is not None:
            return str(wrong)
        model = self.parts.get("model")
        part = next(plugin_parts(model), None) if model is not None and step == 0 else None
        if part is not None and not bool(torch.isfinite(scores).all()):
            return str(fault(part, "the model's scores are not finite before any step.", within=model))
        wrong = self.fault_in_step(step)
        if wrong is not None:
            return str(wrong)
        rate = float(self.optimizer.param_groups[0]["lr"])
        return (
            f"Likely a learning rate that is too high ({rate:g} now) or a loss that overflows: lower optimizer lr, set "
            'train.clip_norm, or train.precision = "float32".'
        )

    def explain_validation(self, module: nn.Module, epoch: int, step: int, value: float) -> str:
        """Return why the validation loss of an epoch is not finite although every training loss was.

        Args:
            module: the network, after the epoch.
            epoch: its number.
            step: optimizer steps done in all.
            value: the loss.
        """
        model = self.parts.get("model")
        part = next(plugin_parts(model), None) if model is not None else None
        weights = (*module.parameters(), *module.buffers())
        if part is not None and all(bool(torch.isfinite(weight).all()) for weight in weights):
            text = (
                f"its scores in evaluation make the validation loss {value} after epoch {epoch}, with finite weights."
            )
            return str(fault(part, text, within=model))
        wrong = self.fault_in_step(step)
        if wrong is not None:
            return f"the validation loss is {value} after epoch {epoch}. {wrong}"
        return (
            f"the validation loss is {value} after epoch {epoch}, though every training loss was finite: the last "
            "step's gradient exploded. Lower optimizer lr or set train.clip_norm; the state before this epoch is saved."
        )
