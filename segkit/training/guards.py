"""Guards: a loss that is not finite, a term that drowns out the others, a model that predicts only background."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segkit.errors import UserError
from segkit.evaluation.rows import Row
from segkit.registry.component import Component
from segkit.registry.faults import fault, plugin_parts
from segkit.training.objective import Objective
from segkit.training.steps import StepWatch

DOMINANT = 0.99
NOTHING = 0.01
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
    """Looks for a non-finite loss without making the host wait: on CUDA a step is read when its copy has arrived.

    Args:
        objective: whose values are looked at.
        optimizer: whose learning rate is named where it is the likely cause.
        parts: the recipe's components by slot, to be named where one fails.
        steps: the watch over the steps.
    """

    def __init__(
        self, objective: Objective, optimizer: torch.optim.Optimizer, parts: Mapping[str, Component], steps: StepWatch
    ) -> None:
        self.objective, self.optimizer, self.parts, self.steps = objective, optimizer, parts, steps
        self._pending: deque[tuple[Tensor, Any, Batch, int, int]] = deque()
        self._last: Batch | None = None  # on which the loss was finite

    def __call__(self, values: Sequence[Tensor], loss: Tensor, batch: Batch, epoch: int, step: int) -> Tensor:
        """Return the summands and their total as one vector (on the device), and look at it.

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
                self._look(*self._pending.popleft())
        else:
            self._look(row, None, batch, epoch, step)
        return row

    def settle(self) -> None:
        """Look at every step that is still under way."""
        while self._pending:
            self._pending[0][1].synchronize()
            self._look(*self._pending.popleft())

    def ruined(self, step: int) -> UserError | None:
        """Return the error of the plugin that ruined the weights in the last step, where that can be determined."""
        if self._last is None:
            return None
        _, target, scores = self._last
        return self.objective.infinite_gradient(scores, target) or self.steps.ruined(step)

    def _look(self, row: Tensor, arrived: Any, batch: Batch, epoch: int, step: int) -> None:
        found = row.tolist()
        if abs(found[-1]) < float("inf"):  # false for NaN too
            self._last = batch
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
        model = self.parts.get("model")
        theirs = list(plugin_parts(model)) if model is not None and step == 0 else []
        if theirs and not bool(torch.isfinite(scores).all()):
            return str(fault(theirs[0], "the model's scores are not finite before any step.", within=model))
        wrong = self.ruined(step)
        if wrong is not None:
            return str(wrong)
        rate = float(self.optimizer.param_groups[0]["lr"])
        return (
            f"Likely a learning rate that is too high ({rate:g} now) or a loss that overflows: lower optimizer lr, set "
            'train.clip_norm, or train.precision = "float32".'
        )


def look_back(
    objective: Objective, module: nn.Module, model: Component | None, scores: Tensor, target: Tensor, *, finite: bool
) -> None:
    """Look on a first batch at the way that gradients take back, where it leads through plugins.

    Args:
        objective: of the training.
        module: the network.
        model: the component that made it.
        scores: of the batch.
        target: of the batch.
        finite: whether the gradients of all summands are.

    Raises:
        ComponentError: the gradient of a loss, a penalty or the model is not finite although values and scores are,
            or the model has weights that it has not registered.
    """
    own = next(plugin_parts(model), None) if model is not None else None
    hidden = _unregistered(scores, module) if own is not None else None
    if own is not None and hidden is not None:
        text = (
            f"it computes with a weight of shape {tuple(hidden.shape)} that is not among its parameters, so that it is "
            "neither trained nor saved: keep layers as attributes, or in `nn.ModuleList`."
        )
        raise fault(own, text, within=model)
    if finite:
        return
    values = objective.terms(scores, target)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in (scores, *values)):
        return  # `LossWatch` reports that
    wrong = objective.infinite_gradient(scores, target, penalties=True)
    if wrong is not None:
        raise wrong
    if own is not None:
        gradients = torch.autograd.grad(
            scores.sum(), [weight for _, weight in objective.parameters], retain_graph=True, allow_unused=True
        )
        if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients if gradient is not None):
            raise fault(own, "the gradient of its weights is not finite, though its scores are.", within=model)


def _unregistered(scores: Tensor, model: nn.Module) -> Tensor | None:
    """Return a weight that scores are computed with and the model does not have among its parameters."""
    known, seen, waiting = {id(weight) for weight in model.parameters()}, set[Any](), [scores.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        weight = getattr(node, "variable", None)
        if isinstance(weight, nn.Parameter) and id(weight) not in known:
            return weight
        waiting += [before for before, _ in node.next_functions]
    return None


def _shown(terms: dict[str, float]) -> str:
    return ", ".join(f"{name} = {value:.4g}" for name, value in terms.items())


def exploded(watch: LossWatch, module: nn.Module, epoch: int, step: int, value: float) -> str:
    """Return why the validation loss of an epoch is not finite although every training loss was.

    Args:
        watch: over the losses of the training.
        module: the network, after the epoch.
        epoch: its number.
        step: optimizer steps done in all.
        value: the loss.
    """
    model = watch.parts.get("model")
    theirs = list(plugin_parts(model)) if model is not None else []
    weights = (*module.parameters(), *module.buffers())
    if theirs and all(bool(torch.isfinite(weight).all()) for weight in weights):
        text = f"its scores in evaluation make the validation loss {value} after epoch {epoch}, with finite weights."
        return str(fault(theirs[0], text, within=model))
    wrong = watch.ruined(step)
    if wrong is not None:
        return f"the validation loss is {value} after epoch {epoch}. {wrong}"
    return (
        f"the validation loss is {value} after epoch {epoch}, though every training loss was finite: the last step's "
        "gradient exploded. Lower optimizer lr or set train.clip_norm; the state before this epoch is saved."
    )


def dominant_term(first_batch: Sequence[dict[str, Any]]) -> str | None:
    """Return a warning if one of several summands has over 99 % of the gradient norm on the first batch, or none."""
    for row in first_batch:
        if row["term"].startswith("loss.") and row["weight"] and row["gradient_share"] == 0 and len(first_batch) > 1:
            return (
                f"{row['term']} has no gradient on the first batch (value {row['value']:.4g}): nothing is learned from "
                "it there. Is its value detached, rounded or constant?"
            )
    for row in first_batch:
        if len(first_batch) > 1 and row["gradient_share"] > DOMINANT:
            others = ", ".join(other["term"] for other in first_batch if other is not row)
            return (
                f"{row['term']} has {100 * row['gradient_share']:.2f} % of the gradient on the first batch "
                f"(value {row['value']:.4g}, weight {row['weight']:g}): {others} will hardly be learned. Likely a sum "
                "over pixels beside a mean, or a weight of another scale: use a mean, or lower its weight."
            )
    return None


def collapsed(rows: Sequence[Row]) -> str | None:
    """Return a warning if a structure is hardly predicted at all: under 1 % of its pixels over all cases."""
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
