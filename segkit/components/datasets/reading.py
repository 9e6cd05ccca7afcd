"""Reading untrusted files: bounded, regular, and inside the dataset's folder."""

from __future__ import annotations

import errno
import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from segkit.components.datasets.problems import collected
from segkit.errors import UserError
from segkit.files import kind_of

SIDE = 8192  # pixels; the most rows, and the most columns, of an image
MOST_BYTES = 256 << 20  # of an image file
MOST_TEXT = 1 << 20  # bytes of a list or a contour; genuine ones have a few thousand
MOST_FILES = 1_000_000  # in one walk; more is a disk, not a data set
JUNK = ("thumbs.db", "desktop.ini", "icon\r")
BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # they make a name look like another


def read_bytes(path: Path, limit: int = MOST_BYTES) -> bytes:
    """Return the bytes of a regular file of at most `limit` bytes.

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
            return file.read(found.st_size)  # not `limit`, which would be allocated at once
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


def decode(data: bytes, name: str) -> str:
    """Return the text of a list or a contour: ASCII, UTF-8 or, with a byte order mark, UTF-16.

    Raises:
        UserError: it is not text.
    """
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not a text file: byte {error.start} cannot be decoded.") from None
    if "\0" in text:
        raise UserError(f"{name}: not a text file: it holds a zero byte.")
    return text


def open_root(root: Path) -> Path:
    """Return a dataset's folder, links resolved.

    Raises:
        UserError: there is no such folder, or it may not be read.
    """
    found = _resolved(root, "folder")
    if not is_folder(found):
        raise UserError(f"{root}: is a file; name the folder that holds the data.")
    return found


def _resolved(path: Path, kind: str) -> Path:
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(unreadable(path, error, kind)) from None


def inside(root: Path, path: Path) -> Path:
    """Return `path` if it lies in `root` (a resolved folder) when links are followed.

    Raises:
        UserError: a link leads out of the folder, or nowhere.
    """
    target = _resolved(path, "file or folder")
    if not target.is_relative_to(root):
        raise UserError(f"{path}: a link out of {root} (to {target}). Nothing outside is read: copy the data there.")
    return path


def entries(folder: Path, problems: list[str] | None = None) -> list[Path]:
    """Return a folder's files and folders in natural order, without hidden ones.

    Args:
        folder: the folder.
        problems: receives the problems; without it, the first is raised.

    Raises:
        UserError: it cannot be read, or a name in it cannot be written into a table.
    """
    found: list[Path] = []
    with collected(problems):
        try:
            found = [path for path in folder.iterdir() if path.name[0] != "." and path.name.lower() not in JUNK]
        except OSError as error:
            raise UserError(unreadable(folder, error)) from None
    good = []
    for path in sorted(found, key=lambda path: natural(path.name)):
        with collected(problems):
            if flaw := flaw_of_name(path.name):
                raise UserError(f"{folder}: the name {path.name!a} {flaw}. Rename it.")
            good.append(path)
    return good


def flaw_of_name(name: str) -> str | None:
    """Return why a name cannot stand in tables and file names; None if it can."""
    if any(unicodedata.category(letter) == "Cs" for letter in name):
        return "is not valid UTF-8"
    if any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") or letter in BIDI for letter in name):
        return "holds a control character"
    return None


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder; False without permission to look, when `Path.is_dir` raises."""
    return os.path.isdir(path)


def files_below(root: Path, folder: Path, depth: int = 4, problems: list[str] | None = None) -> Iterator[Path]:
    """Yield the files of a folder and of its subfolders, down to a depth.

    Args:
        root: links must not lead out of it, or to it.
        folder: where to begin.
        depth: 1 for the files of the folder alone.
        problems: receives the problems; without it, the first is raised.

    Raises:
        UserError: a folder cannot be read, is a link out of `root`, or is reached twice; or there are too many files.
    """
    seen = {root.resolve(), folder.resolve()}

    def walk(folder: Path, depth: int) -> Iterator[Path]:
        for path in entries(folder, problems):
            if not is_folder(path):
                yield path
            elif depth > 1:
                with collected(problems):
                    yield from walk(once(root, path, seen), depth - 1)

    for count, path in enumerate(walk(folder, depth)):
        if count >= MOST_FILES:
            raise UserError(f"{folder}: more than {MOST_FILES:,} files. Name the folder that holds the data.")
        yield path


def once(root: Path, folder: Path, seen: set[Path]) -> Path:
    """Return a folder, and add it to `seen`, those that a walk has visited.

    Raises:
        UserError: it is a link out of `root`, or was visited before: a link leads back, or to it twice.
    """
    real = inside(root, folder).resolve()
    if real in seen:
        raise UserError(f"{folder}: a link to {real}, which is read already. Remove the link.")
    seen.add(real)
    return folder


def natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return the sort key of natural order, in which "case2" comes before "case10"."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name.casefold())
    return [(int(part), "") if part.isdigit() and len(part) < 19 else (-1, part) for part in parts], name
