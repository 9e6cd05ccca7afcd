"""The watch over the losses of a training: one that is not finite stops it, and the likely cause is named."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segkit.registry.faults import ComponentError
from segkit.training.levels import detached
from segkit.training.objective import Objective
from segkit.training.step_watch import StepWatch
from segkit.training.tracing import all_finite, tensors_in
from segkit.training.training_step import Seen
from segkit.types import Batch


class NonFiniteError(Exception):
    """A loss is not finite; training stops. It holds the value of each summand, and the batch."""

    def __init__(self, message: str, terms: dict[str, float], image: Tensor, target: Tensor) -> None:
        super().__init__(message)
        self.terms, self.image, self.target = terms, image, target


class LossWatch:
    """Checks that losses are finite.

    On CUDA the host does not wait for them: a step is read when its copy has arrived, unless it is due at once.
    """

    def __init__(self, objective: Objective, steps: StepWatch) -> None:
        self.objective, self.steps = objective, steps
        self._pending: deque[tuple[Tensor, Any, Batch, Seen | None, int, int]] = deque()
        self._last: Seen | None = None  # scores on which the loss was finite

    def __call__(
        self, values: Sequence[Tensor], loss: Tensor, batch: Batch, scored: Seen | None, epoch: int, step: int
    ) -> Tensor:
        """Check a step's summands and their total, on CUDA those of earlier steps; return them as one vector.

        Raises:
            NonFiniteError: a loss is not finite.
        """
        if scored is not None:
            scored = detached(scored[0]), scored[1]
        if len(values) == 1 and values[0] is loss:
            row = loss.detach().expand(2)  # half of what stacking costs
        else:
            row = torch.stack([value.detach().reshape(()).to(loss.device) for value in (*values, loss)])
        if row.is_cuda:
            copy = torch.empty(row.shape, dtype=row.dtype, pin_memory=True)
            copy.copy_(row, non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record(torch.cuda.current_stream(row.device))
            self._pending.append((copy, arrived, batch, scored, epoch, step))
            if self.steps.at_once:
                self._pending[-1][1].synchronize()
            while self._pending and self._pending[0][1].query():
                self._check(*self._pending.popleft())
        else:
            self._check(row, None, batch, scored, epoch, step)
        return row

    def check_pending(self) -> None:
        """Wait for the steps that the device had not finished yet; raise NonFiniteError if a loss is not finite."""
        while self._pending:
            self._pending[0][1].synchronize()
            self._check(*self._pending.popleft())

    def _fault_in_step(self, step: int) -> ComponentError | None:
        """Return the error of the plugin that made the last step's gradients or weights not finite, if one did."""
        if self._last is None:
            return None
        return self.objective.infinite_gradient(*self._last) or self.steps.infinite_weights(step)

    def _check(self, row: Tensor, arrived: Any, batch: Batch, scored: Seen | None, epoch: int, step: int) -> None:
        found = row.tolist()
        if abs(found[-1]) < float("inf"):  # false for NaN too
            self._last = scored
            return
        terms = dict(zip(self.objective.names, found, strict=False))
        bad = [name for name, value in terms.items() if not abs(value) < float("inf")] or ["their weighted sum"]
        shown = ", ".join(f"{name} = {value:.4g}" for name, value in terms.items())
        where = f"at epoch {epoch}, step {step + 1} ({shown})"
        message = f"{', '.join(bad)} is not finite {where}. {self._cause(terms, batch, scored, step)}"
        raise NonFiniteError(message, terms, batch.image, batch.target)

    def _cause(self, terms: dict[str, float], batch: Batch, scored: Seen | None, step: int) -> str:
        if not all_finite([batch.image]):
            return "The images themselves contain non-finite values: check the transforms and the data."
        finite = scored is None or all_finite(tensors_in(scored))
        wrong = self.objective.infinite_value(terms, *scored) if scored is not None else None
        if wrong is None and step == 0 and not finite:
            wrong = self.steps.model_fault("the model's scores are not finite before any step.")
        wrong = wrong or self._fault_in_step(step)
        if wrong is None and finite:
            wrong = self.steps.step_fault(terms, scored=scored is not None)
        if wrong is not None:
            return str(wrong)
        rate = float(self.steps.torch_optimizer.param_groups[0]["lr"])
        return (
            f"Likely a learning rate that is too high ({rate:g} now) or a loss that overflows: lower optimizer lr, set "
            'train.clip_norm, or train.precision = "float32".'
        )

    def explain_validation(self, module: nn.Module, epoch: int, step: int, value: float) -> str:
        """Return why the validation loss after an epoch is `value`, not finite, although every training loss was."""
        found = f"the validation loss is {value} after epoch {epoch}"
        wrong = self.steps.model_fault(f"{found}, though its weights are finite.")
        if wrong is not None and all_finite((*module.parameters(), *module.buffers())):
            return str(wrong)
        wrong = self._fault_in_step(step)
        if wrong is not None:
            return f"{found}. {wrong}"
        return (
            f"{found}, though every training loss was finite: the last step's gradient exploded. Lower optimizer lr or "
            "set train.clip_norm; the state before this epoch is saved."
        )
