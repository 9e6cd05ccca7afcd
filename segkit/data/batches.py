"""Batches: samples become the tensors of each step, made ahead and moved to the device.

Order and randomness depend on the seed, the epoch and the sample alone, not on workers or a resume.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Literal

import torch

from segkit.data.filling import usable_cores
from segkit.data.order import Order
from segkit.data.resident.batches import Resident
from segkit.data.samples import Samples, assemble
from segkit.data.workers import TIMEOUT, TensorPair, Workers, as_tensors

MOST_WORKERS = 4  # feed any single device with 8-bit images


class Batches(AbstractContextManager["Batches"]):
    """The batches of a trial; close it, or use it as a context manager.

    Args:
        samples: the training samples, with the transforms to run on each.
        batch_size: members of a batch; the last of an epoch may have fewer.
        seed: of the trial.
        workers: processes that make batches ahead, 0 for none; "auto": none on a CPU, where the network needs the
            cores, and up to 4 with an accelerator.
        samples_per_epoch: members of an epoch, by default each sample once; see `Order`. It lets trainings on different
            numbers of samples take the same number of steps.
        weights: how often each sample is drawn, relative to others; by default alike.
        foreground_share: of the members, drawn among samples with foreground; their crops show some if they can.
        device: of the batches.
        resident: the samples on the device, which then transforms them, without workers.
        plugins: folders that a worker searches for transforms of plugins.
        timeout: seconds after which a worker that does not answer counts as hanging.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        batch_size: int,
        seed: int,
        workers: int | Literal["auto"] = "auto",
        samples_per_epoch: int | None = None,
        weights: Sequence[float] | None = None,
        foreground_share: float = 0.0,
        device: torch.device | str = "cpu",
        resident: Resident | None = None,
        plugins: Sequence[str] = (),
        timeout: float = TIMEOUT,
    ) -> None:
        self.samples, self.seed, self.device = samples, seed, torch.device(device)
        cuda = self.device.type == "cuda"
        self._stream = torch.cuda.Stream(self.device) if cuda else None  # type: ignore[no-untyped-call]
        self._order = Order(
            len(samples),
            samples_per_epoch or len(samples),
            batch_size,
            seed,
            weights=weights,
            foreground=samples.with_foreground() if foreground_share else (),
            share=foreground_share,
        )
        self.steps_per_epoch = self._order.steps_per_epoch
        self.resident = resident
        self.workers = 0 if resident is not None else _count(workers, self.device, len(samples.pipeline))
        self._workers: Workers | None = None
        if self.workers:
            self._workers = Workers(samples, seed, self._order, self.workers, plugins, timeout)
            self._end = weakref.finalize(self, self._workers.close)

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; no batches can be drawn afterwards."""
        if self._workers is not None:
            self._end()

    def epoch(self, epoch: int, start: int = 0) -> Iterator[TensorPair]:
        """Yield (images (N, H, W[, I]) uint8 or float32, bit maps (N, H, W)) of an epoch, on the device.

        Args:
            epoch: from 1.
            start: the first batch, from 0.

        Raises:
            UserError: a transform failed, or sizes differ; the message names the sample.
            WorkerError: a worker died or hangs.
        """
        first = (epoch - 1) * self.steps_per_epoch
        for number in range(first + start, first + self.steps_per_epoch):
            if self.resident is not None:
                yield self.resident.batch(self.seed, self._order(number))
            elif self._workers is not None:
                yield self._to_device(self._workers.take(number))
            else:
                yield self._to_device(as_tensors(assemble(self.samples, self.seed, self._order(number))))

    def labelled(self, epoch: int, batch: int) -> torch.Tensor:
        """Return which members of a batch have masks, (N,) bool on the CPU; epochs from 1, batches from 0."""
        members = self._order((epoch - 1) * self.steps_per_epoch + batch)
        return torch.tensor([self.samples.labelled[index] for _, index in members])

    def _to_device(self, batch: TensorPair) -> TensorPair:
        """Move a batch to the device, on CUDA in a stream of its own."""
        images, bits = batch
        if self._stream is None:
            copy = self._workers is not None  # the next batch would be written over it
            return images.to(self.device, copy=copy), bits.to(self.device, copy=copy)
        pinned = [
            torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor) for tensor in (images, bits)
        ]
        current = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._stream):
            images, bits = (tensor.to(self.device, non_blocking=True) for tensor in pinned)
        current.wait_stream(self._stream)
        images.record_stream(current)
        bits.record_stream(current)
        return images, bits


def _count(workers: int | Literal["auto"], device: torch.device, transforms: int) -> int:
    if workers != "auto":
        return workers
    if device.type == "cpu" or not transforms:
        return 0
    return max(1, min(MOST_WORKERS, usable_cores() - 1))
