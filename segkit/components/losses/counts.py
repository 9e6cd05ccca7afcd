"""Soft pixel counts: the sums that every overlap loss is made of, each computed once."""

from __future__ import annotations

from typing import Literal, NamedTuple

from segkit.types import Tensor

Reduction = Literal["case", "batch"]
"""One count a case and channel, or one a channel over the whole batch."""


class Counts(NamedTuple):
    """Soft counts, (N, C) by case or (C,) by batch, for p = sigmoid(logits) and a target t."""

    missed: Tensor
    """sum(t (1 - p)), the soft false negatives."""
    surplus: Tensor
    """sum((1 - t) p), the soft false positives."""
    truth: Tensor
    """sum(t)"""
    pixels: int


def count(logits: Tensor, target: Tensor, reduction: Reduction) -> Counts:
    """Count from three sums; those of 1 - p and 1 - t follow from them."""
    from segkit.components.autograd import soft_counts

    cases, _, height, width = logits.shape
    if reduction == "batch":
        return Counts(*soft_counts(logits, target, (0, 2, 3)), cases * height * width)
    return Counts(*soft_counts(logits, target, (2, 3)), height * width)


def dice_of(counts: Counts, epsilon: float) -> Tensor:
    """Return 1 - 2 (sum(p t) + e/2) / (sum(p) + sum(t) + e), with numerator and denominator brought together."""
    wrong = counts.surplus + counts.missed
    return wrong / (2 * counts.truth + counts.surplus - counts.missed + epsilon)


def inverse_dice_of(counts: Counts, epsilon: float) -> Tensor:
    """Return the same on 1 - p and 1 - t: surplus and missed trade places, and their sum stays."""
    wrong = counts.surplus + counts.missed
    return wrong / (2 * (counts.pixels - counts.truth) + counts.missed - counts.surplus + epsilon)


def mix_of(counts: Counts, weight: float | Tensor, epsilon: float) -> Tensor:
    """Return the mean of weight * dice + (1 - weight) * inverse dice."""
    return (weight * dice_of(counts, epsilon) + (1 - weight) * inverse_dice_of(counts, epsilon)).mean()
