"""Batches made ahead by the worker processes of torch's DataLoader: they live as long as a trial and know no epochs.

A task is one batch. Workers map the stored slices themselves, and put batches into slots of shared memory. Processes
come from a fork server if the system has one: forking the main process would copy the locks of torch's threads and of
CUDA, and the server imports the transforms' libraries once for all trials.
"""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import os
import pickle
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from segkit import plugins
from segkit.data.order import Member
from segkit.data.pipeline import Pair
from segkit.data.samples import Samples, assemble
from segkit.errors import UserError, first_few

Members = list[Member]
Plan = Callable[[int], Members]
TensorPair = tuple[Tensor, Tensor]
Task = tuple[int, Members]
Answer = int | TensorPair | UserError | str

PREFETCH = 2  # batches that a worker holds: one in work, one waiting
TIMEOUT = 300.0  # seconds without an answer, the start included, after which a worker counts as hanging
LOOK = 1.0  # seconds between looks at whether a worker has died


class WorkerError(RuntimeError):
    """A worker process failed, died or hangs."""


class _Batches(Dataset[Any]):
    """The batches of a training, by their members; an error is returned, not raised, so that it keeps its text."""

    def __init__(self, samples: Samples, seed: int, slots: Sequence[TensorPair]) -> None:
        self.seed, self.slots, self._samples = seed, slots, _pickled(samples)
        self._opened: Samples | None = None

    def __getitems__(self, task: Task) -> Answer:
        """Put a batch into its slot and return its size; return the batch itself where it does not fit."""
        place, members = task
        try:
            if self._opened is None:  # not before the plugins are loaded
                self._opened = pickle.loads(self._samples)
            batch, slot = as_tensors(assemble(self._opened, self.seed, members)), self.slots[place]
            count = len(members)
            if any(
                made.shape[1:] != kept.shape[1:] or count > len(kept) for made, kept in zip(batch, slot, strict=True)
            ):
                return batch
            for made, kept in zip(batch, slot, strict=True):
                kept[:count] = made
            return count
        except UserError as error:
            return error
        except Exception:
            return traceback.format_exc()


def as_tensors(batch: Pair) -> TensorPair:
    """Return a batch as tensors that share its memory; torch knows uint16 as int16 only."""
    images, bits = batch
    return torch.from_numpy(images), torch.from_numpy(bits.view("int16") if bits.dtype == "uint16" else bits)


def _pickled(samples: Samples) -> bytes:
    try:
        return pickle.dumps(samples)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UserError(
            f"transforms.train: one of {first_few(samples.pipeline.names)} cannot be sent to a worker ({error}): "
            "its class must be defined at the top level of its file and hold plain values; or set train.workers = 0."
        ) from error


class _Tasks:
    """The slot and the members of every batch from a number on, without end."""

    def __init__(self, plan: Plan, slots: int) -> None:
        self.plan, self.slots, self.start = plan, slots, 0

    def __iter__(self) -> Iterator[Task]:
        return ((number % self.slots, self.plan(number)) for number in itertools.count(self.start))


def _begin(plugin_folders: list[str], worker: int) -> None:
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # the main process alone handles a Ctrl-C or SIGTERM of its group
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # By name: with handles, the main process would wait without end for a worker that hangs to hand them over.
    torch.multiprocessing.set_sharing_strategy("file_system")  # type: ignore[no-untyped-call]
    cv2.setNumThreads(0)
    if plugin_folders:
        plugins.load(plugin_folders)


