"""Small inputs on which components are tried: masks of discs, scores, a network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


def masks(cases: int, channels: int, size: tuple[int, int], *, exclusive: bool) -> Tensor:
    """Return discs (N, C, H, W) in {0, 1}, none at the border; exclusive ones with the background as channel 0."""
    rows, columns = torch.arange(size[0]).view(-1, 1), torch.arange(size[1]).view(1, -1)
    found = torch.zeros(cases, channels, *size)
    for case in range(cases):
        for channel in range(channels):
            row, column = size[0] * (0.45 + 0.05 * channel), size[1] * (0.4 + 0.1 * (case % 2) + 0.05 * channel)
            radius = min(size) * (0.3 - 0.06 * channel)
            found[case, channel] = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
    if exclusive:
        found[:, 0] = 1
        for channel in range(channels - 1, 0, -1):
            found[:, :channel] *= 1 - found[:, channel : channel + 1]
    return found


def scores(target: Tensor, seed: int = 0) -> Tensor:
    """Return the log-odds (N, C, H, W) of an uncertain prediction of a target."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(target.shape, generator=generator, dtype=torch.float64)
    return (1.5 * noise + (target.double() - 0.5)).to(target.dtype)


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """Seed torch's global generator with 0 within the block."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def network() -> nn.Module:
    """Return a small network with convolutions, a norm, and a linear layer; its weights are always the same."""
    with seeded():
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 3, 2, stride=2), nn.Flatten(), nn.Linear(5, 3)
        )
