"""From images to probabilities: of one pass of the network, or the mean over symmetries and over sliding windows.

Probabilities are averaged, never scores. Symmetries are those of each window, as in nnU-Net.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from segkit.recipe.sections import Evaluation, Window

Pass = Callable[[Tensor], Tensor]

FLIPS = ((), (-1,), (-2,), (-2, -1))  # the axes that each turns round
LEAST_WEIGHT = 1e-3  # of a pixel in a window
CERTAIN = 1e-6  # no probability is nearer to 0 or 1 when scores are made of it


def predictor_of(scores: Pass, settings: Evaluation, *, exclusive: bool, batch_size: int) -> Pass:
    """Return what turns images (N, I, H, W) into probabilities (N, C, H, W).

    Args:
        scores: images (N, I, h, w) of any size to scores (N, C, h, w), float32.
        settings: of which test-time augmentation and windows are used.
        exclusive: whether classes exclude each other, the background first.
        batch_size: how many windows the network sees at once.
    """

    def once(image: Tensor) -> Tensor:
        return probabilities_of(scores(image), exclusive=exclusive)

    of_views = once if settings.tta == "none" else _over_views(once, transposed=settings.tta == "d4")
    return of_views if settings.window is None else _over_windows(of_views, settings.window, batch_size)


def probabilities_of(scores: Tensor, *, exclusive: bool) -> Tensor:
    """Return the probabilities (N, C, H, W) of scores: softmax's where classes exclude each other."""
    return torch.softmax(scores, dim=1) if exclusive else torch.sigmoid(scores)


def scores_of(probability: Tensor, *, exclusive: bool) -> Tensor:
    """Return finite scores (N, C, H, W) whose probabilities are these: of which a loss can be computed."""
    return probability.clamp_min(CERTAIN).log() if exclusive else torch.logit(probability, CERTAIN)


def resampled(probability: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return probabilities (N, C, h, w) at a size (H, W); classes are resampled all together."""
    if tuple(probability.shape[2:]) == size:
        return probability
    return torch.nn.functional.interpolate(probability, size=size, mode="bilinear", align_corners=False)


def images_at_once(size: tuple[int, ...], settings: Evaluation, batch_size: int) -> int:
    """Return how many images of (H, W) are predicted together: with windows, as many as a batch of those has pixels."""
    if settings.window is None:
        return batch_size
    return min(batch_size, max(1, batch_size * math.prod(settings.window.size) // math.prod(size)))


def _over_views(predict: Pass, *, transposed: bool) -> Pass:
    """Return the mean over the four flips, with `transposed` over the eight symmetries of the square, one by one."""

    def mean(image: Tensor) -> Tensor:
        total: Tensor | None = None
        for turned in (False, True) if transposed else (False,):
            seen = image.mT if turned else image
            for axes in FLIPS:
                found = predict(seen.flip(axes).contiguous(memory_format=torch.channels_last)).flip(axes)
                found = found.mT if turned else found
                total = found if total is None else total.add_(found)
        assert total is not None, "there are views"
        return total.div_(len(FLIPS) * (2 if transposed else 1))

    return mean


def _over_windows(predict: Pass, window: Window, batch_size: int) -> Pass:
    """Return the mean over windows, weighted by a Gaussian of their pixels' distance from the centre.

    Images are padded with 0, the mean of the training images, to at least one window. Windows lie as in MONAI: from the
    top left in equal steps, the last ones shifted to the end.
    """
    size = window.size

    def mean(image: Tensor) -> Tensor:
        padded, (top, left) = _padded(image, size)
        starts = [_starts(*lengths, window.overlap) for lengths in zip(padded.shape[2:], size, strict=True)]
        weight = _weight(window).to(image.device)
        weights = torch.zeros(padded.shape[2:], device=image.device)
        for row, column in itertools.product(*starts):
            _cut(weights, row, column, size).add_(weight)
        total: Tensor | None = None
        for places in _batches(itertools.product(range(len(image)), *starts), batch_size):
            windows = torch.stack([_cut(padded[number], row, column, size) for number, row, column in places])
            found = predict(windows.contiguous(memory_format=torch.channels_last)).mul_(weight)
            if total is None:
                total = found.new_zeros(len(image), found.shape[1], *padded.shape[2:])
            for part, (number, row, column) in zip(found, places, strict=True):
                _cut(total[number], row, column, size).add_(part)
        assert total is not None, "there are windows"
        whole = total.div_(weights).clamp_max_(1)  # which rounding may exceed
        return whole[..., top : top + image.shape[2], left : left + image.shape[3]]

    return mean


def _padded(image: Tensor, size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """Return images of at least a size, padded on both sides, and where the original begins."""
    rows, columns = (max(wanted - length, 0) for length, wanted in zip(image.shape[2:], size, strict=True))
    top, left = rows // 2, columns // 2
    if not rows and not columns:
        return image, (0, 0)
    return torch.nn.functional.pad(image, (left, columns - left, top, rows - top)), (top, left)


def _starts(length: int, window: int, overlap: float) -> list[int]:
    """Return where the windows begin along an axis."""
    step = max(1, int(window * (1 - overlap)))
    count = -(-(length - window) // step) + 1
    return [min(number * step, length - window) for number in range(count)]


def _weight(window: Window) -> Tensor:
    """Return the weight (H, W) of each pixel of a window: a Gaussian around the centre, nowhere 0."""
    profiles = []
    for length in window.size:
        distance = torch.arange(length) - (length - 1) / 2
        profiles.append(torch.exp(distance.square() / (-2 * (window.sigma * length) ** 2)))
    return torch.outer(*profiles).clamp_min(LEAST_WEIGHT)


def _cut(image: Tensor, row: int, column: int, size: tuple[int, int]) -> Tensor:
    """Return the view of a window."""
    return image[..., row : row + size[0], column : column + size[1]]


def _batches(places: Iterator[tuple[int, ...]], size: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    while found := tuple(itertools.islice(places, size)):
        yield found
