"""The prediction of a volume, whose slices arrive one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from segkit.types import Array


class Volume:
    """The prediction of a volume while its slices arrive: kept once, since it may be large.

    Args:
        channels: C, its structures.
        shape: (D, H, W).
        probabilities: whether to keep these too.

    Attributes:
        probability: (C, D, H, W) float32, or (C, 0).
        mask: (C, D, H, W) bool.
        losses: one a slice.
    """

    def __init__(self, channels: int, shape: tuple[int, ...], *, probabilities: bool) -> None:
        self.probability = np.empty((channels, *shape) if probabilities else (channels, 0), np.float32)
        self.mask = np.empty((channels, *shape), bool)
        self.losses: list[float] = []

    def add(self, plane: int, probability: Array, mask: Array, loss: float) -> bool:
        """Add a slice, (C, H, W) each; return whether it was the last one."""
        if self.probability.size:
            self.probability[:, plane] = probability
        self.mask[:, plane] = mask
        self.losses.append(loss)
        return len(self.losses) == self.mask.shape[1]
