"""Run trials one after another or in parallel processes, and yield their events."""

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
from typing import Any

from segkit import plugins
from segkit.data.cache import DataCache
from segkit.data.filling import usable_cores
from segkit.interrupts import SIGNALS
from segkit.registry.faults import described
from segkit.training.trial import Event, Trial


def choose_jobs(asked: int | str, trials: int, device: str, threads: int | None = None) -> tuple[int, int]:
    """Return (trials side by side, CPU threads each).

    On a CPU "auto" is one trial per core, with one thread each: small convolutions do not fill the cores, and more
    threads than cores halve the speed. On a GPU it is one trial. The choice is independent of load and free memory.

    Args:
        asked: trials side by side, or "auto".
        trials: the number of trials.
        device: the device's type, e.g. "cuda".
        threads: CPU threads each, if they are resolved.
    """
    cores = usable_cores()
    most = 1 if device != "cpu" else max(1, cores // (threads or 1))
    jobs = max(1, min(most, trials) if asked == "auto" else int(asked))
    return jobs, threads or (max(1, cores // jobs) if device == "cpu" else 1)


def execute(
    trials: Sequence[Trial],
    *,
    side_by_side: int,
    fail_fast: bool = False,
    cache: DataCache | None = None,
    folders: Sequence[str] = (),
) -> Iterator[Event]:
    """Train every trial; yield their events as they happen.

    At the first Ctrl-C or SIGTERM each trial saves its state; every unfinished trial is reported as "interrupted".

    Args:
        side_by_side: the number of parallel trials; 1 trains in this process.
        fail_fast: stop at the first failed trial.
        cache: of the data that this process has read already.
        folders: plugin folders for worker processes to load.
    """
    if side_by_side == 1 or len(trials) <= 1:
        yield from _one_by_one(trials, fail_fast, cache or DataCache())
    else:
        yield from _side_by_side(trials, side_by_side, fail_fast, folders, cache or DataCache())


@contextlib.contextmanager
def _stop_on_signals(stop: ctypes.c_bool) -> Iterator[None]:
    """Set the flag at the first SIGINT or SIGTERM; the second is handled as before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {name: signal.getsignal(name) for name in SIGNALS}

    def handle(number: int, frame: Any) -> None:
        for name in SIGNALS:
            signal.signal(name, before[name])
        stop.value = True

    for name in SIGNALS:
        signal.signal(name, handle)
    try:
        yield
    finally:
        for name in SIGNALS:
            signal.signal(name, before[name])


def _one_by_one(trials: Sequence[Trial], fail_fast: bool, cache: DataCache) -> Iterator[Event]:
    from segkit.training.run import run_trial

    stop = ctypes.c_bool(False)
    with _stop_on_signals(stop):
        for trial in trials:
            if stop.value:
                yield Event(trial.name, "interrupted", "not started")
                continue
            for event in run_trial(trial, stop=lambda: stop.value, cache=cache):
                yield event
                if event.kind == "failed" and fail_fast:
                    stop.value = True


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
    """A process that trains one trial at a time."""

    def __init__(self, *shared: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_worker, args=(theirs, *shared))
        resource_tracker.ensure_running()  # otherwise the process starts it, which unblocks the signals
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # inherited; until the process can handle them
        try:
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


def _side_by_side(
    trials: Sequence[Trial], count: int, fail_fast: bool, folders: Sequence[str], cache: DataCache
) -> Iterator[Event]:
    # shared, without a lock: a signal handler could wait for one forever
    stop, waiting = multiprocessing.get_context("spawn").RawValue(ctypes.c_bool, False), deque(trials)
    workers: list[_Worker] = []
    with _stop_on_signals(stop):
        try:
            while len(workers) < min(count, len(trials)) and not stop.value:
                workers.append(_Worker(stop, folders, cache))
                workers[-1].start(waiting.popleft())
            while any(worker.trial for worker in workers):
                busy = {worker.connection: worker for worker in workers if worker.trial}
                for connection in multiprocessing.connection.wait(list(busy), timeout=1.0):
                    worker = busy[connection]  # type: ignore[index]
                    event = _receive(worker)
                    if event is not None:
                        yield event
                        if event.kind == "failed" and fail_fast:
                            stop.value = True
                    if worker.trial is None:
                        if not worker.process.is_alive():
                            workers[workers.index(worker)] = worker = _Worker(stop, folders, cache)
                        if waiting and not stop.value:
                            worker.start(waiting.popleft())
            for trial in waiting:
                yield Event(trial.name, "interrupted", "not started")
        finally:
            stop.value = True
            for worker in workers:
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
