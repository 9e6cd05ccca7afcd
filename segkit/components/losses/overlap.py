"""Losses that measure the overlap of prediction and truth: Dice, Tversky, Jaccard and their kin."""

from __future__ import annotations

import math

from segkit.components.losses.counts import Counts, Reduction, count, dice_of, inverse_dice_of, mix_of
from segkit.components.losses.slot import losses
from segkit.types import Fraction, NonNegative, Positive, Tensor


@losses.register("dice")
def dice(logits: Tensor, target: Tensor, *, epsilon: Positive = 1.0, reduction: Reduction = "case") -> Tensor:
    """Dice loss: 1 - 2 (sum(p t) + e/2) / (sum(p) + sum(t) + e), from 0 to 1.

    Args:
        logits: scores (N, C, H, W); p = sigmoid(logits).
        target: masks t (N, C, H, W) in {0, 1}.
        epsilon: e, in pixels; an empty mask predicted empty then costs nothing.
        reduction: "case": a mean over cases and channels; "batch": sums run over the batch, a mean over channels.

    Source: Milletari, Navab, Ahmadi 2016 (V-Net), section 3, without squares.
    """
    return dice_of(count(logits, target, reduction), epsilon).mean()


@losses.register("inverse_dice")
def inverse_dice(logits: Tensor, target: Tensor, *, epsilon: Positive = 1.0, reduction: Reduction = "case") -> Tensor:
    """Dice loss of the background: dice on 1 - p and 1 - t, from 0 to 1.

    Arguments and ranges as for `dice`.
    """
    return inverse_dice_of(count(logits, target, reduction), epsilon).mean()


@losses.register("dice_mix")
def dice_mix(
    logits: Tensor, target: Tensor, *, lambda_: Fraction = 0.5, epsilon: Positive = 1.0, reduction: Reduction = "case"
) -> Tensor:
    """Dice and inverse dice, mixed: lambda * dice + (1 - lambda) * inverse dice, from 0 to 1.

    The weight of dice is `lambda_`, in a recipe `lambda`; other arguments as for `dice`.
    """
    return mix_of(count(logits, target, reduction), lambda_, epsilon)


@losses.register("generalized_dice")
def generalized_dice(
    logits: Tensor, target: Tensor, *, epsilon: Positive = 1.0, reduction: Reduction = "case"
) -> Tensor:
    """Generalized Dice loss: one Dice over all channels, each weighted by 1 / volume^2; from 0 to 1.

    1 - 2 (sum_c w_c sum(p t) + e/2) / (sum_c w_c (sum(p) + sum(t)) + e). The weights are divided by the largest, that
    of the smallest structure, in whose pixels e is therefore counted; a channel whose truth is empty weighs as much.

    Args:
        logits, target: as for `dice`.
        epsilon: e, in pixels.
        reduction: "case": volumes and sums of each case, a mean over cases; "batch": of the whole batch.

    Source: Sudre et al. 2017, eq. 1, whose weights of empty channels are infinite.
    """
    counts = count(logits, target, reduction)
    present = counts.truth > 0
    smallest = counts.truth.where(present, math.inf).amin(-1, keepdim=True)
    weights = (smallest / counts.truth).square().where(present, 1.0)
    parts = (counts.missed, counts.surplus, counts.truth)
    missed, surplus, truth = ((weights * part).sum(-1) for part in parts)
    return dice_of(Counts(missed, surplus, truth, counts.pixels), epsilon).mean()


def _tversky_of(counts: Counts, alpha: float, beta: float, epsilon: float) -> Tensor:
    """Return 1 - (sum(p t) + e) / (sum(p t) + alpha missed + beta surplus + e), (N, C) or (C,)."""
    wrong = alpha * counts.missed + beta * counts.surplus
    return wrong / (counts.truth - counts.missed + wrong + epsilon)


