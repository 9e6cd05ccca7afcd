"""What a place of trials is: this machine, or a cluster; and how either is interrupted."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from segkit.data.cache import DataCache
from segkit.interrupts import SIGNALS
from segkit.training.trial import Event, Trial

POLL = 0.5  # seconds between two looks at what others do
END = object()

Source = Iterable[Trial | Event | None]
"""What comes next: a trial to train, an event to tell, or None while all there is to do is to wait."""


class Place(Protocol):
    """Where the trials of a study are trained."""

    def resolve(self, device: str, precision: str) -> tuple[str, str]:
        """Return the type of device and the precision that `train.device` and `train.precision` mean there.

        Raises:
            UserError: there are none such.
        """

    def memory(self, device: str) -> int | None:
        """Return the bytes of a CUDA device, used or not; None for any other device.

        Args:
            device: as `resolve` returns it.
        """

    def share(self, at_a_time: int, device: str) -> float:
        """Return the share of a GPU's memory that each trial may take, up to 1.

        Args:
            at_a_time: the trials that are trained side by side.
            device: as `resolve` returns it.
        """

    def jobs(self, asked: int | str, trials: int, device: str, threads: int | None) -> tuple[int, int]:
        """Return (trials at a time, CPU threads each).

        Args:
            asked: trials at a time, or "auto".
            trials: the number of trials.
            device: the device's type, e.g. "cuda".
            threads: CPU threads each, if they are known.
        """

    def execute(
        self, source: Source, *, at_a_time: int, fail_fast: bool, cache: DataCache, folders: Sequence[str]
    ) -> Iterator[Event]:
        """Train every trial; yield their events as they happen.

        The source is asked for the next trial when there is room for it, after the events so far have been yielded. At
        the first Ctrl-C or SIGTERM each trial saves its state, and no other begins.

        Args:
            source: what comes next.
            at_a_time: the most trials that are under way.
            fail_fast: stop at the first failed trial.
            cache: of the data that this process has read already.
            folders: plugin folders that this process has loaded.
        """


@contextlib.contextmanager
def stopping() -> Iterator[ctypes.c_bool]:
    """Yield a flag, for other processes too, that the first SIGINT or SIGTERM sets; the second is handled as before."""
    # without a lock: a signal handler could wait for one forever
    stop = multiprocessing.get_context("spawn").RawValue(ctypes.c_bool, False)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {name: signal.getsignal(name) for name in SIGNALS}

    def handle(number: int, frame: Any) -> None:
        for name in SIGNALS:
            signal.signal(name, before[name])
        stop.value = True

    for name in SIGNALS:
        signal.signal(name, handle)
    try:
        yield stop
    finally:
        for name in SIGNALS:
            signal.signal(name, before[name])
