"""Scores as losses see them: log-odds, and where a model gives several resolutions, a target for each of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from segkit.errors import UserError
from segkit.types import Scores


def log_odds(scores: Tensor) -> Tensor:
    """Turn softmax scores (N, C, H, W) into one-against-rest log-odds, `x_c - logsumexp(x_others)`.

    sigmoid(log_odds(x)) is softmax(x): losses need not know which of the two the recipe chose.
    """
    others = [torch.cat([scores[:, :c], scores[:, c + 1 :]], dim=1) for c in range(scores.shape[1])]
    return scores - torch.stack([torch.logsumexp(rest, dim=1) for rest in others], dim=1)


def detached(scores: Scores) -> Scores:
    """Return scores without their graph."""
    return scores.detach() if isinstance(scores, Tensor) else tuple(level.detach() for level in scores)


class Levels:
    """Turns scores of one or several resolutions into pairs of logits and target (deep supervision).

    A target shrinks by the area that a structure covers of each pixel, as masks do elsewhere: at least half of it, or
    the class that covers most of it where classes are exclusive.

    Args:
        exclusive: whether scores are of exclusive classes (softmax, background first).
        weights: one for each level, the finest first; by default each is half of the one before.

    Attributes:
        unused: whether weights are stated and no scores of several levels have been seen.
    """

    def __init__(self, *, exclusive: bool, weights: Sequence[float] | None = None) -> None:
        self.exclusive, self.weights = exclusive, weights
        self.unused = weights is not None

    def weights_of(self, count: int) -> list[float]:
        """Return the weights of so many levels, whose sum is 1.

        Raises:
            UserError: others are stated.
        """
        given = self.weights or [0.5**level for level in range(count)]
        if len(given) != count:
            raise UserError(
                f"train.auxiliary_weights: states {len(given)} weights, but the model returns scores of {count} "
                "resolutions: give one for each, the finest first."
            )
        self.unused = False
        return [weight / sum(given) for weight in given]

    def __call__(self, scores: Scores, target: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return (logits, target) of each level, the finest first."""
        levels = (scores,) if isinstance(scores, Tensor) else scores
        return [(self.logits(level), self._at(level.shape[2:], target)) for level in levels]

    def logits(self, scores: Tensor) -> Tensor:
        """Return float32 logits whose sigmoid is the probability, for scores of any dtype."""
        logits = scores if scores.dtype == torch.float32 else scores.float()
        return log_odds(logits) if self.exclusive else logits

    def _at(self, size: torch.Size, target: Tensor) -> Tensor:
        if size == target.shape[2:]:
            return target
        share = functional.adaptive_avg_pool2d(target, (size[0], size[1]))
        if not self.exclusive:
            return (share >= 0.5).to(target.dtype)
        return torch.zeros_like(share).scatter_(1, share.argmax(1, keepdim=True), 1)
