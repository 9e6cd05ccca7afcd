"""Samples: cases in memory as 8-bit images and masks packed into bit maps; `to_device_float` unpacks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segkit.components.datasets.case import MOST_CHANNELS, Case
from segkit.components.intensities import Percentile
from segkit.data.pipeline import Bits, Image, Pair, Pipeline, labels_of
from segkit.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

MOST_SPREAD = 7  # channels whose bits do not collide when they are spread by one multiplication


@dataclass
class Samples:
    """Training samples, after the leading deterministic transforms, which run once per case.

    Attributes:
        names: the cases' names.
        images: (H, W) uint8 each.
        bits: the masks, (H, W) uint8 or uint16 each, bit c for channel c.
        pipeline: the transforms that remain for each sample drawn.
        labels: the values in each bit map.
    """

    names: list[str]
    images: list[Image]
    bits: list[Bits]
    pipeline: Pipeline
    labels: list[tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self.labels = [labels_of(bits) for bits in self.bits]

    @classmethod
    def of(cls, cases: Sequence[Case], pipeline: Pipeline) -> Samples:
        """Scale cases to 8 bits, pack their masks, and run the leading deterministic transforms.

        Raises:
            UserError: a case or a transform cannot be used; the message names the case.
        """
        names = [case.name for case in cases]
        pairs = [(to_uint8(case.image, case.name), pack_masks(case.masks, case.name)) for case in cases]
        settled, rest = pipeline.settle(pairs, names)
        return cls(names, [image for image, _ in settled], [bits for _, bits in settled], rest)

    def __len__(self) -> int:
        return len(self.names)

    def mean_std(self) -> tuple[float, float]:
        """Return mean and standard deviation of all pixels, in grey levels; if all are equal, the deviation is 1."""
        counts = sum((np.bincount(image.ravel(), minlength=256) for image in self.images), np.zeros(256, np.int64))
        levels = np.arange(256)
        mean = float((counts * levels).sum() / counts.sum())
        variance = float((counts * (levels - mean) ** 2).sum() / counts.sum())
        return mean, variance**0.5 or 1.0


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


def pack_masks(masks: NDArray[Any], name: str = "masks") -> Bits:
    """Return masks (C, H, W) as a bit map (H, W): uint8 for up to 8 channels, else uint16.

    Raises:
        UserError: more than 16 channels.
    """
    if masks.ndim != 3 or not 1 <= len(masks) <= MOST_CHANNELS:
        raise UserError(f"{name}: masks must be 1 to {MOST_CHANNELS} channels of (rows, columns), got {masks.shape}.")
    kind = np.uint8 if len(masks) <= 8 else np.uint16
    bits = np.zeros(masks.shape[1:], kind)
    for channel, mask in enumerate(masks):
        bits |= mask.astype(bool).astype(kind) << kind(channel)
    return bits


def to_device_float(
    image: Tensor, bits: Tensor, mean: float, std: float, channels: int, exclusive: bool = False
) -> tuple[Tensor, Tensor]:
    """Convert a batch, on its device, to the network's input and the losses' target, both channels-last.

    Args:
        image: (N, H, W) uint8.
        bits: (N, H, W) uint8, or uint16 or int16 for more than 8 channels, bit c for channel c.
        mean, std: of the training images, in grey levels.
        channels: C, the dataset's channels.
        exclusive: put the background, the pixels without a channel, before them.

    Returns:
        (image - mean) / std, (N, 1, H, W) float32; the target, (N, C or C + 1, H, W) float32 in {0, 1}.
    """
    import torch

    if bits.dtype == torch.uint16:
        bits = bits.view(torch.int16)  # torch does not shift uint16
    if exclusive:
        kind = torch.int32 if channels > MOST_SPREAD else torch.uint8
        bits = (bits.to(kind) << 1) | (bits == 0).to(kind)
    planes = _planes(bits, channels + exclusive)
    normalized = image.to(torch.float32).sub_(mean).div_(std)[..., None]
    return normalized.permute(0, 3, 1, 2), planes.to(torch.float32).permute(0, 3, 1, 2)


def _planes(bits: Tensor, channels: int) -> Tensor:
    """Return bit maps (N, H, W) as (N, H, W, C) bytes of 0 and 1."""
    import torch

    if channels > MOST_SPREAD:
        return (bits[..., None] >> torch.arange(channels, device=bits.device, dtype=bits.dtype)) & 1
    # One multiplication of a wider integer moves bit c to byte c (by 7 c places), 5 times faster than single shifts.
    kind = next(kind for kind in (torch.uint8, torch.int16, torch.int32, torch.int64) if kind.itemsize >= channels)
    spread = bits.to(kind) * sum(1 << 7 * c for c in range(channels)) & sum(1 << 8 * c for c in range(channels))
    return spread.view(torch.uint8).view(*bits.shape, kind.itemsize)[..., :channels]


def assemble(samples: Samples, seed: int, chosen: Sequence[tuple[int, int]]) -> Pair:
    """Return a batch: images (N, H, W) uint8 and bit maps of the same size.

    Args:
        samples: to choose from, with the transforms to run on each.
        seed: of the trial.
        chosen: (pass over the samples, index) of each member; its randomness depends on these and the seed alone.

    Raises:
        UserError: a transform failed, or sizes differ; the message names the sample.
    """
    batch: Pair | None = None
    for place, (passed, index) in enumerate(chosen):
        name, labels = samples.names[index], samples.labels[index]
        image, bits = samples.pipeline(
            samples.images[index], samples.bits[index], (seed, passed, index), name=name, labels=labels
        )
        if batch is None:
            size = (len(chosen), *image.shape)
            batch = np.empty(size, np.uint8), np.empty(size, bits.dtype)
        elif image.shape != batch[0].shape[1:]:
            first, (rows, columns) = samples.names[chosen[0][1]], batch[0].shape[1:]
            raise UserError(
                f"{name}: {image.shape[0]} x {image.shape[1]} pixels after the transforms, but {first}, in the same "
                f"batch, has {rows} x {columns}. Images of a batch must have one size: add RandomCrop, PadIfNeeded or "
                "Resize to transforms.train, or set train.batch_size = 1."
            )
        batch[0][place], batch[1][place] = image, bits
    assert batch is not None, "a batch has at least one member"
    return batch
