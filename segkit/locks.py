"""Folders that one process writes into, checked for removal; and files that processes wait for."""

from __future__ import annotations

import contextlib
import os
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
def waiting_for(path: Path) -> Iterator[None]:
    """Hold a lock file within the block; wait while another process holds it, however that one ends."""
    import fcntl

    with explain_os_errors(path), open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
