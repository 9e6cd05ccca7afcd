"""The batches of the loop: those of the data, as the network and the losses take them."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from segkit.data.batches import Batches
from segkit.data.samples import to_device_float
from segkit.evaluation.evaluator import Normalization
from segkit.types import Batch


class Feed:
    """The loop's batches: normalised images and one-hot targets, made on the device."""

    def __init__(
        self, batches: Batches, normalization: Normalization, channels: int, exclusive: bool, limit: int | None
    ) -> None:
        self.batches, self.normalization = batches, normalization
        self.channels, self.exclusive = channels, exclusive
        self.steps_per_epoch = min(batches.steps_per_epoch, limit or batches.steps_per_epoch)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, beginning with batch `start`."""
        norm, mixed = self.normalization, not all(self.batches.samples.labelled)
        for number, (images, masks) in enumerate(self.batches.epoch(epoch, start), start):
            pair = to_device_float(images, masks, norm.mean, norm.std, self.channels, self.exclusive)
            labelled = self.batches.labelled(epoch, number) if mixed else torch.ones(len(images), dtype=torch.bool)
            yield Batch(*pair, labelled)
            if number + 1 == self.steps_per_epoch:
                return
