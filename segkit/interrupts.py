"""What Ctrl-C and SIGTERM do to a command: never a traceback, and exit status 130."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any, NoReturn

STOPS = (signal.SIGINT, signal.SIGTERM)
STATUS = 130


def end_at_once() -> None:
    """Let them end the process without a further step: while libraries are imported, which are no good half-way."""
    _set(_end)


def unwind() -> None:
    """Let the first raise KeyboardInterrupt, and the next end the process at once."""
    _set(_unwind)


def leave() -> None:
    """Let them do nothing: the work is done and the process about to end, with the status that it has."""
    _set(signal.SIG_IGN)
    exec("")  # after a KeyboardInterrupt out of an exec or eval, CPython would end itself by SIGINT, unless one follows


def _set(handler: Any) -> None:
    for name in STOPS:
        signal.signal(name, handler)


def _end(number: int, frame: Any) -> NoReturn:
    _say()
    os._exit(STATUS)


def _unwind(number: int, frame: Any) -> NoReturn:
    end_at_once()
    _say()
    raise KeyboardInterrupt


def _say() -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"interrupted\n")  # a handler may not use a file that what it interrupts is writing to
