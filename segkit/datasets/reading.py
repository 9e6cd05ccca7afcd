"""Reading files that nobody vouches for: bounded, regular, and inside the folder that was named."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from segkit.errors import UserError

SIDE = 8192  # pixels; the most rows, and the most columns, of an image
MOST_BYTES = 256 << 20  # of an image file
MOST_TEXT = 1 << 20  # bytes of a list or a contour; genuine ones have a few thousand
JUNK = ("thumbs.db", "desktop.ini")


def read_bytes(path: Path, limit: int = MOST_BYTES) -> bytes:
    """Return the bytes of a regular file of at most `limit` bytes.

    Raises:
        UserError: it is missing, unreadable, larger, or no regular file (a pipe would never end).
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{path}: no regular file.")
        if found.st_size > limit:
            raise UserError(f"{path}: {found.st_size:,} bytes; files of this kind are read up to {limit:,}.")
        with path.open("rb") as file:
            return file.read(limit + 1)[:limit]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}.") from None


def decode(data: bytes, name: str) -> str:
    """Return the text of a list or a contour: ASCII, UTF-8 or, with a byte order mark, UTF-16.

    Raises:
        UserError: it is no text, or longer than a mebibyte.
    """
    if len(data) > MOST_TEXT:
        raise UserError(f"{name}: {len(data):,} bytes; files of this kind are read up to {MOST_TEXT:,}.")
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: no text: byte {error.start} cannot be decoded.") from None
    if "\0" in text:
        raise UserError(f"{name}: no text: holds a zero byte.")
    return text


def open_root(root: Path) -> Path:
    """Return a dataset's folder, links resolved.

    Raises:
        UserError: there is no such folder.
    """
    try:
        found = root.resolve(strict=True)
    except (OSError, RuntimeError):
        raise UserError(f"{root}: no such folder.") from None
    if not found.is_dir():
        raise UserError(f"{root}: is a file; name the folder that holds the data.")
    return found


def inside(root: Path, path: Path) -> Path:
    """Return `path` if it lies in `root` (a resolved folder) when links are followed.

    Raises:
        UserError: a link leads out of the folder, or nowhere.
    """
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise UserError(f"{path}: a link that leads nowhere.") from None
    if not target.is_relative_to(root):
        raise UserError(f"{path}: a link out of {root} (to {target}). Nothing outside is read: copy the data there.")
    return path


def entries(folder: Path) -> list[Path]:
    """Return a folder's files and folders, numbers in names in their order, without hidden ones.

    Raises:
        UserError: it cannot be read.
    """
    try:
        found = [path for path in folder.iterdir() if not path.name.startswith(".") and path.name.lower() not in JUNK]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror or error}.") from None
    return sorted(found, key=lambda path: natural(path.name))


def files_below(root: Path, folder: Path, depth: int = 4) -> Iterator[Path]:
    """Yield the files of a folder and, to a depth, of the folders in it.

    Raises:
        UserError: a folder cannot be read, or is a link out of `root`.
    """
    for path in entries(folder):
        if not path.is_dir():
            yield path
        elif depth > 1:
            yield from files_below(root, inside(root, path), depth - 1)


def natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return the key that puts "case2" before "case10"."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name.casefold())
    return [(int(part), "") if part.isdigit() and len(part) < 19 else (-1, part) for part in parts], name


def shortened(names: Iterable[str], most: int = 5) -> str:
    """Return names for a message: the first few, and how many more."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
