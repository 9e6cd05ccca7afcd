"""Samples: the slices that a training draws, with the transforms to run on each; `to_device_float` unpacks batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segkit.components.intensities import Percentile
from segkit.data.cases import Data
from segkit.data.order import Member
from segkit.data.pipeline import Key, Pair, Pipeline
from segkit.data.preparing import prepare
from segkit.data.store import Slices
from segkit.errors import UserError
from segkit.registry.component import Component

if TYPE_CHECKING:
    from torch import Tensor

MOST_TRIES = 20  # crops of a sample that must show foreground, before one without is taken
MOST_SPREAD = 7  # channels whose bits do not collide when they are spread by one multiplication


@dataclass(frozen=True)
class Samples:
    """Training samples, after the leading transforms without randomness.

    Attributes:
        slices: of the data set.
        numbers: the slices that are samples, in order.
        names: the samples' names, for messages.
        labelled: whether each has masks.
        pipeline: the transforms that remain for each sample drawn.
    """

    slices: Slices
    numbers: list[int]
    names: list[str]
    pipeline: Pipeline
    labelled: list[bool]

    @classmethod
    def of(cls, data: Data, cases: Sequence[int], transforms: Sequence[Component], *, exclusive: bool) -> Samples:
        """Return the slices of some cases as samples.

        Raises:
            UserError: a transform cannot be used; the message names the case.
        """
        slices, rest = prepare(data, transforms, exclusive=exclusive)
        chosen = [(number, data.cases[case]) for case in cases for number in data.cases[case].slices]
        for number, _ in chosen:
            slices.check(number)
        names = [case.slice_name(number) for number, case in chosen]
        return cls(slices, [number for number, _ in chosen], names, rest, [case.labelled for _, case in chosen])

    def __len__(self) -> int:
        return len(self.numbers)

    def with_foreground(self) -> list[int]:
        """Return the samples whose masks are not all empty."""
        return [index for index, number in enumerate(self.numbers) if any(self.slices.labels[number])]

    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation of all pixels for each input; if all are equal, the deviation is 1."""
        return self.slices.mean_std(self.numbers)


def to_uint8(image: NDArray[Any], name: str = "image") -> NDArray[np.uint8]:
    """Return an (H, W) image as uint8: as it is, or linearly from [minimum, 99.9th percentile] to 0..255.

    Raises:
        UserError: the image is not two-dimensional or not finite.
    """
    if image.ndim != 2:
        raise UserError(f"{name}: an image must be (rows, columns), one grey channel, got {image.shape}.")
    if image.dtype == np.uint8:
        return image
    if not np.isfinite(image).all():
        raise UserError(f"{name}: the image contains values that are not finite (NaN or infinity).")
    return np.asarray(Percentile()(image[None])[0], np.uint8)


def to_device_float(
    image: Tensor,
    bits: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    channels: int,
    exclusive: bool = False,
) -> tuple[Tensor, Tensor]:
    """Convert a batch, on its device, to the network's input and the losses' target, both channels-last.

    Args:
        image: (N, H, W), or (N, H, W, I) of several inputs, uint8 or float32.
        bits: (N, H, W) uint8, or uint16 or int16 for more than 8 channels, bit c for channel c.
        mean, std: of the training images, for each input.
        channels: C, the dataset's channels.
        exclusive: put the background, the pixels without a channel, before them.

    Returns:
        (image - mean) / std, (N, I, H, W) float32; the target, (N, C or C + 1, H, W) float32 in {0, 1}.
    """
    import torch

    if bits.dtype == torch.uint16:
        bits = bits.view(torch.int16)  # torch does not shift uint16
    if exclusive:
        kind = torch.int32 if channels > MOST_SPREAD else torch.uint8
        bits = (bits.to(kind) << 1) | (bits == 0).to(kind)
    spread = planes(bits, channels + exclusive)
    found = image.to(torch.float32, copy=True)
    if found.ndim == 3:
        normalized = found.sub_(mean[0]).div_(std[0])[..., None]
    else:
        for place in range(found.shape[3]):  # numbers, since tensors of them would be copied to the device
            found[..., place].sub_(mean[place]).div_(std[place])
        normalized = found
    return normalized.permute(0, 3, 1, 2), spread.to(torch.float32).permute(0, 3, 1, 2)


def planes(bits: Tensor, channels: int) -> Tensor:
    """Return bit maps (N, H, W) as (N, H, W, C) bytes of 0 and 1."""
    import torch

    if bits.dtype == torch.uint16:
        bits = bits.view(torch.int16)  # torch does not shift uint16
    if channels > MOST_SPREAD:
        return (bits[..., None] >> torch.arange(channels, device=bits.device, dtype=bits.dtype)) & 1
    # One multiplication of a wider integer moves bit c to byte c (by 7 c places), 5 times faster than single shifts.
    kind = next(kind for kind in (torch.uint8, torch.int16, torch.int32, torch.int64) if kind.itemsize >= channels)
    spread = bits.to(kind) * sum(1 << 7 * c for c in range(channels)) & sum(1 << 8 * c for c in range(channels))
    return spread.view(torch.uint8).view(*bits.shape, kind.itemsize)[..., :channels]


def _transformed(samples: Samples, index: int, key: Key) -> Pair:
    """Return a sample after its transforms, whose randomness depends on the key."""
    slices, number = samples.slices, samples.numbers[index]
    return samples.pipeline(
        slices.image(number), slices.bits(number), key, name=samples.names[index], labels=slices.labels[number]
    )


def assemble(samples: Samples, seed: int, chosen: Sequence[Member]) -> Pair:
    """Return a batch: images (N, H, W) or (N, H, W, I), and bit maps (N, H, W).

    Args:
        samples: to choose from, with the transforms to run on each.
        seed: of the trial.
        chosen: (draw, index) of each member; its randomness depends on these and the seed alone. See `Member`.

    Raises:
        UserError: a transform failed, or sizes differ; the message names the sample.
    """
    batch: Pair | None = None
    for place, (draw, index) in enumerate(chosen):
        image, bits = _transformed(samples, index, (seed, draw, index))
        for again in range(1, MOST_TRIES if draw < 0 else 1):
            if bits.any():
                break
            image, bits = _transformed(samples, index, (seed, draw, index, again))
        if batch is None:
            batch = np.empty((len(chosen), *image.shape), image.dtype), np.empty((len(chosen), *bits.shape), bits.dtype)
        elif image.shape != batch[0].shape[1:]:
            raise other_size(samples.names[index], bits.shape, samples.names[chosen[0][1]], batch[1].shape[1:])
        batch[0][place], batch[1][place] = image, bits
    assert batch is not None, "a batch has at least one member"
    return batch


def other_size(name: str, size: Sequence[int], first: str, wanted: Sequence[int]) -> UserError:
    """Return the error of a sample that differs in size from the first of its batch."""
    return UserError(
        f"{name}: {size[0]} x {size[1]} pixels after the transforms, but {first}, in the same batch, has {wanted[0]} x "
        f"{wanted[1]}. Images of a batch must have one size: add RandomCrop, PadIfNeeded or Resize to "
        "transforms.train, or set train.batch_size = 1."
    )
