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
from segkit.training.terms import Term
from segkit.training.tracing import all_finite


def log_odds(scores: Tensor) -> Tensor:
    """Turn softmax scores (N, C, H, W) into one-against-rest log-odds, `x_c - logsumexp(x_others)`.

    sigmoid(log_odds(x)) is softmax(x): losses need not know which of the two the recipe chose.
    """
    others = [torch.cat([scores[:, :c], scores[:, c + 1 :]], dim=1) for c in range(scores.shape[1])]
    return scores - torch.stack([torch.logsumexp(rest, dim=1) for rest in others], dim=1)


class Objective:
    """The sum of a recipe's losses and regularizers.

    Args:
        losses, regularizers: of the recipe.
        model: the module whose named parameters the regularizers see.
        exclusive: whether scores are of exclusive classes (softmax, background first).

    Attributes:
        names: of the summands, losses first; a loss of several parts is as many summands.
        weights: the factors of the summands.
    """

    def __init__(
        self, losses: Sequence[Component], regularizers: Sequence[Component], model: nn.Module, *, exclusive: bool
    ) -> None:
        self.exclusive = exclusive
        self.losses = [Term.of(component) for component in losses]
        built = [Term.of(component) for component in regularizers]
        self.penalties = [term for term in built if not term.proximal]
        self.steps = [term for term in built if term.proximal]
        self.parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        for term in self.losses:
            if isinstance(term.compute, nn.Module) and self.parameters:
                term.compute.to(self.parameters[0][1].device)
        summands = [*self.losses, *self.penalties]
        self.names = [name for term in summands for name in term.names]
        self.weights = [term.weight for term in summands for _ in term.names]
        self._called = False  # whether the terms have been called, and so checked in full

    def terms(self, scores: Tensor, target: Tensor) -> list[Tensor]:
        """Return each summand, unweighted, in float32 for scores (N, C, H, W) of any dtype.

        Whether a plugin changes its inputs is checked in full at the first call, later by torch's count of writes.

        Args:
            scores: the model's output.
            target: (N, C, H, W) in {0, 1}; with background as channel 0 where classes are exclusive.

        Raises:
            ComponentError: a loss or regularizer failed, returned something other than a scalar, or changed its inputs.
        """
        logits = self._logits(scores)
        values: list[Tensor] = []
        for term in self.losses:
            if not term.untrusted:
                values += term(logits, target)
                continue
            written = logits._version, target._version
            values += term(logits, target) if self._called else term.first_call(logits, target)
            if (logits._version, target._version) != written:
                raise term.input_changed("logits" if logits._version != written[0] else "target", logits, target)
        for term in self.penalties:
            values += term(self.parameters) if self._called else term.first_call(self.parameters)
        self._called = True
        if logits.requires_grad and not any(value.requires_grad for value in values):
            raise self.losses[0].no_gradient(logits, target)
        return values

    @property
    def warnings(self) -> list[str]:
        """What the first call of each plugin among them found that does not prevent training."""
        return [text for term in (*self.losses, *self.penalties) for text in term.warnings]

    def _logits(self, scores: Tensor) -> Tensor:
        logits = scores if scores.dtype == torch.float32 else scores.float()
        return log_odds(logits) if self.exclusive else logits

    def total(self, values: Sequence[Tensor]) -> Tensor:
        """Return the weighted sum of the summands."""
        if len(values) == 1 and self.weights[0] == 1:
            return values[0]
        pairs = zip(self.weights, values, strict=False)
        return functools.reduce(torch.add, [value if weight == 1 else value * weight for weight, value in pairs])

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
        """Return the weighted sum of the losses alone, which validation reports; raises as `terms` does.

        Raises:
            ComponentError: also if a plugin's loss is not finite although the logits are.
        """
        logits, values = self._logits(scores), list[Tensor]()
        shared = len(self.losses) > 1
        for term in self.losses:  # torch counts no writes in inference
            copied = shared and term.untrusted
            values += term(logits.clone(), target.clone()) if copied else term(logits, target)
        total = self.total(values)
        if any(term.untrusted for term in self.losses) and not all_finite([total]):
            numbers = dict(zip(self.names, (float(value) for value in values), strict=False))
            wrong = self.infinite_value(numbers, scores, target)
            if wrong is not None:
                raise wrong
        return total

    def infinite_value(self, values: Mapping[str, float], scores: Tensor, target: Tensor) -> ComponentError | None:
        """Return the error of a plugin's summand that is not finite although its inputs are."""
        logits = self._logits(scores)
        for term in (*self.losses, *self.penalties):
            if term.untrusted:
                inputs = (logits, target) if term in self.losses else (self.parameters,)
                wrong = term.infinite_value([values[name] for name in term.names if name in values], *inputs)
                if wrong is not None:
                    return wrong
        return None

    def infinite_gradient(self, scores: Tensor, target: Tensor, *, penalties: bool = False) -> ComponentError | None:
        """Return the error of a plugin's loss (or penalty) whose gradient is not finite although its value is."""
        logits = self._logits(scores.detach()).requires_grad_()
        weights = [weight for _, weight in self.parameters]
        checked = self.penalties if penalties else []
        of_losses = (term.infinite_gradient([logits], logits, target) for term in self.losses if term.untrusted)
        of_penalties = (term.infinite_gradient(weights, self.parameters) for term in checked if term.untrusted)
        return next(filter(None, itertools.chain(of_losses, of_penalties)), None)

    def step(self, learning_rate: float) -> None:
        """Apply the proximal steps, after the optimizer's."""
        for term in self.steps:
            term.step(self.parameters, learning_rate * term.weight)
