"""Which label a pixel gets, on a device: the rules of `segkit.data.coverage`, whose numbers they share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segkit.data.coverage import FULL, HALF


def decided(
    planes: Sequence[Tensor],
    labels: Sequence[int],
    known: Tensor,
    kind: torch.dtype,
    phases: Tensor,
    *,
    exclusive: bool,
) -> Tensor:
    """Return the bit maps (N, H, W) in which each pixel has the label that its coverage says.

    Args:
        planes: (N, H, W) from 0 to 1, for each label how much of a pixel it covers.
        labels: in order.
        known: (N, L) bool, which of them an image has.
        kind: the type of the bit maps.
        phases: (N,) int16, the colour of the first pixel on the chessboard of ties, 0 or 1.
        exclusive: whether channels are exclusive classes.
    """
    first = planes[0]
    rows, columns = (torch.arange(side, device=first.device, dtype=torch.int16) for side in first.shape[1:])
    board = (rows[:, None] + columns + phases[:, None, None]) & 1
    covered = [(plane * FULL).round().to(torch.int16) for plane in planes]
    if len(labels) == 1:
        return (covered[0] + board > HALF).to(kind) * labels[0]
    winner, most = _winner(covered, labels, board, kind)
    if exclusive:
        return winner
    if all(label & (label - 1) == 0 for label in labels):
        return winner * (most >= HALF)
    return _by_channel(covered, labels, known, winner)


def _winner(
    covered: Sequence[Tensor], labels: Sequence[int], board: Tensor, kind: torch.dtype
) -> tuple[Tensor, Tensor]:
    most = torch.stack(list(covered)).sum(0, dtype=torch.int16).neg_().add_(FULL).clamp_min_(0)
    winner = torch.zeros_like(most, dtype=kind)
    for plane, label in zip(covered, labels, strict=True):
        winner = torch.where(plane + board > most, label, winner)
        most = torch.maximum(most, plane)
    return winner, most


def _by_channel(covered: Sequence[Tensor], labels: Sequence[int], known: Tensor, winner: Tensor) -> Tensor:
    whole = torch.stack(list(covered)).sum(0).clamp_min(FULL)
    found = torch.zeros_like(winner)
    for channel in range(max(labels).bit_length()):
        bit = 1 << channel
        part = torch.stack([plane for plane, label in zip(covered, labels, strict=True) if label & bit] or [whole * 0])
        twice = 2 * part.sum(0)
        found |= ((twice > whole) | ((twice == whole) & (winner & bit > 0))).to(winner.dtype) * bit
    allowed = found == 0
    for place, label in enumerate(labels):
        allowed |= (found == label) & known[:, place, None, None]
    return torch.where(allowed, found, winner)
