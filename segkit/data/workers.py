"""Worker processes that make batches: they live as long as a trial and know nothing of epochs.

A task is one batch. Samples and batches pass through shared memory; only sizes and indices are sent. Processes come
from a fork server if the system has one: forking the main process would copy the locks of torch's threads and of CUDA,
and the server imports the transforms' libraries once for all trials.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import cv2
import numpy as np

from segkit import plugins
from segkit.data.pipeline import Pair, Pipeline
from segkit.data.samples import Samples, assemble
from segkit.errors import UserError

T = TypeVar("T")
Plan = Callable[[int], list[tuple[int, int]]]

PREFETCH = 2  # tasks that a worker holds: one in work, one waiting
TIMEOUT = 300.0  # seconds without an answer, the start included, after which a worker counts as hanging
SHUTDOWN = 2.0  # seconds a worker has to end by itself


class WorkerError(RuntimeError):
    """A worker process died or hangs."""


@dataclass
class _Block:
    """Shared memory, and the (offset, shape, type) of each array in it."""

    memory: Any
    places: list[tuple[int, tuple[int, ...], str]]

    @classmethod
    def of(cls, context: Any, arrays: Sequence[np.ndarray[Any, Any]]) -> _Block:
        """Copy arrays into new shared memory."""
        *offsets, total = np.cumsum([0, *(array.nbytes for array in arrays)]).tolist()
        places = [(offset, array.shape, array.dtype.str) for offset, array in zip(offsets, arrays, strict=True)]
        block = cls(context.RawArray(ctypes.c_uint8, max(1, total)), places)
        for view, array in zip(block.views(), arrays, strict=True):
            view[...] = array
        return block

    def views(self) -> list[np.ndarray[Any, Any]]:
        """Return the arrays, without copying."""
        return [
            np.frombuffer(self.memory, kind, int(np.prod(shape)), offset).reshape(shape)
            for offset, shape, kind in self.places
        ]


def serve(
    connection: Connection,
    names: list[str],
    data: _Block,
    blocks: list[_Block],
    pipeline: bytes,
    seed: int,
    plugin_folders: list[str],
) -> None:
    """Make batches until `None` arrives in place of a task; the main function of a worker process."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # the main process alone handles a Ctrl-C or SIGTERM of its group
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    with contextlib.suppress(EOFError, OSError):  # the main process is gone
        try:
            if plugin_folders:
                plugins.load(plugin_folders)
            arrays = data.views()
            samples = Samples(names, arrays[: len(names)], arrays[len(names) :], pickle.loads(pipeline))
            slots = [block.views() for block in blocks]
        except Exception:
            connection.send(("broken", traceback.format_exc()))
            return
        while (task := connection.recv()) is not None:
            connection.send(_answer(samples, seed, slots[task[0]], task[1]))


def _answer(
    samples: Samples, seed: int, slot: list[np.ndarray[Any, Any]], chosen: list[tuple[int, int]]
) -> tuple[str, Any]:
    """Put a batch into a slot of shared memory, or return it if it does not fit."""
    try:
        batch = assemble(samples, seed, chosen)
    except UserError as error:
        return "refused", error
    except Exception:
        return "broken", traceback.format_exc()
    if batch[0].shape[1:] != slot[0].shape[1:] or len(batch[0]) > len(slot[0]):
        return "arrays", batch
    for place, array in zip(slot, batch, strict=True):
        place[: len(array)] = array
    return "slot", None


def _pickled(pipeline: Pipeline) -> bytes:
    try:
        return pickle.dumps(pipeline)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UserError(
            f"transforms.train: one of {', '.join(pipeline.names)} cannot be sent to a worker process ({error}). Its "
            "class must be defined at the top level of its file and hold plain values; or set train.workers = 0."
        ) from error


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
        self,
        samples: Samples,
        seed: int,
        plan: Plan,
        count: int,
        plugin_folders: Sequence[str],
        timeout: float,
    ) -> None:
        self._plan, self._timeout = plan, timeout
        forks = "forkserver" in multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            context.set_forkserver_preload([__name__, "albumentations"])
        data = _Block.of(context, [*samples.images, *samples.bits])
        likely = assemble(samples, seed, plan(0)[:1])
        shape = [np.empty((len(plan(0)), *array.shape[1:]), array.dtype) for array in likely]
        pipeline = _pickled(samples.pipeline)
        folders = list(plugin_folders) if samples.pipeline.custom else []
        self._slots = [[_Block.of(context, shape) for _ in range(PREFETCH)] for _ in range(count)]
        self._views = [[block.views() for block in slots] for slots in self._slots]
        self._processes, self._connections = [], []
        for slots in self._slots:
            ours, theirs = context.Pipe()
            job = (theirs, samples.names, data, slots, pipeline, seed, folders)
            process = context.Process(target=serve, args=job, name="segkit-worker", daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._connections.append(ours)
        self._sent = self._taken = 0

    def take(self, number: int, use: Callable[[Pair], T]) -> T:
        """Return the result of `use` on batch `number`, whose arrays are valid during the call only.

        Consecutive batches are made ahead.

        Raises:
            UserError: a transform failed, or sizes differ.
            WorkerError: a worker died or hangs.
        """
        if number != self._taken:
            self._restart(number)
        while self._sent < number + PREFETCH * len(self._processes):
            self._send()
        self._taken = number + 1
        result = use(self._receive(number))
        self._send()
        return result

    def _place(self, number: int) -> tuple[int, int]:
        """Return worker and slot of a batch."""
        turn, worker = divmod(number, len(self._processes))
        return worker, turn % PREFETCH

    def _send(self) -> None:
        worker, slot = self._place(self._sent)
        try:
            self._connections[worker].send((slot, self._plan(self._sent)))
        except OSError:
            self._fail(worker)
        self._sent += 1

    def _restart(self, number: int) -> None:
        """Discard the batches made ahead and continue with another number."""
        for waiting in range(self._taken, self._sent):
            with contextlib.suppress(UserError):
                self._receive(waiting)
        self._taken = self._sent = number

    def _receive(self, number: int) -> Pair:
        worker, slot = self._place(number)
        connection, process = self._connections[worker], self._processes[worker]
        ready = multiprocessing.connection.wait([connection, process.sentinel], self._timeout)
        if connection not in ready:
            self._fail(worker, hangs=not ready)
        try:
            kind, value = connection.recv()
        except (EOFError, OSError):
            self._fail(worker)
        if kind == "refused":
            raise value
        if kind == "broken":
            raise WorkerError(f"a worker process failed:\n{value}")
        if kind == "arrays":
            return value  # type: ignore[no-any-return]
        count = len(self._plan(number))
        images, bits = self._views[worker][slot]
        return images[:count], bits[:count]

    def _fail(self, worker: int, hangs: bool = False) -> None:
        process = self._processes[worker]
        if hangs:
            raise WorkerError(
                f"worker process {process.pid} has not answered for {self._timeout:g} seconds. "
                "Set train.workers = 0 to see where it hangs."
            )
        process.join(SHUTDOWN)
        raise WorkerError(
            f"worker process {process.pid} died (exit code {process.exitcode}; -9 means killed, often because "
            "memory ran out). Set train.workers to a smaller number, or to 0."
        )

    def close(self) -> None:
        """End the processes, by force if they do not end by themselves."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.send(None)
        for connection, process in zip(self._connections, self._processes, strict=True):
            connection.close()
            process.join(SHUTDOWN)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()
        self._connections, self._processes = [], []
