"""A regularizer that is a penalty, or a proximal step."""

from __future__ import annotations

from collections.abc import Iterator

from segkit import regularizers
from segkit.types import NamedParameters, Tensor


@regularizers.register("group_lasso")
class GroupLasso:
    """Group lasso over output filters: the sum of their 2-norms, 0 or more, which switches off whole filters.

    A filter is a row of a layer's weight, all that makes one output channel (of a transposed convolution, all that
    reads one input channel). Biases and norm layers do not count. As a penalty it makes filters small; with
    `proximal = true` the loss is left alone, and after each step of the optimizer every filter w is scaled by
    max(1 - lr * weight / ||w||, 0), so that filters become exactly 0.

    Args:
        proximal: shrink after the optimizer's step instead of adding a penalty to the loss.

    Source: Wen et al. 2016 (Learning structured sparsity in deep neural networks), eq. 2, its sum over filters. The
    proximal step: Yuan & Lin 2006; exact for SGD, a heuristic for Adam.
    """

    def __init__(self, *, proximal: bool = False) -> None:
        self.proximal = proximal

    def __call__(self, named_parameters: NamedParameters) -> Tensor:
        """Return the sum of the filters' norms, a scalar; of a proximal one without a gradient."""
        import torch

        norms = [torch.linalg.vector_norm(weight.flatten(1), dim=1).sum() for weight in _weights(named_parameters)]
        total = torch.stack(norms).sum() if norms else torch.zeros(())
        return total.detach() if self.proximal else total

    def step(self, named_parameters: NamedParameters, step_size: float) -> None:
        """Shrink every filter's norm by `step_size`, in place, no further than 0."""
        import torch

        with torch.no_grad():
            for weight in _weights(named_parameters):
                norm = torch.linalg.vector_norm(weight.flatten(1), dim=1).clamp_min(torch.finfo(weight.dtype).tiny)
                scale = (1 - step_size / norm).clamp_min(0)
                weight.mul_(scale.view(-1, *[1] * (weight.ndim - 1)))


def _weights(named_parameters: NamedParameters) -> Iterator[Tensor]:
    return (weight for _, weight in named_parameters if weight.ndim > 1)