class Workers:
    """Batches by number, made ahead by processes.

    Args:
        samples: the training samples, with the transforms to run on each.
        seed: of the trial.
        plan: the members of a batch, by its number.
        count: how many processes.
        plugin_folders: loaded by a worker before it unpickles transforms of plugins.
        timeout: seconds without an answer after which a worker counts as hanging.

    Raises:
        UserError: a transform cannot be sent to a process.
    """

    def __init__(
        self, samples: Samples, seed: int, plan: Plan, count: int, plugin_folders: Sequence[str], timeout: float
    ) -> None:
        self._names, self._timeout, self._plan = samples.names, timeout, plan
        likely, most = as_tensors(assemble(samples, seed, plan(0)[:1])), len(plan(0))
        self._slots = [_shared(likely, most) for _ in range(PREFETCH * count + 1)]  # one is in use
        self._tasks = _Tasks(plan, len(self._slots))
        forks = "forkserver" in multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            context.set_forkserver_preload([__name__, "albumentations"])
        with _quiet():
            self._loader: Any = DataLoader(
                _Batches(samples, seed, self._slots),
                batch_sampler=self._tasks,  # type: ignore[arg-type]
                collate_fn=_unchanged,
                num_workers=count,
                prefetch_factor=PREFETCH,
                multiprocessing_context=context,
                worker_init_fn=functools.partial(_begin, list(plugin_folders) if samples.pipeline.custom else []),
                generator=torch.Generator(),  # else it would draw from the training's
                timeout=min(LOOK, timeout),
            )
        self._batches: Any = None
        self._taken = 0

    def take(self, number: int) -> TensorPair:
        """Return batch `number`, images and bit maps, which are valid until the next call.

        Consecutive batches are made ahead.

        Raises:
            UserError: a transform failed, or sizes differ.
            WorkerError: a worker failed, died or hangs; the message names the batch's samples.
        """
        if self._batches is None or number != self._taken:
            self._tasks.start = number
            self._start()
        found = self._next(number)
        self._taken = number + 1
        if isinstance(found, UserError):
            raise found
        if isinstance(found, str):
            raise WorkerError(f"a worker process failed on a batch of {self._members(number)}:\n{found}")
        if isinstance(found, int):
            images, bits = self._slots[number % len(self._slots)]
            return images[:found], bits[:found]
        return found

    def _start(self) -> None:
        """Start processes, which make batches without end; those that made other batches end."""
        handler = signal.getsignal(signal.SIGCHLD)
        with _quiet():
            self._batches = None
            self._batches = iter(self._loader)
        if handler is not None and handler != signal.getsignal(signal.SIGCHLD):
            signal.signal(signal.SIGCHLD, handler)  # torch's would interrupt a step when a worker dies

    def _next(self, number: int) -> Answer:
        until = time.monotonic() + self._timeout
        while True:
            try:
                return next(self._batches)  # type: ignore[no-any-return]
            except RuntimeError as error:
                if "exited unexpectedly" in str(error):
                    raise WorkerError(
                        f"a worker process died, often because memory ran out; the batch that is missing is of "
                        f"{self._members(number)}. Set train.workers to a smaller number, or to 0."
                    ) from None
                if "timed out" not in str(error):
                    raise
                if time.monotonic() > until:
                    for process in self.processes:  # one that hangs would not end by itself
                        process.kill()
                    raise WorkerError(
                        f"a worker process has not answered for {self._timeout:g} seconds, on a batch of "
                        f"{self._members(number)}. Set train.workers = 0 to see where it hangs."
                    ) from None

    def _members(self, number: int) -> str:
        return first_few(self._names[index] for _, index in self._plan(number))

    @property
    def processes(self) -> list[Any]:
        """The processes, once the first batch has been asked for."""
        return list(self._batches._workers) if self._batches is not None else []

    def close(self) -> None:
        """End the processes, by force if they do not end by themselves."""
        self._batches = self._loader = None


def _shared(example: TensorPair, most: int) -> TensorPair:
    """Return shared memory for a batch of `most` images like those of an example."""
    images, bits = (torch.empty((most, *part.shape[1:]), dtype=part.dtype).share_memory_() for part in example)  # type: ignore[no-untyped-call]
    return images, bits


def _quiet() -> warnings.catch_warnings[None]:
    """Return the context in which torch does not warn of more workers than cores, which are the user's choice."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)


def _unchanged(batch: Any) -> Any:
    return batch
