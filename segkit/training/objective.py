"""The objective: the weighted losses of the scores, and the weighted penalties of the parameters."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segkit.errors import UserError
from segkit.registry.component import Component
from segkit.training.terms import Term


def log_odds(scores: Tensor) -> Tensor:
    """Turn softmax scores (N, C, H, W) into one-against-rest log-odds, `x_c - logsumexp(x_others)`.

    sigmoid(log_odds(x)) is softmax(x): losses need not know which of the two the recipe chose.
    """
    others = [torch.cat([scores[:, :c], scores[:, c + 1 :]], dim=1) for c in range(scores.shape[1])]
    return scores - torch.stack([torch.logsumexp(rest, dim=1) for rest in others], dim=1)


class Objective:
    """The sum of a recipe's losses and regularizers.

    Args:
        losses: the chosen losses.
        regularizers: the chosen regularizers.
        model: the module whose named parameters the regularizers see.
        exclusive: whether scores are of exclusive classes (softmax, background first).
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
        self._known = False  # whether the plugins among them have been looked at closely

    @functools.cached_property
    def names(self) -> list[str]:
        """The names of the summands, losses first; a loss of several parts is as many summands."""
        return [name for term in (*self.losses, *self.penalties) for name in term.names]

    @functools.cached_property
    def weights(self) -> list[float]:
        """The factors of the summands, in the order of the names."""
        return [term.weight for term in (*self.losses, *self.penalties) for _ in term.names]

    def terms(self, scores: Tensor, target: Tensor) -> list[Tensor]:
        """Return each summand, unweighted, in float32 whatever the dtype of the scores.

        What a plugin does to its inputs is looked at in full at the first call, later by torch's count of writes.

        Args:
            scores: the model's output (N, C, H, W).
            target: (N, C, H, W) in {0, 1}; with background as channel 0 where classes are exclusive.

        Raises:
            ComponentError: a loss or regularizer failed, gave no scalar or wrote to its inputs; the message names it.
        """
        logits = self._logits(scores)
        values: list[Tensor] = []
        for term in self.losses:
            if not term.foreign:
                values += term(logits, target)
                continue
            written = logits._version, target._version
            values += term(logits, target) if self._known else term.closely(logits, target)
            if (logits._version, target._version) != written:
                raise term.damage("logits" if logits._version != written[0] else "target", logits, target)
        for term in self.penalties:
            values += term(self.parameters) if self._known else term.closely(self.parameters)
        self._known = True
        if logits.requires_grad and not any(value.requires_grad for value in values):
            raise self.losses[0].detached(logits, target)
        return values

    @property
    def doubts(self) -> list[str]:
        """What the first look at the plugins among them found, and let pass."""
        return [text for term in (*self.losses, *self.penalties) for text in term.doubts]

    def _logits(self, scores: Tensor) -> Tensor:
        logits = scores if scores.dtype == torch.float32 else scores.float()
        return log_odds(logits) if self.exclusive else logits

    def total(self, values: Sequence[Tensor]) -> Tensor:
        """Return the weighted sum of the summands."""
        if len(values) == 1 and self.weights[0] == 1:
            return values[0]
        pairs = zip(self.weights, values, strict=False)
        weighted = [value if weight == 1 else value * weight for weight, value in pairs]
        return functools.reduce(torch.add, weighted)

    def loss(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return the weighted sum of the losses alone: what validation reports.

        Raises:
            ComponentError: as in `terms`, or a plugin's loss is not finite although the scores are.
        """
        logits, values = self._logits(scores), list[Tensor]()
        shared = len(self.losses) > 1
        for term in self.losses:  # torch counts no writes in inference
            copied = shared and term.foreign
            values += term(logits.clone(), target.clone()) if copied else term(logits, target)
        total = self.total(values)
        if any(term.foreign for term in self.losses) and not bool(torch.isfinite(total)):
            numbers = dict(zip(self.names, (float(value) for value in values), strict=False))
            wrong = self.not_finite(numbers, scores, target)
            if wrong is not None:
                raise wrong
        return total

    def not_finite(self, values: Mapping[str, float], scores: Tensor, target: Tensor) -> UserError | None:
        """Return the error of a plugin's summand that is not finite although the scores are; None if there is none."""
        if not bool(torch.isfinite(scores).all()):
            return None
        for term in (*self.losses, *self.penalties):
            found = [values[name] for name in term.names if name in values]
            if term.foreign and not all(map(math.isfinite, found)):
                handed = (self._logits(scores), target) if term in self.losses else (self.parameters,)
                return term.not_finite(found, scores, *handed)
        return None

    def infinite_gradient(self, scores: Tensor, target: Tensor, *, penalties: bool = False) -> UserError | None:
        """Return the error of a plugin's summand whose value is finite and whose gradient is not; None without one.

        Args:
            scores: the model's.
            target: of the same batch.
            penalties: also check the penalties, at the current weights.
        """
        logits = self._logits(scores.detach()).requires_grad_()
        weights = [weight for _, weight in self.parameters]
        tried: list[tuple[Term, Sequence[Tensor], tuple[Any, ...]]] = [
            (t, [logits], (logits, target)) for t in self.losses
        ]
        tried += [(term, weights, (self.parameters,)) for term in self.penalties if penalties]
        for term, inputs, handed in tried:
            if term.foreign and not term.has_finite_gradient(inputs, *handed):
                return term.without_gradient(*handed)
        return None

    def step(self, learning_rate: float) -> None:
        """Apply the proximal steps, after the optimizer's."""
        for term in self.steps:
            term.step(self.parameters, learning_rate * term.weight)


def gradient_shares(values: Sequence[Tensor], objective: Objective) -> list[dict[str, Any]]:
    """Return value and share of the gradient norm of each summand, on one batch.

    The graph is kept, so that the step can use the same forward pass.
    """
    weights = objective.weights
    parameters = [parameter for _, parameter in objective.parameters]
    norms = [weight * _gradient_norm(value, parameters) for value, weight in zip(values, weights, strict=True)]
    whole = sum(norms) or 1.0
    return [
        {"term": name, "value": float(value.detach()), "weight": weight, "gradient_share": norm / whole}
        for name, value, weight, norm in zip(objective.names, values, weights, norms, strict=True)
    ]


def _gradient_norm(value: Tensor, parameters: Iterable[Tensor]) -> float:
    if not value.requires_grad:
        return 0.0
    gradients = torch.autograd.grad(value, list(parameters), retain_graph=True, allow_unused=True)
    present = [gradient for gradient in gradients if gradient is not None]
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(present)))) if present else 0.0
