"""Losses that judge each pixel on its own."""

from __future__ import annotations

from segkit.components.losses.slot import losses
from segkit.types import Fraction, NonNegative, Tensor


@losses.register("bce")
def bce(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy, a mean over cases, channels and pixels; 0 or more.

    Args:
        logits: scores (N, C, H, W).
        target: masks (N, C, H, W) in {0, 1}.
    """
    from torch.nn import functional

    return functional.binary_cross_entropy_with_logits(logits, target)


@losses.register("cross_entropy", exclusive_only=True)
def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of exclusive classes, a mean over cases and pixels; 0 or more.

    -sum_c t_c log p_c with log p_c = logsigmoid(logits_c), the softmax cross-entropy of the scores that the
    log-odds come from. For `channels = "exclusive"` only: with independent channels nothing would lower a probability.

    Args:
        logits: log-odds of each class against the rest (N, C, H, W), background first.
        target: one-hot classes (N, C, H, W).
    """
    from torch.nn import functional

    cases, _, height, width = logits.shape
    return -(target * functional.logsigmoid(logits)).sum() / (cases * height * width)


@losses.register("focal")
def focal(logits: Tensor, target: Tensor, *, alpha: Fraction = 0.25, gamma: NonNegative = 2.0) -> Tensor:
    """Focal loss: binary cross-entropy in which well-classified pixels count less; a mean, 0 or more.

    -alpha_t (1 - p_t)^gamma log(p_t), where p_t is the probability given to the truth.

    Args:
        logits: scores (N, C, H, W).
        target: masks (N, C, H, W) in {0, 1}.
        alpha: the weight of foreground pixels; that of the background is 1 - alpha.
        gamma: how fast a well-classified pixel loses weight; 0 gives a weighted `bce`.

    Source: Lin, Goyal, Girshick, He, Dollár 2017, eq. 5, there divided by the number of anchors.
    """
    from torch.nn import functional

    against = (1 - 2 * target) * logits  # log-odds of being wrong
    weight = alpha * target + (1 - alpha) * (1 - target)
    # Through logarithms, because a power below 1 has an infinite slope at 0.
    modulation = (gamma * functional.logsigmoid(against)).exp()
    return (-weight * modulation * functional.logsigmoid(-against)).mean()
