"""The batches of the loop: those of the data, as the network and the losses take them."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from segkit.data.batches import Batches
from segkit.data.resident.batches import Resident
from segkit.data.resident.drawing import forms_of
from segkit.data.samples import Samples, to_device_float
from segkit.errors import UserError, first_few
from segkit.evaluation.slices import Normalization
from segkit.registry.faults import lacks_memory
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


def on_device(
    samples: Samples, device: torch.device, asked: bool | str, *, exclusive: bool
) -> tuple[Resident | None, str]:
    """Return samples on the device, if it is asked for and all transforms have a device form, and a line about that.

    Raises:
        UserError: the device has no memory for them.
    """
    lacking = forms_of(samples.pipeline)[1]
    why = f"{first_few(lacking)} {'have' if len(lacking) > 1 else 'has'} no device form"
    size = f"{samples.slices.size / (1 << 20):,.0f} MiB"
    if lacking and (asked is True or device.type == "cuda"):
        return None, f"samples: transformed on the CPU, since {why}"
    if asked is not True and device.type == "cuda":
        return None, f'samples: transformed on the CPU, as train.resident is false, or "auto" and {size} are too much'
    if asked is not True:
        why = f"would be transformed on the CPU even with a GPU, since {why}"
        return None, f"samples: {why if lacking else 'a GPU could transform them (train.resident)'}"
    resident = None
    try:
        resident = Resident(samples, device, exclusive=exclusive)
    except RuntimeError as error:
        if not lacks_memory(error):
            raise
    if resident is None:
        raise UserError(
            f"train.resident: the device has no memory for the samples ({size}). With --set train.resident=false the "
            "CPU transforms them."
        )
    return resident, f"samples: {resident.size / (1 << 20):,.1f} MiB live on the device, and are transformed there"
