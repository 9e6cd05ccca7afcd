"""Files that appear whole or not at all, and limits to what is read."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from segkit.errors import UserError, sentence

MAX_TEXT = 64 * 2**20
MAX_DEPTH = 100  # tables and lists within each other
MAX_INTEGER = 2**63  # 64 bits with a sign, as TOML has


class UnreadableError(ValueError):
    """A text that is not what it should be; `line` is where, if that is known."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


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
        raise UserError(f"{path}: cannot be written: {_advice(Path(path), error)}.") from error


def _advice(path: Path, error: OSError) -> str:
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.ELOOP):
        wrong = next((part for part in (path, *path.parents) if part.is_symlink() and not part.exists()), None)
        if wrong is not None:
            return f"{wrong} is a link to nothing: remove it, or choose another place"
        candidates = [path, *path.parents] if error.errno == errno.ENOTDIR else path.parents
        wrong = next((part for part in candidates if part.exists() and not part.is_dir()), None)
        if wrong is not None:
            return f"{wrong} is {kind_of(wrong)} and no folder: choose another place"
        if path.exists():
            other = "another file" if path.is_file() else kind_of(path)
            return f"{other} is already there: choose another place"
    return {
        errno.ENOSPC: "the disk is full: free some space; the same command resumes from the last save",
        errno.EDQUOT: "the disk quota is used up: free some space; the same command resumes from the last save",
        errno.EROFS: "the file system is read-only: choose another place",
        errno.EACCES: "permission denied: choose another place",
        errno.EPERM: "permission denied: choose another place",
        errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
        errno.ENOENT: "its folder does not exist",
    }.get(error.errno or 0, str(error.strerror or error))


def kind_of(path: Path) -> str:
    """Return what a path is, in words: "a file", "a folder", "a pipe", ..."""
    mode = path.stat().st_mode
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFREG: "a file"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def make_folder(path: Path) -> Path:
    """Make a folder and those above it, where they are not there, and return it.

    Raises:
        UserError: something else is there, or it may not be written into.
    """
    check_folder(path)
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def check_folder(path: Path) -> None:
    """Raise unless a folder is there that may be written into, or may be made.

    Raises:
        UserError: something else is in the way, or permission is missing.
    """
    with explained(path):
        above = next(part for part in (path, *path.absolute().parents) if os.path.lexists(part))
        if not above.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        _check_access(above)


def _check_access(folder: Path) -> None:
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def check_target(path: Path, begins: str) -> None:
    """Raise unless a file may be written there: a new one, or in the place of an empty one or one that begins so.

    Raises:
        UserError: it is a folder, a device or a file of another kind, or its folder is none.
    """
    with explained(path):
        if path.exists() and not path.is_file():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        if not path.name:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists():
            with open(path, "rb") as file:
                if file.read(len(begins)) not in (b"", begins.encode()):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    check_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table, whole or not at all; see `to_csv`."""
    write_text(path, to_csv(header, rows))


def to_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as CSV; a name that a spreadsheet would run as a formula stands behind an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_to_cell(value) for value in row] for row in (header, *rows))
    return text.getvalue()


_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|-inf", re.IGNORECASE)


def _to_cell(value: Any) -> Any:
    """Return a cell behind an apostrophe where a spreadsheet would run it; numbers stay as they are."""
    runs = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if runs else value


def from_cell(text: str) -> str:
    """Return the name that a cell written by `to_csv` holds."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def read_text(path: Path, limit: int = MAX_TEXT) -> str:
    """Return a text file of at most `limit` bytes.

    Raises:
        UserError: it cannot be read, is no regular file, is longer, or is no text.
    """
    try:
        # a pipe that nobody writes to would be waited for
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise UserError(f"{path}: {kind_of(Path(path))}, no file that can be read.")
            data = file.read(limit + 1)
    except IsADirectoryError:  # of the handle
        raise UserError(f"{path}: a folder, no file that can be read.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from None
    except ValueError as error:  # a name with a zero byte
        raise UserError(f"{path}: cannot be read: {sentence(error)}") from None
    if len(data) > limit:
        raise UserError(f"{path}: larger than {limit:,} bytes, which no such file is.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 (byte {error.start}).") from None


def read_json(path: Path, limit: int = MAX_TEXT) -> Any:
    """Return a JSON file as plain values.

    Raises:
        UserError: it cannot be read, is no JSON, or is deeper or with larger numbers than segkit writes.
    """
    try:
        found = json.loads(read_text(path, limit))
        check_values(found)
    except RecursionError:
        raise UserError(f"{path}: damaged: nested too deeply.") from None
    except UnreadableError as error:
        raise UserError(f"{path}: damaged: {sentence(error)}") from None
    except ValueError as error:
        place = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"{path}: damaged: no JSON{place}.") from None
    return found


def check_values(value: Any) -> None:
    """Raise if plain values are nested too deeply, or hold an integer of more than 64 bits.

    Raises:
        UnreadableError: what is wrong, without a place.
    """
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise UnreadableError(f"nested too deeply: over {MAX_DEPTH} levels")
        below: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                below.extend(node.values())
            elif isinstance(node, list):
                below.extend(node)
            elif isinstance(node, int) and not -MAX_INTEGER <= node < MAX_INTEGER:
                raise UnreadableError("an integer that takes more than 64 bits")
        level, depth = below, depth + 1
