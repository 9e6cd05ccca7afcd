"""Losses that judge each pixel on its own."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Gt, Le, MinLen

from segkit.components.losses.slot import losses
from segkit.errors import counted
from segkit.types import Fraction, NonNegative, Positive, Tensor

Weights = Annotated[tuple[Positive, ...], MinLen(1)] | None
"""One a channel."""
Share = Annotated[float, Gt(0), Le(1)] | None


@losses.register("bce")
def bce(
    logits: Tensor,
    target: Tensor,
    *,
    class_weights: Weights = None,
    positive_weights: Positive | Weights = None,
    top_k: Share = None,
) -> Tensor:
    """Binary cross-entropy, a mean over cases, channels and pixels; 0 or more.

    Args:
        logits: scores (N, C, H, W).
        target: masks (N, C, H, W) in {0, 1}.
        class_weights: of the channels; only their ratios count.
        positive_weights: how many background pixels a foreground pixel counts as, in all channels or in each.
        top_k: the share of the pixels, those of the batch and its channels with the largest loss, that the mean is
            over: 0.1 in nnU-Net's TopKLoss.

    Raises:
        ValueError: the weights are not as many as the channels.

    Source: of `top_k`, Wu, Shen, van den Hengel 2016 (online bootstrapping of hard pixels).
    """
    from torch.nn import functional

    positive = None if positive_weights is None else _by_channel(positive_weights, logits, "positive_weights")
    if class_weights is None and top_k is None:
        return functional.binary_cross_entropy_with_logits(logits, target, pos_weight=positive)
    values = functional.binary_cross_entropy_with_logits(logits, target, pos_weight=positive, reduction="none")
    if class_weights is not None:
        classes = _by_channel(class_weights, logits, "class_weights")
        values = values * (classes / classes.mean())
    return _mean_of_largest(values, top_k)


def _by_channel(weights: float | tuple[float, ...], logits: Tensor, name: str) -> Tensor:
    """Return weights (C, 1, 1); a number is every channel's."""
    import torch

    channels = logits.shape[1]
    each = weights if isinstance(weights, tuple) else (weights,) * channels
    if len(each) != channels:
        raise ValueError(
            f"{name} has {counted(len(each), 'number')} for {counted(channels, 'channel')}: give one a channel, where "
            "classes are exclusive one for the background first."
        )
    return torch.stack([logits.new_full((), weight) for weight in each]).view(-1, 1, 1)  # no copy to the device


def _mean_of_largest(values: Tensor, share: float | None) -> Tensor:
    """Return the mean of a share of the values, the largest; of all if there is no share."""
    if share is None:
        return values.mean()
    return values.flatten().topk(math.ceil(share * values.numel()), sorted=False).values.mean()


@losses.register("cross_entropy", exclusive_only=True)
def cross_entropy(logits: Tensor, target: Tensor, *, class_weights: Weights = None, top_k: Share = None) -> Tensor:
    """Cross-entropy of exclusive classes, a mean over cases and pixels; 0 or more.

    -sum_c t_c log p_c with log p_c = logsigmoid(logits_c), the softmax cross-entropy of the scores that the
    log-odds come from. For `channels = "exclusive"` only: with independent channels nothing would lower a probability.

    Args:
        logits: log-odds of each class against the rest (N, C, H, W), background first.
        target: one-hot classes (N, C, H, W).
        class_weights: of the classes, background first: the mean is weighted by those of the pixels' classes.
        top_k: as for `bce`, of the pixels of the batch.

    Raises:
        ValueError: the weights are not as many as the classes.
    """
    from torch.nn import functional

    cases, _, height, width = logits.shape
    if class_weights is not None or top_k is not None:
        weighted = target if class_weights is None else target * _by_channel(class_weights, logits, "class_weights")
        values = -(weighted * functional.logsigmoid(logits)).sum(1)
        return _mean_of_largest(values / weighted.sum(1).mean(), top_k)
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