@losses.register("tversky")
def tversky(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: NonNegative = 0.7,
    beta: NonNegative = 0.3,
    epsilon: Positive = 1.0,
    reduction: Reduction = "case",
) -> Tensor:
    """Tversky loss: false negatives weigh alpha, false positives beta; from 0 to 1.

    1 - (TP + e) / (TP + alpha FN + beta FP + e) with soft counts. alpha = beta = 0.5 is dice at twice the epsilon,
    alpha = beta = 1 is `jaccard`.

    Args:
        alpha, beta: the weights of false negatives and of false positives.
        logits, target, epsilon, reduction: as for `dice`.

    Source: Salehi, Erdogmus, Gholipour 2017, eq. 3 (alpha and beta swapped); letters as in Abraham & Khan 2019, eq. 2.
    """
    return _tversky_of(count(logits, target, reduction), alpha, beta, epsilon).mean()


@losses.register("focal_tversky")
def focal_tversky(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: Fraction = 0.7,
    gamma: Positive = 0.75,
    epsilon: Positive = 1.0,
    reduction: Reduction = "case",
) -> Tensor:
    """Focal Tversky loss: the Tversky loss of each case and channel to the power gamma; from 0 to 1.

    Args:
        alpha: the weight of false negatives; that of false positives is 1 - alpha.
        gamma: the exponent; below 1 it favours cases that are nearly right, above 1 those that are wrong.
        logits, target, epsilon, reduction: as for `dice`.

    Source: Abraham & Khan 2019, eq. 3; its 1 / gamma = 1 / (4/3) is gamma = 0.75 here.
    """
    import torch

    loss = _tversky_of(count(logits, target, reduction), alpha, 1 - alpha, epsilon)
    # A power below 1 has an infinite slope at 0, which times a zero gradient would be NaN.
    return loss.clamp_min(torch.finfo(loss.dtype).tiny).pow(gamma).mean()


@losses.register("jaccard")
def jaccard(logits: Tensor, target: Tensor, *, epsilon: Positive = 1.0, reduction: Reduction = "case") -> Tensor:
    """Jaccard (IoU) loss: 1 - (sum(p t) + e) / (sum(p) + sum(t) - sum(p t) + e), from 0 to 1.

    Arguments as for `dice`.

    Source: Rahman & Wang 2016, eq. 4 to 6.
    """
    return _tversky_of(count(logits, target, reduction), 1.0, 1.0, epsilon).mean()


@losses.register("lovasz")
def lovasz(logits: Tensor, target: Tensor, *, reduction: Reduction = "case") -> Tensor:
    """Lovász extension of the Jaccard loss over each channel's errors |t - p|; from 0 to 1.

    It sorts the pixels, so that it takes several times as long as `dice`. With an empty truth it is the largest
    probability in the image.

    Args:
        logits: scores (N, C, H, W).
        target: masks (N, C, H, W) in {0, 1}.
        reduction: "case": the Jaccard of each case and channel; "batch": of each channel over the batch.

    Source: Berman, Rannen Triki, Blaschko 2018 (Lovász-Softmax), eq. 8 and 9, a mean over all channels.
    """
    import torch

    errors = ((1 - 2 * target) * logits).sigmoid()
    if reduction == "batch":
        errors, target = errors.transpose(0, 1), target.transpose(0, 1)
    errors, target = (values.flatten(1 if reduction == "batch" else 2) for values in (errors, target))
    errors, order = errors.sort(dim=-1, descending=True, stable=True)
    hits = target.gather(-1, order).long().cumsum(-1)  # whole numbers: exact, and deterministic on CUDA
    ranks = torch.arange(1, hits.shape[-1] + 1, device=hits.device)
    truth = hits[..., -1:]
    losses_at = 1 - (truth - hits).to(errors.dtype) / (truth + ranks - hits).to(errors.dtype)
    steps = torch.cat([losses_at[..., :1], losses_at.diff(dim=-1)], dim=-1)
    return (errors * steps).sum(-1).mean()
