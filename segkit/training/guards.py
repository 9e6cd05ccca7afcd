"""What is said loudly: a loss that is not finite, a term that drowns the others, a model that sees only background."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from segkit.blame import fault, suspects
from segkit.component import Component

if TYPE_CHECKING:
    from segkit.evaluation import Row
    from segkit.training.loop import State
    from segkit.training.objective import Objective

DOMINANT = 0.99
NOTHING = 0.01
Batch = tuple[Tensor, Tensor, Tensor]  # image, target, scores


class NonFiniteError(Exception):
    """A loss is not finite; training cannot go on.

    Attributes:
        terms: the value of each summand, in the order of the recipe.
        image, target: the batch on which it happened.
    """

    def __init__(self, message: str, terms: dict[str, float], image: Tensor, target: Tensor) -> None:
        super().__init__(message)
        self.terms, self.image, self.target = terms, image, target


class Watch:
    """Looks for a non-finite loss without making the host wait: on CUDA a step is read when its copy has arrived.

    Args:
        objective: whose summands are looked at.
        model: the recipe's, to be named where its first scores are not finite.
    """

    def __init__(self, objective: Objective, model: Component | None = None) -> None:
        self.objective, self.model = objective, model
        self._pending: deque[tuple[Tensor, Any, Batch, int, int]] = deque()

    def __call__(self, values: Sequence[Tensor], loss: Tensor, batch: Batch, state: State) -> Tensor:
        """Return the summands and their total as one vector (on the device), and look at it.

        Args:
            values: the summands.
            loss: their weighted sum.
            batch: image, target and scores.
            state: epoch and step.

        Raises:
            NonFiniteError: this step's loss, or on CUDA an earlier one's, is not finite.
        """
        if len(values) == 1 and values[0] is loss:
            row = loss.detach().expand(2)  # half of what stacking costs
        else:
            row = torch.stack([value.detach().reshape(()) for value in (*values, loss)])
        if row.is_cuda:
            copy = torch.empty(row.shape, dtype=row.dtype, pin_memory=True)
            copy.copy_(row, non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
            image, target, scores = batch
            self._pending.append((copy, arrived, (image, target, scores.detach()), state.epoch, state.step))
            while self._pending and self._pending[0][1].query():
                self._look(*self._pending.popleft())
        else:
            self._look(row, None, batch, state.epoch, state.step)
        return row

    def settle(self) -> None:
        """Look at every step that is still under way."""
        while self._pending:
            self._pending[0][1].synchronize()
            self._look(*self._pending.popleft())

    def _look(self, row: Tensor, arrived: Any, batch: Batch, epoch: int, step: int) -> None:
        found = row.tolist()
        if abs(found[-1]) < float("inf"):  # false for NaN too
            return
        image, target, _ = batch
        terms = dict(zip(self.objective.names, found, strict=False))
        bad = [name for name, value in terms.items() if not abs(value) < float("inf")] or ["their weighted sum"]
        cause = self._cause(terms, batch, step)
        message = f"{', '.join(bad)} is not finite at epoch {epoch}, step {step + 1} ({_shown(terms)}). {cause}"
        raise NonFiniteError(message, terms, image, target)

    def _cause(self, terms: dict[str, float], batch: Batch, step: int) -> str:
        image, target, scores = batch
        if not bool(torch.isfinite(image).all()):
            return "The images themselves hold non-finite values: see the transforms and the data."
        wrong = self.objective.not_finite(terms, scores, target)
        if wrong is not None:
            return str(wrong)
        theirs = list(suspects(self.model)) if self.model is not None and step == 0 else []
        if theirs and not bool(torch.isfinite(scores).all()):
            return str(fault(theirs[0], "the model's scores are not finite before any step.", within=self.model))
        return (
            "Likely a learning rate that is too high or a loss that overflows: lower optimizer lr, set "
            'train.clip_norm, or train.precision = "float32".'
        )


def _shown(terms: dict[str, float]) -> str:
    return ", ".join(f"{name} = {value:.4g}" for name, value in terms.items())


def exploded(state: State, epoch: int, value: float) -> str:
    """Return why the validation loss of an epoch is not finite although every training loss was.

    Args:
        state: after the epoch.
        epoch: its number.
        value: the loss.
    """
    model = state.parts.get("model")
    theirs = list(suspects(model)) if model is not None else []
    weights = (*state.model.parameters(), *state.model.buffers())
    if theirs and all(bool(torch.isfinite(weight).all()) for weight in weights):
        text = f"its scores in evaluation make the validation loss {value} after epoch {epoch}, with finite weights."
        return str(fault(theirs[0], text, within=model))
    return (
        f"the validation loss is {value} after epoch {epoch}, though every training loss was finite: the last step's "
        "gradient exploded. Lower optimizer lr or set train.clip_norm; the state before this epoch is saved."
    )


def dominant_term(first_batch: Sequence[dict[str, Any]]) -> str | None:
    """Return a warning if one of several summands has over 99 % of the gradient norm on the first batch, or none."""
    for row in first_batch:
        if row["term"].startswith("loss.") and row["weight"] and row["gradient_share"] == 0 and len(first_batch) > 1:
            return (
                f"{row['term']} has no gradient on the first batch (value {row['value']:.4g}): nothing is learnt from "
                "it there. Is its value detached, rounded or constant?"
            )
    for row in first_batch:
        if len(first_batch) > 1 and row["gradient_share"] > DOMINANT:
            others = ", ".join(other["term"] for other in first_batch if other is not row)
            return (
                f"{row['term']} has {100 * row['gradient_share']:.2f} % of the gradient on the first batch "
                f"(value {row['value']:.4g}, weight {row['weight']:g}): {others} will hardly be learnt. Likely a sum "
                "over pixels beside a mean, or a weight of another scale: use a mean, or lower its weight."
            )
    return None


def collapsed(rows: Sequence[Row]) -> str | None:
    """Return a warning if structures that are there are predicted nowhere: under 1 % of their pixels in all cases."""
    black = []
    for channel in dict.fromkeys(row.channel for row in rows):
        truth = sum(row.truth_pixels for row in rows if row.channel == channel)
        predicted = sum(row.predicted_pixels for row in rows if row.channel == channel)
        if predicted < NOTHING * truth:
            black.append(channel)
    if black:
        return (
            f"the model predicts only background for {', '.join(black)} (a black output). Likely a loss that is won "
            "by background: see the first batch's gradient shares, the learning rate and the regularizers' weights."
        )
    return None


def no_foreground(rows: Sequence[Row]) -> str | None:
    """Return a warning if the validation cases hold no foreground at all."""
    if rows and not any(row.truth_pixels for row in rows):
        return "no validation case has any foreground: Dice is undefined there. See split and the data's channels."
    return None
