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
import time
from collections.abc import Iterable, Iterator, Sequence
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

POLL = 0.5  # seconds between two looks at what others do
END = object()


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


Source = Iterable[Trial | Event | None]
"""What comes next: a trial to train, an event to tell, or None while all there is to do is to wait."""


def execute(
    source: Source,
    *,
    side_by_side: int,
    fail_fast: bool = False,
    cache: DataCache | None = None,
    folders: Sequence[str] = (),
) -> Iterator[Event]:
    """Train every trial; yield their events as they happen.

    The source is asked for the next trial when there is room for it, after the events so far have been yielded. At the
    first Ctrl-C or SIGTERM each trial saves its state, and no other begins.

    Args:
        source: what comes next.
        side_by_side: the number of parallel trials; 1 trains in this process.
        fail_fast: stop at the first failed trial.
        cache: of the data that this process has read already.
        folders: plugin folders for worker processes to load.
    """
    if side_by_side == 1:
        yield from _one_by_one(source, fail_fast, cache or DataCache())
    else:
        yield from _side_by_side(iter(source), side_by_side, fail_fast, folders, cache or DataCache())


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


def _one_by_one(source: Source, fail_fast: bool, cache: DataCache) -> Iterator[Event]:
    from segkit.training.run import run_trial

    stop = ctypes.c_bool(False)
    with _stop_on_signals(stop):
        for found in source:
            if found is None:
                time.sleep(POLL)
            elif isinstance(found, Event):
                yield found
            else:
                for event in run_trial(found, stop=lambda: stop.value, cache=cache):
                    yield event
                    if event.kind == "failed" and fail_fast:
                        stop.value = True
            if stop.value:
                return


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


class _Pool:
    """The processes that train side by side; they are started when they are needed, and used again."""

    def __init__(self, *shared: Any) -> None:
        self.shared, self.workers = shared, list[_Worker]()

    @property
    def busy(self) -> list[_Worker]:
        """Those that train."""
        return [worker for worker in self.workers if worker.trial]

    def start(self, trial: Trial) -> None:
        """Begin to train a trial."""
        for worker in [worker for worker in self.workers if not worker.trial and not worker.process.is_alive()]:
            worker.close()
            self.workers.remove(worker)
        worker = next((worker for worker in self.workers if not worker.trial), None) or _Worker(*self.shared)
        self.workers = [*(other for other in self.workers if other is not worker), worker]
        worker.start(trial)

    def events(self) -> Iterator[Event]:
        """Wait a while; yield what has happened."""
        by_connection = {worker.connection: worker for worker in self.busy}
        if not by_connection:
            time.sleep(POLL)
        for connection in multiprocessing.connection.wait(list(by_connection), timeout=POLL) if by_connection else ():
            event = _receive(by_connection[connection])  # type: ignore[index]
            if event is not None:
                yield event

    def close(self) -> None:
        for worker in self.workers:
            worker.close()


def _side_by_side(
    source: Iterator[Trial | Event | None], count: int, fail_fast: bool, folders: Sequence[str], cache: DataCache
) -> Iterator[Event]:
    # shared, without a lock: a signal handler could wait for one forever
    stop = multiprocessing.get_context("spawn").RawValue(ctypes.c_bool, False)
    pool, more = _Pool(stop, folders, cache), True
    with _stop_on_signals(stop):
        try:
            while pool.busy or (more and not stop.value):
                while more and not stop.value and len(pool.busy) < count:
                    found = next(source, END)
                    more = found is not END
                    if isinstance(found, Trial):
                        pool.start(found)
                    elif isinstance(found, Event):
                        yield found
                    else:
                        break
                for event in pool.events() if pool.busy or more else ():
                    yield event
                    if event.kind == "failed" and fail_fast:
                        stop.value = True
        finally:
            stop.value = True
            pool.close()


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
