"""Atomic writes, size-limited reads, and messages about files that name the path and what to do."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from segkit.errors import UserError, sentence

MAX_BYTES = 256 << 20
MAX_TEXT = 64 << 20
MAX_DEPTH = 100  # levels of nested tables and lists
MAX_INTEGER = 2**63  # TOML integers are 64-bit signed


class UnreadableError(ValueError):
    """A text cannot be parsed; `line` is the line of the mistake, if known."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


_checks: list[Callable[[], None]] = []


@contextlib.contextmanager
def checked_writes(check: Callable[[], None]) -> Iterator[None]:
    """Within the block, call `check` right before any file is replaced; if it raises, the old file stays."""
    _checks.append(check)
    try:
        yield
    finally:
        _checks.remove(check)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically (write, flush, rename): readers see the old content or the new, never a part of it.

    The folder must exist: one that is removed while a training writes into it is not created again.

    Raises:
        UserError: the disk is full, or the folder is missing or not writable; the old file is intact.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explain_os_errors(path):
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            for check in _checks:
                check()
            os.replace(temporary, path)
            _flush_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def _flush_folder(folder: Path) -> None:
    """Flush a rename to disk; otherwise a power failure may undo it."""
    if os.name != "posix":
        return  # only POSIX systems can open a folder
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # the file system cannot flush folders
            raise
    finally:
        os.close(handle)


def remove_temporary_files(*folders: Path) -> None:
    """Remove the temporary files of a process that died while writing; nobody else may be writing there."""
    for path in (path for folder in folders for path in folder.glob(".*.tmp")):
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Turn an OSError while writing into a message that names the path and what to do."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {_advice(path, error)}.") from error


def _advice(path: Path, error: OSError) -> str:
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.ELOOP):
        wrong = next((part for part in (path, *path.parents) if part.is_symlink() and not part.exists()), None)
        if wrong is not None:
            return f"{wrong} is a broken link: remove it, or choose another place"
        candidates = [path, *path.parents] if error.errno == errno.ENOTDIR else path.parents
        wrong = next((part for part in candidates if part.exists() and not part.is_dir()), None)
        if wrong is not None:
            return f"{wrong} is {kind_of(wrong)}, not a folder: choose another place"
        if path.exists():
            other = "another file" if path.is_file() else kind_of(path)
            return f"{other} is already there: choose another place"
    return {
        errno.ENOSPC: "the disk is full: free some space; the same command resumes from the last save",
        errno.EDQUOT: "the disk quota is used up: free some space; the same command resumes from the last save",
        errno.EROFS: "the file system is read-only: choose another place",
        errno.EACCES: "permission denied: choose another place",
        errno.EPERM: "permission denied: choose another place",
        errno.ENOLCK: "the file system has no locks: choose another place",
        errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
        errno.ENOENT: "its folder does not exist",
    }.get(error.errno or 0, str(error.strerror or error))


def kind_of(path: Path) -> str:
    """Return the type of a path: "a file", "a folder", "a pipe", ..."""
    mode = path.stat().st_mode
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFREG: "a file"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def make_folder(path: Path) -> Path:
    """Create a folder with its parents, if missing, and return it.

    Raises:
        UserError: the path is not a folder, or not writable.
    """
    check_writable(path)
    with explain_os_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def check_writable(path: Path) -> None:
    """Raise unless a folder is writable, or can be created.

    Raises:
        UserError: the path is not a folder, or permission is missing.
    """
    with explain_os_errors(path):
        existing = next(part for part in (path, *path.absolute().parents) if os.path.lexists(part))
        if not existing.is_dir():
            raise _os_error(errno.ENOTDIR)
        if os.statvfs(existing).f_flag & os.ST_RDONLY:
            raise _os_error(errno.EROFS)
        if not os.access(existing, os.W_OK | os.X_OK):
            raise _os_error(errno.EACCES)


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def check_replaceable(path: Path, begins: str) -> None:
    """Raise unless a file can be written: a new one, or one that replaces an empty file or one that begins so.

    Raises:
        UserError: the path is a folder, a device or a file with other content, or its folder is not writable.
    """
    with explain_os_errors(path):
        if path.is_file():
            with open(path, "rb") as file:
                if file.read(len(begins)) not in (b"", begins.encode()):
                    raise _os_error(errno.EEXIST)
        elif path.exists():
            raise _os_error(errno.EEXIST)
    check_writable(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    write_bytes(path, text.encode("utf-8"))


def to_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as CSV; text that a spreadsheet would run as a formula is prefixed with an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_to_cell(value) for value in row] for row in (header, *rows))
    return text.getvalue()


_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|-inf", re.IGNORECASE)


def _to_cell(value: Any) -> Any:
    is_formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if is_formula else value


def from_cell(text: str) -> str:
    """Return the text of a cell written by `to_csv`."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def read_bytes(path: Path, limit: int = MAX_BYTES, *, first: int | None = None) -> bytes:
    """Return the bytes of a regular file of at most `limit` bytes, or no more than the `first` ones.

    Raises:
        UserError: it is missing, unreadable, larger, or not a regular file (a pipe would never end).
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{path}: {kind_of(path)}, not a regular file.")
        if found.st_size > limit:
            raise UserError(f"{path}: {found.st_size:,} bytes; files of this kind are read up to {limit:,}.")
        with path.open("rb") as file:
            # Not `limit`, which would be allocated at once.
            return file.read(found.st_size if first is None else min(first, found.st_size))
    except (OSError, ValueError) as error:
        raise UserError(unreadable(path, error)) from None


def unreadable(path: Path, error: Exception, kind: str = "file or folder") -> str:
    """Return the message of an error that was raised when a path, expected to be of a kind, was read."""
    if isinstance(error, OSError) and error.errno == errno.ENOENT:
        return f"{path}: {'a link that leads nowhere' if path.is_symlink() else f'no such {kind}'}."
    if isinstance(error, RuntimeError) or (isinstance(error, OSError) and error.errno == errno.ELOOP):
        return f"{path}: a link that leads to itself."
    reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    shown = ascii(str(path)) if "\0" in str(path) else path
    return f"{shown}: cannot be read: {reason.lower()}."


def read_text(path: Path, limit: int = MAX_TEXT) -> str:
    """Return a text file of at most `limit` bytes.

    Raises:
        UserError: it cannot be read, is not a regular file, is longer, or is not UTF-8 text.
    """
    try:
        return read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 (byte {error.start}).") from None


def read_json(path: Path) -> Any:
    """Return the values of a JSON file.

    Raises:
        UserError: it cannot be read, is not JSON, is nested too deeply, or holds integers of more than 64 bits.
    """
    try:
        found = json.loads(read_text(path))
        check_limits(found)
    except RecursionError:
        raise UserError(f"{path}: damaged: nested too deeply.") from None
    except UnreadableError as error:
        raise UserError(f"{path}: damaged: {sentence(error)}") from None
    except ValueError as error:
        place = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"{path}: damaged: not valid JSON{place}.") from None
    return found


def display_path(path: Path) -> str:
    """Return a path as messages show it: relative to the working directory if it lies below."""
    try:
        absolute, here = Path(os.path.abspath(path)), Path.cwd()
    except (OSError, ValueError):  # the working directory is gone, or a zero byte
        return str(path)
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(path)


def check_limits(value: Any) -> None:
    """Raise if values are nested too deeply, or hold an integer of more than 64 bits.

    Raises:
        UnreadableError: what is wrong, without a line.
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
                raise UnreadableError("an integer of more than 64 bits")
        level, depth = below, depth + 1
