"""The U-Net's modules; `segkit.models.unet` is the component."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

NormName = Literal["batch", "instance", "group", "none"]
NormOrder = Literal["after", "before"]


def _norm(name: NormName, channels: int) -> list[nn.Module]:
    if name == "batch":
        return [nn.BatchNorm2d(channels)]
    if name == "instance":  # the same function as InstanceNorm2d, which leaves channels-last
        return [nn.GroupNorm(channels, channels)]
    if name == "group":
        return [nn.GroupNorm(math.gcd(8, channels), channels)]
    return []


def _pair(in_channels: int, out_channels: int, norm: NormName, order: NormOrder, dropout: float) -> nn.Sequential:
    """Return two 3 x 3 convolutions, each with ReLU, norm and dropout."""
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers.append(nn.Conv2d(channels, out_channels, kernel_size=3, padding=1))
        relu, normed = nn.ReLU(inplace=True), _norm(norm, out_channels)
        layers += [relu, *normed] if order == "after" else [*normed, relu]
        if dropout:
            layers.append(nn.Dropout2d(dropout))
    return nn.Sequential(*layers)


def _padding(size: int, factor: int) -> tuple[int, int]:
    """Return the padding before and after, for a whole number of at least 2 pixels on the lowest level."""
    missing = max(math.ceil(size / factor), 2) * factor - size
    return missing // 2, missing - missing // 2


class UNet(nn.Module):
    """Image (N, in_channels, H, W) of any size to scores (N, out_channels, H, W)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        widths: Sequence[int],
        dropout: float,
        norm: NormName,
        norm_order: NormOrder,
        upsampler: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__()
        inputs = (in_channels, *widths)
        self.down = nn.ModuleList(_pair(*pair, norm, norm_order, dropout) for pair in zip(inputs, widths, strict=False))
        steps = [(low, high) for high, low in itertools.pairwise(widths)][::-1]
        self.grow = nn.ModuleList(upsampler(low, high) for low, high in steps)
        self.up = nn.ModuleList(_pair(2 * high, high, norm, norm_order, dropout=0.0) for _, high in steps)
        self.head = nn.Conv2d(widths[0], out_channels, kernel_size=1)
        self.factor = 2 ** len(steps)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        (top, bottom), (left, right) = _padding(height, self.factor), _padding(width, self.factor)
        if not (top or bottom or left or right):
            return self._scores(image)
        scores = self._scores(functional.pad(image, (left, right, top, bottom), mode="replicate"))
        return scores[:, :, top : top + height, left : left + width]

    def _scores(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for level, pair in enumerate(self.down):
            x = pair(x if level == 0 else functional.max_pool2d(x, 2))
            skips.append(x)
        skips.pop()
        for grow, pair in zip(self.grow, self.up, strict=True):
            x = pair(torch.cat([skips.pop(), grow(x)], dim=1))
        scores: Tensor = self.head(x)
        return scores
