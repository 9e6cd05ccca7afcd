"""Losses: what training minimizes.

A loss takes `logits` (N, C, H, W) and `target` (N, C, H, W) in {0, 1}, both of one floating type, and returns a scalar.
`sigmoid(logits)` is each channel's probability, also for exclusive classes, whose logits are log-odds of one class
against the rest. Every loss is a mean, independent of batch and image size, unless its docstring says otherwise; any
finite logits give a finite value and gradient.

A loss that is a sum may be a class with `parts`, the names of its terms, and `terms(logits, target)`, their values: the
log then shows each, and its share of the gradient.
"""

from __future__ import annotations

from segkit.components.losses.mixed import Combined, switching
from segkit.components.losses.overlap import (
    dice,
    dice_mix,
    focal_tversky,
    generalized_dice,
    inverse_dice,
    jaccard,
    lovasz,
    tversky,
)
from segkit.components.losses.pixel import bce, cross_entropy, focal
from segkit.components.losses.slot import losses
from segkit.components.losses.surface import boundary

__all__ = [
    "Combined",
    "bce",
    "boundary",
    "cross_entropy",
    "dice",
    "dice_mix",
    "focal",
    "focal_tversky",
    "generalized_dice",
    "inverse_dice",
    "jaccard",
    "losses",
    "lovasz",
    "switching",
    "tversky",
]
