"""The first batch: each summand's share of the gradient, and whether all gradients are as they should be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segkit.registry.component import Component
from segkit.registry.faults import fault, plugin_parts
from segkit.training.objective import Objective


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


def check_gradients(
    objective: Objective, module: nn.Module, model: Component | None, scores: Tensor, target: Tensor, *, finite: bool
) -> None:
    """Check the gradients of a first batch where plugins take part in them.

    Args:
        objective: of the training.
        module: the network.
        model: the component that built it.
        scores: of the batch.
        target: of the batch.
        finite: whether the gradients of all summands are finite.

    Raises:
        ComponentError: the gradient of a loss, a penalty or the model is not finite although values and scores are,
            or the model has weights that it has not registered.
    """
    own = next(plugin_parts(model), None) if model is not None else None
    hidden = _unregistered_weight(scores, module) if own is not None else None
    if own is not None and hidden is not None:
        text = (
            f"it computes with a weight of shape {tuple(hidden.shape)} that is not among its parameters, so it is "
            "neither trained nor saved: keep layers as attributes, or in `nn.ModuleList`."
        )
        raise fault(own, text, within=model)
    if finite or not all(bool(torch.isfinite(tensor).all()) for tensor in (scores, *objective.terms(scores, target))):
        return  # a value that is not finite is for `LossWatch` to report
    wrong = objective.infinite_gradient(scores, target, penalties=True)
    if wrong is not None:
        raise wrong
    if own is not None:
        gradients = torch.autograd.grad(
            scores.sum(), [weight for _, weight in objective.parameters], retain_graph=True, allow_unused=True
        )
        if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients if gradient is not None):
            raise fault(own, "the gradient of its weights is not finite, though its scores are.", within=model)


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
