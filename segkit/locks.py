"""Folders that one process writes into: locked against others, and checked for removal."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

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

    def __truediv__(self, name: str) -> Path:
        """Return the path of a file to write.

        Raises:
            UserError: the folder has been removed, moved or replaced.
        """
        try:
            is_there = os.path.samestat(os.stat(self.path), self._own)
        except OSError:
            is_there = False
        if not is_there:
            raise UserError(
                f"{self.path}: was removed or moved while a training was writing into it. Nothing more is written; "
                "what was saved went with the folder."
            )
        return self.path / name


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder within the block.

    The kernel releases it when the process ends, however it ends: a lock file left by a dead process does not count.

    Raises:
        UserError: another process holds the lock; the message names it.
    """
    import fcntl

    path = folder / ".lock"
    with explain_os_errors(path):
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  # closed below
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise UserError(f"{folder}: in use by another segkit {_describe_owner(file.read())}.") from None
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.ctime()}))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


@contextlib.contextmanager
def waiting_for(path: Path) -> Iterator[None]:
    """Hold a lock file within the block; wait while another process holds it, however that one ends."""
    import fcntl

    with explain_os_errors(path), open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_locked(folder: Path) -> bool:
    """Return whether a process holds the lock of a folder."""
    import fcntl

    try:
        with open(folder / ".lock", encoding="utf-8") as file:
            if file.read(1):  # else released; a new owner writes its name at once
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    return False


def _describe_owner(text: str) -> str:
    try:
        found = json.loads(text)
        return f"(process {found['pid']} on {found['host']} since {found['since']}); wait for it, or stop it"
    except (ValueError, KeyError, TypeError):
        return "process; wait for it, or stop it"
