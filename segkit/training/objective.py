"""The objective: the weighted losses of the scores, and the weighted penalties of the parameters."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segkit.registry.component import Component
from segkit.registry.faults import ComponentError
from segkit.training.levels import Levels, detached
from segkit.training.terms import Term
from segkit.training.tracing import all_finite, tensors_in
from segkit.types import Scores


class Objective:
    """The sum of a recipe's losses and regularizers.

    Args:
        losses, regularizers: of the recipe.
        model: the module whose named parameters the regularizers see.
        exclusive: whether scores are of exclusive classes (softmax, background first).
        level_weights: of scores of several resolutions, the finest first; by default each is half of the one before.

    Attributes:
        loss_names: of the losses; a loss of several parts has as many.
        names: of the summands, losses first; see `adopt`.
        weights: the factors of the summands.
    """

    def __init__(
        self,
        losses: Sequence[Component],
        regularizers: Sequence[Component],
        model: nn.Module,
        *,
        exclusive: bool,
        level_weights: Sequence[float] | None = None,
    ) -> None:
        self.levels = Levels(exclusive=exclusive, weights=level_weights)
        self.losses = [Term.of(component) for component in losses]
        built = [Term.of(component) for component in regularizers]
        self.penalties = [term for term in built if not term.proximal]
        self.steps = [term for term in built if term.proximal]
        self.parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        for term in self.losses:
            if isinstance(term.compute, nn.Module) and self.parameters:
                term.compute.to(self.parameters[0][1].device)
        self.loss_names = [name for term in self.losses for name in term.names]
        self._loss_weights = [term.weight for term in self.losses for _ in term.names]
        self._called: set[str] = set()  # which terms have been called, and so checked in full
        self.adopt(self.loss_names)

    def adopt(self, names: Sequence[str]) -> None:
        """Make the summands those that a step returns, and the penalties; a name that is no loss's has weight 1."""
        known = dict(zip(self.loss_names, self._loss_weights, strict=True))
        self.names = [*names, *(name for term in self.penalties for name in term.names)]
        self.weights = [known.get(name, 1.0) for name in names]
        self.weights += [term.weight for term in self.penalties for _ in term.names]

    def __call__(self, scores: Scores, target: Tensor) -> dict[str, Tensor]:
        """Return each loss by name, unweighted, in float32 for scores of any dtype; 0 for a batch of none.

        Whether a plugin changes its inputs is checked in full at the first call, later by torch's count of writes.

        Args:
            scores: the model's output (N, C, H, W), or several of falling resolution.
            target: (N, C, H, W) in {0, 1}; with background as channel 0 where classes are exclusive.

        Raises:
            ComponentError: a loss failed, returned something other than a scalar, or changed its inputs.
            UserError: the stated weights of the levels are more or fewer than the levels.
        """
        if not target.shape[0]:
            nothing = functools.reduce(torch.add, [part.float().sum() for part in tensors_in((scores,))])
            return dict.fromkeys(self.loss_names, nothing)
        if not isinstance(scores, tuple):  # several times faster than to ask for a Tensor
            return dict(zip(self.loss_names, self._losses(self.levels.logits(scores), target), strict=True))
        weights = self.levels.weights_of(len(scores))
        found = [self._losses(*level) for level in self.levels(scores, target)]
        sums = [
            functools.reduce(torch.add, [weight * value for weight, value in zip(weights, values, strict=True)])
            for values in zip(*found, strict=True)
        ]
        return dict(zip(self.loss_names, sums, strict=True))

    def _losses(self, logits: Tensor, target: Tensor) -> list[Tensor]:
        values: list[Tensor] = []
        for term in self.losses:
            if not term.untrusted:
                values += term(logits, target)
                continue
            written = logits._version, target._version
            values += term(logits, target) if "losses" in self._called else term.first_call(logits, target)
            if (logits._version, target._version) != written:
                raise term.input_changed("logits" if logits._version != written[0] else "target", logits, target)
        self._called.add("losses")
        return values

    def penalty_values(self) -> list[Tensor]:
        """Return each penalty, unweighted; raises as the call does."""
        values: list[Tensor] = []
        for term in self.penalties:
            values += term(self.parameters) if "penalties" in self._called else term.first_call(self.parameters)
        self._called.add("penalties")
        return values

    def no_gradient(self, scores: Scores, target: Tensor) -> ComponentError | None:
        """Return the error of losses that have no gradient; None if one has."""
        if any(value.requires_grad for value in self(scores, target).values()):
            return None
        return self.losses[0].no_gradient(*self.levels(scores, target)[0])

    @property
    def warnings(self) -> list[str]:
        """What the first call of each plugin among them found that does not prevent training."""
        unused = "train.auxiliary_weights: has no effect: the model returns scores of one resolution."
        found = [text for term in (*self.losses, *self.penalties) for text in term.warnings]
        return [*found, unused] if self.levels.unused else found

    def total(self, values: Sequence[Tensor]) -> Tensor:
        """Return the weighted sum of the summands."""
        return _weighted(self.weights, values)

    def gradient_shares(self, values: Sequence[Tensor]) -> list[dict[str, Any]]:
        """Return value and share of the gradient norm of each summand; the graph is kept for a step."""
        norms = [weight * self._gradient_norm(value) for value, weight in zip(values, self.weights, strict=True)]
        whole = sum(norms) or 1.0
        return [
            {"term": name, "value": float(value.detach()), "weight": weight, "gradient_share": norm / whole}
            for name, value, weight, norm in zip(self.names, values, self.weights, norms, strict=True)
        ]

    def _gradient_norm(self, value: Tensor) -> float:
        gradients = self.gradients(value) if value.requires_grad else []
        return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))) if gradients else 0.0

    def gradients(self, value: Tensor) -> list[Tensor]:
        """Return the gradients of the parameters that a value depends on; its graph is kept."""
        weights = [weight for _, weight in self.parameters]
        found = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
        return [gradient for gradient in found if gradient is not None]

    def loss(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return the weighted sum of the losses alone, which validation reports; raises as the call does.

        Raises:
            ComponentError: also if a plugin's loss is not finite although the logits are.
        """
        logits, values = self.levels.logits(scores), list[Tensor]()
        shared = len(self.losses) > 1
        for term in self.losses:  # torch counts no writes in inference
            copied = shared and term.untrusted
            values += term(logits.clone(), target.clone()) if copied else term(logits, target)
        total = _weighted(self._loss_weights, values)
        if any(term.untrusted for term in self.losses) and not all_finite([total]):
            numbers = dict(zip(self.loss_names, (float(value) for value in values), strict=True))
            wrong = self.infinite_value(numbers, scores, target)
            if wrong is not None:
                raise wrong
        return total

    def infinite_value(self, values: Mapping[str, float], scores: Scores, target: Tensor) -> ComponentError | None:
        """Return the error of a plugin's summand that is not finite although its inputs are."""
        found = list[ComponentError | None]()
        levels = self.levels(scores, target)
        for term in self.losses if len(levels[0][0]) else ():
            for level in levels if term.untrusted else ():
                own = [values[name] for name in term.names if name in values]
                if len(levels) > 1:
                    own = [float(value.detach()) for value in term(*level)]
                found.append(term.infinite_value(own, *level))
        for term in self.penalties:
            if term.untrusted:
                own = [values[name] for name in term.names if name in values]
                found.append(term.infinite_value(own, self.parameters))
        return next(filter(None, found), None)

    def infinite_gradient(self, scores: Scores, target: Tensor, *, penalties: bool = False) -> ComponentError | None:
        """Return the error of a plugin's loss (or penalty) whose gradient is not finite although its value is."""
        weights = [weight for _, weight in self.parameters]
        checked = self.penalties if penalties else []
        levels = [(logits.requires_grad_(), truth) for logits, truth in self.levels(detached(scores), target)]
        of_losses = (
            term.infinite_gradient([logits], logits, truth)
            for logits, truth in levels
            for term in self.losses
            if term.untrusted
        )
        of_penalties = (term.infinite_gradient(weights, self.parameters) for term in checked if term.untrusted)
        return next(filter(None, itertools.chain(of_losses, of_penalties)), None)

    def step(self, learning_rate: float) -> None:
        """Apply the proximal steps, after the optimizer's."""
        for term in self.steps:
            term.step(self.parameters, learning_rate * term.weight)


def _weighted(weights: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    if len(values) == 1 and weights[0] == 1:
        return values[0]
    pairs = zip(weights, values, strict=False)
    return functools.reduce(torch.add, [value if weight == 1 else value * weight for weight, value in pairs])
