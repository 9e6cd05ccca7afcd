"""What is minimised: the weighted losses of the scores, and the weighted penalties of the parameters."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from segkit.component import Component


def log_odds(scores: Tensor) -> Tensor:
    """Turn softmax scores (N, C, H, W) into one-against-rest log-odds, `x_c - logsumexp(x_others)`.

    sigmoid(log_odds(x)) is softmax(x): losses need not know which of the two the recipe chose.
    """
    others = [torch.cat([scores[:, :c], scores[:, c + 1 :]], dim=1) for c in range(scores.shape[1])]
    return scores - torch.stack([torch.logsumexp(rest, dim=1) for rest in others], dim=1)


@dataclass(frozen=True)
class Term:
    """One summand: its name as in the recipe, its factor, and what computes it."""

    name: str
    weight: float
    compute: Callable[..., Any]

    @functools.cached_property
    def parts(self) -> tuple[str, ...]:
        """The names of the summands of a loss that is a sum (see `segkit.losses`), none otherwise."""
        return () if inspect.isfunction(self.compute) else tuple(getattr(self.compute, "parts", ()))

    @property
    def names(self) -> list[str]:
        """The name, or one a part."""
        return [f"{self.name}.{part}" for part in self.parts] or [self.name]


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
        self.losses = [Term(f"loss.{c.name}", c.weight, c.build()) for c in losses]
        built = [Term(f"regularizer.{c.name}", c.weight, c.build()) for c in regularizers]
        self.penalties = [term for term in built if not _is_step(term.compute)]
        self.steps = [term for term in built if _is_step(term.compute)]
        self.parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]

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

        Args:
            scores: the model's output (N, C, H, W).
            target: (N, C, H, W) in {0, 1}; with background as channel 0 where classes are exclusive.
        """
        logits = scores if scores.dtype == torch.float32 else scores.float()
        if self.exclusive:
            logits = log_odds(logits)
        values = self._losses(logits, target)
        for term in self.penalties:
            values.append(term.compute(self.parameters))
        return values

    def _losses(self, logits: Tensor, target: Tensor) -> list[Tensor]:
        values: list[Tensor] = []
        for term in self.losses:
            if term.parts:
                values.extend(term.compute.terms(logits, target))  # type: ignore[attr-defined]
            else:
                values.append(term.compute(logits, target))
        return values

    def total(self, values: Sequence[Tensor]) -> Tensor:
        """Return the weighted sum of the summands."""
        if len(values) == 1 and self.weights[0] == 1:
            return values[0]
        pairs = zip(self.weights, values, strict=False)
        weighted = [value if weight == 1 else value * weight for weight, value in pairs]
        return functools.reduce(torch.add, weighted)

    def loss(self, scores: Tensor, target: Tensor) -> Tensor:
        """Return the weighted sum of the losses alone: what validation reports."""
        logits = log_odds(scores.float()) if self.exclusive else scores.float()
        return self.total(self._losses(logits, target))

    def step(self, learning_rate: float) -> None:
        """Apply the proximal steps, after the optimizer's."""
        for term in self.steps:
            term.compute.step(self.parameters, learning_rate * term.weight)  # type: ignore[attr-defined]


def _is_step(regularizer: Any) -> bool:
    """Return whether a regularizer is a proximal step rather than a penalty."""
    return not inspect.isfunction(regularizer) and bool(getattr(regularizer, "proximal", False))


def gradient_shares(values: Sequence[Tensor], objective: Objective) -> list[dict[str, Any]]:
    """Return value and share of the gradient norm of each summand, on one batch.

    The graph is kept, so that the step goes on with the same forward pass.
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
