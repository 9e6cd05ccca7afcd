"""The U-Net's modules; `segkit.models.unet` is the component."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from segkit.components.padding import on_padded

NormName = Literal["batch", "instance", "group", "none"]
NormOrder = Literal["after", "before"]
ActivationName = Literal["relu", "leaky_relu"]
Downsampling = Literal["max_pool", "strided"]
SLOPE = 0.01  # of leaky_relu below 0, as in nnU-Net


@dataclass(frozen=True)
class Convolutions:
    """A maker of what a level consists of: 3 x 3 convolutions, each with activation, norm and dropout."""

    norm: NormName
    order: NormOrder
    activation: ActivationName

    def normalized(self, channels: int) -> list[nn.Module]:
        """Return the norm, if there is one."""
        if self.norm == "batch":
            return [nn.BatchNorm2d(channels)]
        if self.norm == "instance":  # as InstanceNorm2d, which on a CPU leaves channels-last
            return [nn.GroupNorm(channels, channels)]
        if self.norm == "group":
            return [nn.GroupNorm(math.gcd(8, channels), channels)]
        return []

    def plain(
        self, in_channels: int, out_channels: int, count: int, *, stride: int = 1, dropout: float = 0.0
    ) -> nn.Sequential:
        """Return so many convolutions, the first with a stride."""
        layers: list[nn.Module] = []
        for number in range(count):
            inner, step = (out_channels, 1) if number else (in_channels, stride)
            layers.append(nn.Conv2d(inner, out_channels, kernel_size=3, stride=step, padding=1))
            leaky = self.activation == "leaky_relu"
            active = nn.LeakyReLU(SLOPE, inplace=True) if leaky else nn.ReLU(inplace=True)
            normed = self.normalized(out_channels)
            layers += [active, *normed] if self.order == "after" else [*normed, active]
            if dropout:
                layers.append(nn.Dropout2d(dropout))
        return nn.Sequential(*layers)

    def residual(
        self, in_channels: int, out_channels: int, count: int, *, stride: int = 1, dropout: float = 0.0
    ) -> nn.Sequential:
        """Return the same in residual blocks of two convolutions; an odd number leaves one for the last block."""
        blocks: list[nn.Module] = []
        for done in range(0, count, 2):
            inner, step = (out_channels, 1) if done else (in_channels, stride)
            layers = self.plain(inner, out_channels, min(2, count - done), stride=step, dropout=dropout)
            skip: list[nn.Module] = [nn.AvgPool2d(step)] if step > 1 else []
            if inner != out_channels:
                skip.append(nn.Conv2d(inner, out_channels, kernel_size=1))
                skip += self.normalized(out_channels) if self.order == "before" else []
            blocks.append(_Residual(layers, nn.Sequential(*skip)))
        return nn.Sequential(*blocks)


class _Residual(nn.Module):
    """Layers to whose result their input, brought to its shape by `skip`, is added before the last activation."""

    def __init__(self, layers: nn.Sequential, skip: nn.Sequential) -> None:
        super().__init__()
        last = max(n for n, layer in enumerate(layers) if isinstance(layer, nn.ReLU | nn.LeakyReLU))
        self.inner, self.skip, self.last = layers[:last], skip, layers[last:]

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.inner(x) + self.skip(x))
        return found


class UNet(nn.Module):
    """Image (N, in_channels, H, W) of any size to scores (N, out_channels, H, W).

    With deep supervision, in training to a tuple of scores: those of each level of the path up, the finest first, each
    of half the size of the one before; the lowest level, where the path up begins, has none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        widths: Sequence[int],
        convolutions: Sequence[int],
        blocks: Convolutions,
        residual: bool,
        downsampling: Downsampling,
        dropout: float,
        upsampler: Callable[[int, int], nn.Module],
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        build, pairs = blocks.residual if residual else blocks.plain, zip((in_channels, *widths), widths, strict=False)
        self.down = nn.ModuleList(
            build(*pair, count, stride=2 if level and downsampling == "strided" else 1, dropout=dropout)
            for level, (pair, count) in enumerate(zip(pairs, convolutions, strict=True))
        )
        steps = [(low, high) for high, low in itertools.pairwise(widths)][::-1]
        self.grow = nn.ModuleList(upsampler(low, high) for low, high in steps)
        counts = convolutions[-2::-1] if steps else ()
        self.up = nn.ModuleList(
            blocks.plain(2 * high, high, count) for (_, high), count in zip(steps, counts, strict=True)
        )
        self.head = nn.Conv2d(widths[0], out_channels, kernel_size=1)
        below = widths[1:-1] if deep_supervision else ()
        self.auxiliary = nn.ModuleList(nn.Conv2d(width, out_channels, kernel_size=1) for width in below)
        self.factor, self.pools, self.deep_supervision = 2 ** len(steps), downsampling == "max_pool", deep_supervision

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        found: Tensor | tuple[Tensor, ...] = on_padded(image, self._scores, self.factor, least=2 * self.factor)
        return found

    def _scores(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level and self.pools else x)
            skips.append(x)
        skips.pop()
        grown: list[Tensor] = []
        for grow, block in zip(self.grow, self.up, strict=True):
            x = block(torch.cat([skips.pop(), grow(x)], dim=1))
            grown.append(x)
        scores: Tensor = self.head(x)
        if not (self.training and self.deep_supervision):
            return scores
        return (scores, *(head(level) for head, level in zip(self.auxiliary, grown[-2::-1], strict=True)))
