"""Processes that train trials side by side."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from segkit import plugins
from segkit.data.cache import DataCache
from segkit.interrupts import SIGNALS
from segkit.registry.faults import described
from segkit.study import places
from segkit.training.trial import Event, Trial

VISIBLE = "CUDA_VISIBLE_DEVICES"


def _worker(connection: Connection, stop: ctypes.c_bool, folders: Sequence[str], cache: DataCache) -> None:
    """Train the trials that arrive, until None does; exit with the parent."""
    from segkit.training.run import run_trial

    parent = multiprocessing.parent_process()
    assert parent is not None

    def exit_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: setattr(stop, "value", True))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    faulthandler.enable()
    plugins.load(folders)
    while True:
        try:
            trial = connection.recv()
        except EOFError:  # a second Ctrl-C ended the parent
            return
        except Exception as error:  # a component of the trial is not available here
            connection.send(described(error))
            connection.send(None)
            continue
        if trial is None:
            return
        for event in run_trial(trial, stop=lambda: stop.value, cache=cache):
            connection.send(event)
        connection.send(None)


class _Worker:
    """A process that trains one trial at a time, on a GPU of its own if it is given one."""

    def __init__(self, gpu: str | None, *shared: Any) -> None:
        self.gpu = gpu
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_worker, args=(theirs, *shared))
        resource_tracker.ensure_running()  # otherwise the process starts it, which unblocks the signals
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # inherited; until the process can handle them
        try:
            with _visible(gpu):
                self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self.trial: Trial | None = None

    def start(self, trial: Trial) -> None:
        self.trial = trial
        self.connection.send(trial)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.send(None)
        self.process.join(timeout=30)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()


@contextlib.contextmanager
def _visible(gpu: str | None) -> Iterator[None]:
    """Let processes that are started within the block see one GPU."""
    before = os.environ.get(VISIBLE)
    if gpu is not None:
        os.environ[VISIBLE] = gpu
    try:
        yield
    finally:
        if before is not None:
            os.environ[VISIBLE] = before
        elif gpu is not None:
            del os.environ[VISIBLE]


class Pool:
    """The processes that train side by side; they are started when they are needed, and used again.

    Args:
        gpus: by name, those to be given out, each to as many processes as fall to its share; [] for none.
        shared: what all processes are given.
    """

    def __init__(self, gpus: Sequence[str], *shared: Any) -> None:
        self.gpus, self.shared, self.workers = gpus, shared, list[_Worker]()

    @property
    def busy(self) -> list[_Worker]:
        """Those that train."""
        return [worker for worker in self.workers if worker.trial]

    def start(self, trial: Trial) -> None:
        """Begin to train a trial."""
        free = [worker for worker in self.workers if not worker.trial]
        for worker in [worker for worker in free if not worker.process.is_alive()]:
            worker.close()
            free.remove(worker)
            self.workers.remove(worker)
        if not free:
            used = Counter(worker.gpu for worker in self.workers)
            gpus = self.gpus if trial.recipe.train.device == "cuda" else ()  # a device with a number is looked for
            free = [_Worker(min(gpus, key=lambda name: used[name], default=None), *self.shared)]
            self.workers += free
        free[0].start(trial)

    def events(self) -> Iterator[Event]:
        """Wait a while; yield what has happened."""
        by_connection = {worker.connection: worker for worker in self.busy}
        if not by_connection:
            time.sleep(places.POLL)
            return
        for connection in multiprocessing.connection.wait(list(by_connection), timeout=places.POLL):
            event = _receive(by_connection[connection])  # type: ignore[index]
            if event is not None:
                yield event

    def close(self) -> None:
        """End all processes, after what they are at; one that does not is killed."""
        for worker in self.workers:
            worker.close()


def _receive(worker: _Worker) -> Event | None:
    """Return a worker's next event; None when its trial is done and the worker is free."""
    from segkit.training.run import failed

    assert worker.trial is not None
    try:
        event: Event | str | None = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        trial, worker.trial = worker.trial, None
        return failed(trial, _exit_reason(worker.process.exitcode))
    if isinstance(event, str):
        return failed(worker.trial, event)
    if event is None:
        worker.trial = None
    return event


def _exit_reason(code: int | None) -> str:
    how = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
    cause = {
        -signal.SIGKILL: " Likely out of memory: fewer --jobs, or a smaller train.batch_size.",
        -signal.SIGSEGV: " A crash in native code; the traceback above names the line that called it.",
        -signal.SIGABRT: " A crash in native code; the traceback above names the line that called it.",
    }.get(code or 0, "")
    return f"the process died ({how}).{cause} The same command resumes from its last save."
