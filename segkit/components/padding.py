"""Images of any size for networks that take multiples only: the border is repeated, and the scores are cropped."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Padded(nn.Module):
    """Image (N, I, H, W) of any size to the scores of `inner`, which sees sides that are multiples.

    Args:
        inner: image to scores, or in training to a tuple of scores.
        multiple: of which each side is to be, in pixels.
        least: the smallest side that `inner` sees.
    """

    def __init__(self, inner: nn.Module, multiple: int, least: int) -> None:
        super().__init__()
        self.inner, self.multiple, self.least = inner, multiple, least

    def forward(self, image: Tensor) -> Any:
        """Return one tensor of scores, or a tuple of them, as `inner` does."""
        return on_padded(image, self.inner, self.multiple, self.least)


def on_padded(image: Tensor, compute: Callable[[Tensor], Any], multiple: int, least: int) -> Any:
    """Return what `compute` makes of an image (N, I, H, W) whose border is repeated, cropped to the image.

    It repeats as much on both sides, or one pixel more on the far one. Scores of a lower resolution are cropped to the
    image's area too. Where its border does not lie between two of their pixels, they are averaged by area over as many
    pixels as the image fills, rounded up.
    """
    height, width = image.shape[2:]
    (top, bottom), (left, right) = (_added(size, multiple, least) for size in (height, width))
    if not (top or bottom or left or right):
        return compute(image)
    found = compute(functional.pad(image, (left, right, top, bottom), mode="replicate"))

    def crop(scores: Tensor) -> Tensor:
        rows = _cropped(scores, 2, top, height, height + top + bottom)
        return _cropped(rows, 3, left, width, width + left + right)

    return crop(found) if isinstance(found, Tensor) else tuple(map(crop, found))


def _added(size: int, multiple: int, least: int) -> tuple[int, int]:
    """Return how many pixels to add before and after."""
    missing = max(math.ceil(size / multiple), math.ceil(least / multiple)) * multiple - size
    return missing // 2, missing - missing // 2


def _cropped(scores: Tensor, axis: int, before: int, size: int, padded: int) -> Tensor:
    """Return what of the scores along an axis covers the image: `size` of `padded` pixels, after the first `before`."""
    found = scores.shape[axis]
    if before * found % padded == 0 and size * found % padded == 0:
        return scores.narrow(axis, before * found // padded, size * found // padded)
    count = math.ceil(size * found / padded)
    edges = (before + torch.arange(count + 1, device=scores.device) * size / count) * found / padded
    pixels = torch.arange(found, device=scores.device)
    shared = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    weights = shared.clamp_min(0)
    weights = (weights / weights.sum(dim=1, keepdim=True)).to(scores.dtype)
    return (scores.movedim(axis, -1) @ weights.T).movedim(-1, axis)  # a product: deterministic on every device
