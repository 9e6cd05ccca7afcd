"""Folders that one process writes into: locked against others, and checked for removal."""

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
from segkit.files import explain_os_errors, make_folder


class Folder:
    """A folder that one process writes into for long; a folder that replaces it is not written into.

    Raises:
        UserError: it cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self.path = make_folder(path)
        handle = os.open(self.path, os.O_RDONLY)  # kept open, so that its inode is not reused
        self._own = os.fstat(handle)
        weakref.finalize(self, os.close, handle)

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), self._own)
        except OSError:
            return False

    def __truediv__(self, name: str) -> Path:
        """Return the path of a file to write.

        Raises:
            UserError: the folder has been removed, moved or replaced.
        """
        if not self._is_there():
            raise UserError(
                f"{self.path}: was removed or moved while a training was writing into it. Nothing more is written; "
                "what was saved went with the folder."
            )
        return self.path / name


class Lock:
    """An exclusive lock on a folder, as a context manager.

    The kernel releases it when the process ends, however it ends: a lock file left by a dead process does not count.

    Raises:
        UserError: another process holds the lock; the message names it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / ".lock"
        self._file: Any = None

    def __enter__(self) -> Self:
        import fcntl

        with explain_os_errors(self.path):
            self._file = open(self.path, "a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            owner = self._file.read() or "{}"
            self._file.close()
            raise UserError(f"{self.path.parent}: in use by another segkit {_describe_owner(owner)}.") from None
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
    """Return whether a process holds the `Lock` of a folder."""
    import fcntl

    try:
        with open(Path(folder) / ".lock", encoding="utf-8") as file:
            if not file.read(1):  # released; a new owner writes its name at once
                return False
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _describe_owner(text: str) -> str:
    try:
        found = json.loads(text)
        return f"(process {found['pid']} on {found['host']} since {found['since']}); wait for it, or stop it"
    except (ValueError, KeyError, TypeError):
        return "process; wait for it, or stop it"
