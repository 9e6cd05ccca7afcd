"""Run trials one after another or side by side, each event told as it happens."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from segkit.interrupts import STOPS
from segkit.training.events import Event, Job


class Flag(Protocol):
    """A bool in memory that processes share; without a lock, which a handler of signals could wait for forever."""

    value: bool


def choose_jobs(asked: int | str, trials: int, device: str, threads: int | None = None) -> tuple[int, int]:
    """Return (trials side by side, CPU threads each).

    On a CPU one thread each: small convolutions do not fill the cores, and more threads than cores halve the speed.
    On a GPU one trial alone, unless told otherwise, and one thread, which decides nothing there. Neither the time that
    anything takes nor the memory that happens to be free decides.

    Args:
        asked: trials side by side, or "auto".
        trials: how many there are.
        device: the type of the device.
        threads: the CPU threads of each, where that is settled.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    most = 1 if device != "cpu" else max(1, cores // (threads or 1))
    jobs = max(1, min(most, trials) if asked == "auto" else int(asked))
    return jobs, threads or (max(1, cores // jobs) if device == "cpu" else 1)


def execute(jobs: Sequence[Job], *, side_by_side: int, fail_fast: bool = False) -> Iterator[Event]:
    """Train every job; yield the events of all as they come.

    A first Ctrl-C or SIGTERM lets each trial save its state; every trial that did not end says "interrupted".

    Args:
        jobs: the trials.
        side_by_side: how many at a time; 1 trains in this process.
        fail_fast: stop the study at the first failed trial.
    """
    if side_by_side == 1 or len(jobs) <= 1:
        yield from _one_by_one(jobs, fail_fast)
    else:
        yield from _side_by_side(jobs, side_by_side, fail_fast)


@contextlib.contextmanager
def _signals(stop: Flag) -> Iterator[None]:
    """Raise the flag at the first SIGINT or SIGTERM; the second does what it did before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {name: signal.getsignal(name) for name in STOPS}

    def handle(number: int, frame: Any) -> None:
        for name in STOPS:
            signal.signal(name, before[name])
        stop.value = True

    for name in STOPS:
        signal.signal(name, handle)
    try:
        yield
    finally:
        for name in STOPS:
            signal.signal(name, before[name])


def _one_by_one(jobs: Sequence[Job], fail_fast: bool) -> Iterator[Event]:
    from segkit.training.trial import run_trial

    stop = ctypes.c_bool(False)
    with _signals(stop):
        for job in jobs:
            if stop.value:
                yield Event(str(job.folder), "interrupted", "not started")
                continue
            for event in run_trial(job, stop=lambda: stop.value):
                yield event
                if event.kind == "failed" and fail_fast:
                    stop.value = True


def _worker(connection: Connection, stop: Flag) -> None:
    """Train the jobs that arrive, until None does; die with the parent."""
    from segkit.training.trial import run_trial

    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def follow() -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: setattr(stop, "value", True))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    faulthandler.enable()
    while True:
        try:
            job = connection.recv()
        except EOFError:  # a second Ctrl-C ended the parent in the middle
            return
        if job is None:
            return
        for event in run_trial(job, stop=lambda: stop.value):
            connection.send(event)
        connection.send(None)


class _Worker:
    """A process that trains one job at a time."""

    def __init__(self, stop: Flag) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_worker, args=(theirs, stop))
        resource_tracker.ensure_running()  # the process would start it, which unblocks them
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # until the process can answer; it inherits this
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self.job: Job | None = None

    def start(self, job: Job) -> None:
        self.job = job
        self.connection.send(job)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.send(None)
        self.process.join(timeout=30)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()


def _side_by_side(jobs: Sequence[Job], count: int, fail_fast: bool) -> Iterator[Event]:
    context = multiprocessing.get_context("spawn")
    stop, waiting = context.RawValue(ctypes.c_bool, False), deque(jobs)
    workers: list[_Worker] = []
    with _signals(stop):
        try:
            while len(workers) < min(count, len(jobs)) and not stop.value:
                workers.append(_Worker(stop))
                workers[-1].start(waiting.popleft())
            while any(worker.job for worker in workers):
                busy = {worker.connection: worker for worker in workers if worker.job}
                for connection in multiprocessing.connection.wait(list(busy), timeout=1.0):
                    worker = busy[connection]  # type: ignore[index]
                    event = _receive(worker)
                    if event is not None:
                        yield event
                        if event.kind == "failed" and fail_fast:
                            stop.value = True
                    if worker.job is None:
                        if not worker.process.is_alive():
                            workers[workers.index(worker)] = worker = _Worker(stop)
                        if waiting and not stop.value:
                            worker.start(waiting.popleft())
            for job in waiting:
                yield Event(str(job.folder), "interrupted", "not started")
        finally:
            stop.value = True
            for worker in workers:
                worker.close()


def _receive(worker: _Worker) -> Event | None:
    """Return a worker's next event; None, and the worker is free, when its job is done."""
    assert worker.job is not None
    try:
        event: Event | None = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        job, worker.job = worker.job, None
        return _died(job, worker.process.exitcode)
    if event is None:
        worker.job = None
    return event


def _died(job: Job, code: int | None) -> Event:
    """Note that the process of a trial died, and return the event that says so."""
    from segkit.training.trial import failed

    how = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
    cause = {
        -signal.SIGKILL: " Likely out of memory: fewer --jobs, or a smaller train.batch_size.",
        -signal.SIGSEGV: " A crash in native code; the traceback above names the line that called it.",
        -signal.SIGABRT: " A crash in native code; the traceback above names the line that called it.",
    }.get(code or 0, "")
    return failed(job, f"the process died ({how}).{cause} The same command goes on from its last save.")
