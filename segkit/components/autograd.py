"""Operations with a gradient of their own, where torch's is slow or not deterministic."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class _SumOfAbsolutes(torch.autograd.Function):
    """The sum of |w| over all weights, with gradient sign(w) (0 at 0), one fused pass over all weights."""

    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(*weights)
        # abs().sum() adds in pairs; torch's 1-norm on the CPU is off by 2e-4 for a U-Net in float32.
        return torch.stack([weight.abs().sum() for weight in weights]).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        gradients = torch._foreach_sign(ctx.saved_tensors)
        torch._foreach_mul_(gradients, gradient)
        return tuple(gradients)


class _Norm(torch.autograd.Function):
    """The 2-norm of all weights taken as one vector, with gradient w / norm (0 where the norm is 0)."""

    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> Tensor:
        norm = torch.stack([weight.square().sum() for weight in weights]).sum().sqrt()
        ctx.save_for_backward(norm, *weights)
        return norm

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        norm, *weights = ctx.saved_tensors
        return tuple(torch._foreach_mul(weights, torch.where(norm > 0, gradient / norm, 0)))


class _Double(torch.autograd.Function):
    """Torch's own interpolation; backward, each pixel gathers, whereas torch's CUDA kernel scatters atomically."""

    @staticmethod
    def forward(ctx: Any, image: Tensor) -> Tensor:
        return functional.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _gathered(_gathered(gradient, 3), 2)


def _gathered(gradient: Tensor, axis: int) -> Tensor:
    """Return the gradient of linear interpolation to twice the size along one axis.

    Pixel i lies in its own two halves with 3/4 and in the next half on either side with 1/4; beyond the border, its
    own half counts again.
    """
    size = gradient.shape[axis] // 2
    first, second = gradient.unflatten(axis, (size, 2)).unbind(axis + 1)  # type: ignore[no-untyped-call]
    before = torch.cat([first.narrow(axis, 0, 1), second.narrow(axis, 0, size - 1)], axis)
    after = torch.cat([first.narrow(axis, 1, size - 1), second.narrow(axis, size - 1, 1)], axis)
    return torch.lerp(first + second, before + after, 0.25)


class _SoftCounts(torch.autograd.Function):
    """sum(t (1 - p)), sum((1 - t) p) and sum(t) for p = sigmoid(x), with two passes over the pixels on the way back."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, target: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
        p = scores.sigmoid()
        ctx.save_for_backward(p, target)
        # Sums of small differences: n - sum(p) would lose all digits in float32 where p is close to 1.
        difference = torch.addcmul(target, p, target, value=-1)
        missed = difference.sum(axes)
        surplus = torch.sub(p, target, out=difference).sum(axes) + missed
        return missed, surplus, target.sum(axes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        p, target = ctx.saved_tensors
        missed, surplus, truth = (gradient[..., None, None] for gradient in gradients)
        by_target = torch.addcmul(missed + truth, p, missed + surplus, value=-1) if ctx.needs_input_grad[1] else None
        by_p = torch.addcmul(surplus, target, missed + surplus, value=-1)
        return torch.ops.aten.sigmoid_backward.grad_input(by_p, p, grad_input=by_p), by_target, None


def soft_counts(scores: Tensor, target: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Return sum(t (1 - p)), sum((1 - t) p) and sum(t) over axes, the last two among them, for p = sigmoid(scores)."""
    return _SoftCounts.apply(scores, target, axes)  # type: ignore[no-any-return, no-untyped-call]


def sum_of_absolutes(weights: list[Tensor]) -> Tensor:
    """Return the sum of |w|; 0 without weights."""
    return _SumOfAbsolutes.apply(*weights) if weights else torch.zeros(())  # type: ignore[no-untyped-call]


def norm(weights: list[Tensor]) -> Tensor:
    """Return the 2-norm of all weights together; 0 without weights."""
    return _Norm.apply(*weights) if weights else torch.zeros(())  # type: ignore[no-untyped-call]


class Bilinear(nn.Module):
    """(N, C, H, W) -> (N, C, 2H, 2W), equal to torch's bilinear interpolation with align_corners false."""

    def forward(self, image: Tensor) -> Tensor:
        return _Double.apply(image)  # type: ignore[no-any-return, no-untyped-call]
