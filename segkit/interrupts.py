"""How a command ends on SIGINT (Ctrl-C) and SIGTERM: exit status 130, never a traceback."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any, NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXIT_STATUS = 130


def exit_immediately(message: str = "") -> None:
    """From now on, print the message and end the process at the first signal.

    For code of libraries that must not be interrupted half-way or that swallows exceptions: imports, callbacks while
    figures are drawn. Files are written atomically, so nothing is lost.
    """

    def end(number: int, frame: Any) -> NoReturn:
        _print_interrupted(message)
        os._exit(EXIT_STATUS)

    _install(end)


def raise_interrupt() -> None:
    """From now on, raise KeyboardInterrupt at the first signal, and end the process at the second."""

    def raise_once(number: int, frame: Any) -> NoReturn:
        exit_immediately()
        _print_interrupted()
        raise KeyboardInterrupt

    _install(raise_once)


def ignore() -> None:
    """From now on, ignore signals: the work is done, and the process is about to exit with its own status."""
    _install(signal.SIG_IGN)
    exec("")  # clears CPython's mark of a KeyboardInterrupt out of exec or eval, which would end it by SIGINT


def _install(handler: Any) -> None:
    for name in SIGNALS:
        signal.signal(name, handler)


def _print_interrupted(text: str = "") -> None:
    with contextlib.suppress(OSError):  # a handler must not use a stream that the interrupted code may be writing to
        os.write(2, f"interrupted\n{text}{chr(10) if text else ''}".encode())
