"""Losses that put dice and inverse dice together with something else."""

from __future__ import annotations

from typing import Literal

from segkit.components.losses.counts import Reduction, count, mix_of
from segkit.components.losses.pixel import bce
from segkit.components.losses.slot import losses
from segkit.types import Fraction, Positive, Tensor


@losses.register("combined")
class Combined:
    """Binary cross-entropy plus lambda * dice plus (1 - lambda) * inverse dice; 0 or more.

    The log shows its two parts, and the share of the gradient that each has.

    Args:
        lambda_: the weight of dice against inverse dice; `lambda` in a recipe.
        bce_reduction: "mean" over pixels, or as published "sum" over the pixels of an image (a mean over cases and
            channels), which grows with the image and drowns the other terms: at 192 x 192 it is 36,864 times larger.
        epsilon, reduction: of dice and inverse dice, as for `dice`.
    """

    parts = ("bce", "mix")

    def __init__(
        self,
        *,
        lambda_: Fraction = 0.5,
        bce_reduction: Literal["mean", "sum"] = "mean",
        epsilon: Positive = 1.0,
        reduction: Reduction = "case",
    ) -> None:
        self.lambda_, self.bce_reduction, self.epsilon, self.reduction = lambda_, bce_reduction, epsilon, reduction

    def terms(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the binary cross-entropy and the mix of dice and inverse dice."""
        pixels = logits.shape[2] * logits.shape[3] if self.bce_reduction == "sum" else 1
        counts = count(logits, target, self.reduction)
        return pixels * bce(logits, target), mix_of(counts, self.lambda_, self.epsilon)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the sum of both, for logits (N, C, H, W) and target (N, C, H, W) in {0, 1}."""
        cross_entropy, mix = self.terms(logits, target)
        return cross_entropy + mix


@losses.register("switching")
def switching(
    logits: Tensor,
    target: Tensor,
    *,
    threshold: Fraction = 0.05,
    lambda_: Fraction = 0.75,
    epsilon: Positive = 1.0,
    reduction: Reduction = "case",
) -> Tensor:
    """Dice and inverse dice whose weights trade places where the batch has little foreground; from 0 to 1.

    A channel that fills more than `threshold` of the batch's pixels costs lambda * dice + (1 - lambda) * inverse dice,
    any other (1 - lambda) * dice + lambda * inverse dice. The idea is published, the two constants are segkit's.

    Args:
        threshold: the fraction of foreground pixels, of a channel over the batch, above which dice weighs lambda.
        lambda_: the weight of dice above the threshold; `lambda` in a recipe.
        logits, target, epsilon, reduction: as for `dice`.

    Source: after Dang, Anand, Sethi 2019 (pixel-wise segmentation of the right ventricle).
    """
    counts = count(logits, target, reduction)
    filled = counts.truth / counts.pixels
    foreground = filled if reduction == "batch" else filled.mean(0)
    above = (foreground > threshold).to(logits.dtype)
    return mix_of(counts, above * lambda_ + (1 - above) * (1 - lambda_), epsilon)
