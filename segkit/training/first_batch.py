"""The first batch: each summand's share of the gradient, and whether all gradients are as they should be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segkit.registry.faults import fault
from segkit.training.objective import Objective
from segkit.training.state import State
from segkit.training.tracing import all_finite


def gradient_shares(values: Sequence[Tensor], objective: Objective) -> list[dict[str, Any]]:
    """Return value and share of the gradient norm of each summand, on one batch.

    The graph is kept, so that the step can use the same forward pass.
    """
    weights = objective.weights
    norms = [weight * _gradient_norm(value, objective) for value, weight in zip(values, weights, strict=True)]
    whole = sum(norms) or 1.0
    return [
        {"term": name, "value": float(value.detach()), "weight": weight, "gradient_share": norm / whole}
        for name, value, weight, norm in zip(objective.names, values, weights, norms, strict=True)
    ]


def _gradients(value: Tensor, objective: Objective) -> list[Tensor]:
    """Return the gradients of the parameters that a value depends on; its graph is kept."""
    weights = [weight for _, weight in objective.parameters]
    found = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
    return [gradient for gradient in found if gradient is not None]


def _gradient_norm(value: Tensor, objective: Objective) -> float:
    gradients = _gradients(value, objective) if value.requires_grad else []
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))) if gradients else 0.0


def check_gradients(state: State, scores: Tensor, target: Tensor, *, finite: bool) -> None:
    """Check the gradients of a first batch, which are `finite` or not, where plugins take part in them.

    Raises:
        ComponentError: the gradient of a loss, a penalty or the model is not finite although values and scores are,
            or the model has weights that it has not registered.
    """
    objective, model = state.objective, state.step_watch.model
    hidden = _unregistered_weight(scores, state.model) if model is not None else None
    if model is not None and hidden is not None:
        text = (
            f"it computes with a weight of shape {tuple(hidden.shape)} that is not among its parameters, so it is "
            "neither trained nor saved: keep layers as attributes, or in `nn.ModuleList`."
        )
        raise fault(model, text, within=state.parts["model"])
    if finite or not all_finite((scores, *objective.terms(scores, target))):
        return  # a value that is not finite is for `LossWatch` to report
    wrong = objective.infinite_gradient(scores, target, penalties=True)
    if wrong is None and model is not None and not all_finite(_gradients(scores.sum(), objective)):
        text = "the gradient of its weights is not finite, though its scores are."
        wrong = fault(model, text, within=state.parts["model"])
    if wrong is not None:
        raise wrong


def _unregistered_weight(scores: Tensor, model: nn.Module) -> Tensor | None:
    """Return a weight that the scores are computed with and that is not among the model's parameters."""
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
