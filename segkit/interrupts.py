"""What Ctrl-C and SIGTERM do to a command: never a traceback, and exit status 130."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any, NoReturn

STOPS = (signal.SIGINT, signal.SIGTERM)
STATUS = 130


def end_at_once(said: str = "") -> None:
    """Let them end the process without a further step.

    This is for times of foreign code that is no good half-way, or that swallows exceptions: libraries that are being
    imported, callbacks while figures are drawn. Files appear whole or not at all, so that nothing is lost.

    Args:
        said: what to say then.
    """

    def end(number: int, frame: Any) -> NoReturn:
        _say(said)
        os._exit(STATUS)

    _set(end)


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


def _unwind(number: int, frame: Any) -> NoReturn:
    end_at_once()
    _say()
    raise KeyboardInterrupt


def _say(text: str = "") -> None:
    with contextlib.suppress(OSError):  # a handler may not use a file that what it interrupts is writing to
        os.write(2, f"interrupted\n{text}{chr(10) if text else ''}".encode())
