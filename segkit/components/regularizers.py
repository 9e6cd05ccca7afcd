"""Regularizers: penalties on weights.

A regularizer takes the model's named parameters, an iterable of (name, Parameter), and returns a scalar, which the loop
multiplies by the slot's `weight` and adds to the loss. It may be *proximal* instead: an object whose attribute
`proximal` is true has a method `step(named_parameters, step_size)`, which the loop calls after the optimizer's step
with step_size = learning rate * weight; its value is then only logged.
"""

from __future__ import annotations

from typing import Literal

from segkit.registry.registry import Registry
from segkit.types import NamedParameters, NonNegative, Tensor

ApplyTo = Literal["all", "weights"]
"""All parameters, or only those of more than one dimension: no biases, no norm layers."""

regularizers = Registry(
    "regularizer",
    "regularizers",
    home=__name__,
    handed=("named_parameters",),
    called=True,
    weighted=True,
    traits={"exclusive_only": bool},
)


def _chosen(named_parameters: NamedParameters, apply_to: ApplyTo) -> list[Tensor]:
    return [weight for _, weight in named_parameters if apply_to == "all" or weight.ndim > 1]


@regularizers.register("l1")
class L1:
    """Sum of the absolute values of all weights; with `proximal`, a soft threshold that gives exact zeros.

    As a penalty its gradient is sign(w), which makes weights small but hardly ever 0. With `proximal = true` the loss
    is unchanged, and after each step of the optimizer every w becomes sign(w) max(|w| - lr * weight, 0).

    Args:
        apply_to: "all" parameters, or "weights": no biases, no norm layers.
        proximal: threshold after the optimizer's step instead of adding a penalty to the loss.

    Source of the proximal step: Beck & Teboulle 2009 (ISTA), eq. 1.5; exact for SGD, a heuristic for Adam.
    """

    def __init__(self, *, apply_to: ApplyTo = "all", proximal: bool = False) -> None:
        self.apply_to = apply_to
        self.proximal = proximal

    def __call__(self, named_parameters: NamedParameters) -> Tensor:
        """Return the sum of absolutes, without a gradient if proximal."""
        from segkit.components.autograd import sum_of_absolutes

        total = sum_of_absolutes(_chosen(named_parameters, self.apply_to))
        return total.detach() if self.proximal else total

    def step(self, named_parameters: NamedParameters, step_size: float) -> None:
        """Pull every weight towards 0 by `step_size`, in place, no further than 0."""
        import torch

        weights = _chosen(named_parameters, self.apply_to)
        if weights:
            with torch.no_grad():
                shift = torch._foreach_clamp_max(weights, step_size)
                torch._foreach_clamp_min_(shift, -step_size)
                torch._foreach_sub_(weights, list(shift))


@regularizers.register("l2")
def l2(named_parameters: NamedParameters, *, squared: bool = False, apply_to: ApplyTo = "all") -> Tensor:
    """Norm of all weights as one vector, or its square.

    Args:
        named_parameters: the model's.
        squared: the squared norm, as in weight decay but without the factor 1/2. The norm itself, which the first study
            used, has a gradient of norm 1, however large the weights are.
        apply_to: "all" parameters, or "weights": no biases, no norm layers.
    """
    from segkit.components.autograd import norm

    value = norm(_chosen(named_parameters, apply_to))
    return value.square() if squared else value


@regularizers.register("l1l2")
def l1l2(
    named_parameters: NamedParameters,
    *,
    l1: NonNegative = 1e-3,
    l2: NonNegative = 1e-3,
    squared: bool = False,
    apply_to: ApplyTo = "all",
) -> Tensor:
    """Sum of absolutes and norm together: l1 * sum |w| + l2 * ||w||.

    Args:
        named_parameters: the model's.
        l1: the factor of the sum of absolutes.
        l2: the factor of the norm.
        squared: the squared norm instead of the norm.
        apply_to: "all" parameters, or "weights": no biases, no norm layers.

    Source: Zou & Hastie 2005 (elastic net), eq. 3, where the norm is squared.
    """
    from segkit.components.autograd import norm, sum_of_absolutes

    weights = _chosen(named_parameters, apply_to)
    length = norm(weights)
    return l1 * sum_of_absolutes(weights) + l2 * (length.square() if squared else length)


@regularizers.register("orthogonal")
def orthogonal(named_parameters: NamedParameters) -> Tensor:
    """Distance of every layer's weights from orthogonal: the sum over layers of ||W W^T - I||^2.

    W is a layer's weight as a matrix, one row an output (of a transposed convolution: an input) channel, or its
    transpose where there are more rows than columns. Biases and norm layers do not count.

    Args:
        named_parameters: the model's.

    Source: Bansal, Chen, Wang 2018, eq. 1 (soft orthogonality).
    """
    import torch

    total = torch.zeros(())
    for weight in _chosen(named_parameters, "weights"):
        matrix = weight.flatten(1)
        rows, columns = matrix.shape
        gram = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
        total = total + (gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)).square().sum()
    return total
