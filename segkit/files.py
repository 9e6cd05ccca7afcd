"""Files that appear whole or not at all, and the lock of a run folder."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import socket
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from segkit.errors import UserError

MAX_TEXT = 64 * 2**20


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file by write, flush, rename: a reader sees the old content or the new, never a part.

    The folder has to be there: one that was removed while a training writes into it is not made again.

    Raises:
        UserError: the disk is full, or the folder is gone or cannot be written; the old file is intact.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explained(path):
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _flush_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def _flush_folder(folder: Path) -> None:
    """Bring a rename to the disk: without it a power failure may undo it."""
    if os.name != "posix":
        return  # nothing else opens a folder
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that flushes no folders
            raise
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove what a process that died in the middle of writing left in a folder; for the holder of its lock."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError of writing into a message that names the path and what to do."""
    try:
        yield
    except OSError as error:
        advice = {
            errno.ENOSPC: "the disk is full: free some space; the same command goes on from the last save",
            errno.EDQUOT: "the disk quota is used up: free some space; the same command goes on from the last save",
            errno.EROFS: "the file system is read-only: choose another folder with --out",
            errno.EACCES: "permission denied: choose another folder with --out",
            errno.ENOENT: "its folder is not there",
        }.get(error.errno or 0, str(error.strerror or error))
        raise UserError(f"{path}: cannot be written: {advice}.") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_text(path: Path, limit: int = MAX_TEXT) -> str:
    """Return a text file of at most `limit` bytes.

    Raises:
        UserError: it cannot be read, is longer, or is no text.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from None
    if len(data) > limit:
        raise UserError(f"{path}: larger than {limit:,} bytes, which no such file is.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8.") from None


def make_folder(folder: Path) -> Path:
    """Make a folder and those above it, and return it.

    Raises:
        UserError: it cannot be made, or a file is in its place.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


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


def _holder(text: str) -> str:
    try:
        found = json.loads(text)
        return f"(process {found['pid']} on {found['host']} since {found['since']}); wait for it, or end it"
    except (ValueError, KeyError, TypeError):
        return "process; wait for it, or end it"
