"""Folders that one process writes into: kept from others, and noticed when they go away."""

from __future__ import annotations

import json
import os
import socket
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from segkit.errors import UserError
from segkit.files import explained, make_folder


class Folder:
    """A folder that one process writes into for long; a folder that takes its place is not written into.

    Raises:
        UserError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = make_folder(path)
        handle = os.open(self.path, os.O_RDONLY)  # held open, so that no other folder gets its number
        self._own = os.fstat(handle)
        weakref.finalize(self, os.close, handle)

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), self._own)
        except OSError:
            return False

    def __truediv__(self, name: str) -> Path:
        """Return the path of a file that is about to be written.

        Raises:
            UserError: the folder was removed, moved or replaced since.
        """
        if not self._is_there():
            raise UserError(
                f"{self.path}: was removed or moved while a training was writing into it. Nothing more is written; "
                "what was saved went with the folder."
            )
        return self.path / name


class Lock:
    """Keeps a folder for one process: a context manager.

    The kernel releases the lock when the process ends, however it ends; what is left of a dead one does not count.

    Raises:
        UserError: another process has it; the message names it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / ".lock"
        self._file: Any = None

    def __enter__(self) -> Self:
        import fcntl

        with explained(self.path):
            self._file = open(self.path, "a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            holder = self._file.read() or "{}"
            self._file.close()
            raise UserError(f"{self.path.parent}: in use by another segkit {_holder(holder)}.") from None
        self._file.truncate(0)
        self._file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.ctime()}))
        self._file.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.truncate(0)
        self._file.close()


def is_locked(folder: Path) -> bool:
    """Return whether a process keeps a folder with `Lock`."""
    import fcntl

    try:
        with open(Path(folder) / ".lock", encoding="utf-8") as file:
            if not file.read(1):  # given back; whoever takes it writes its name at once
                return False
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _holder(text: str) -> str:
    try:
        found = json.loads(text)
        return f"(process {found['pid']} on {found['host']} since {found['since']}); wait for it, or end it"
    except (ValueError, KeyError, TypeError):
        return "process; wait for it, or end it"
