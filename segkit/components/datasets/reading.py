"""Reading untrusted files: bounded, regular, and inside the dataset's folder; a reader reports all problems at once."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from segkit.errors import UserError, first_few, join_mistakes
from segkit.files import read_bytes as read_bytes
from segkit.files import unreadable

SIDE = 8192  # pixels; the most rows, and the most columns, of an image
MOST_DECODED = 256 << 20  # bytes of the pixels of an image; 8192 x 8192 of three bytes have 192 MiB
MOST_STACK = 1 << 30  # bytes of the pixels of all slices of a file
MOST_TEXT = 1 << 20  # bytes of a list or a contour; genuine ones have a few thousand
MOST_FILES = 1_000_000  # in one walk; more is a disk, not a data set
SHOWN = 4  # further places of a problem
PLACE = re.compile(r".*/.*|\S+\.\w+(:[0-9]+)?")  # a file, and perhaps its line
DIFFERING = re.compile(
    r"""'[^']*'|"[^"]*"|#[0-9a-f]{6}|(?<![^\s(])/\S+|\b[0-9][0-9.,]*"""
)  # in messages that are alike
DIGITS = "0123456789"  # "\u00b2".isdigit() is true, but no number
JUNK = ("thumbs.db", "desktop.ini", "icon\r")
BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # they make a name look like another


class RefusedError(Exception):
    """Why a file is refused though it may be intact; the caller adds its name."""


@contextmanager
def refused_by(place: Path | str) -> Iterator[None]:
    """Turn a RefusedError of the block into a UserError that names the file."""
    try:
        yield
    except RefusedError as reason:
        raise UserError(f"{place}: {reason}") from None


class DatasetError(UserError):
    """Files of a dataset cannot be read; the message lists the first kinds of problems, one per line.

    Attributes:
        problems: all of them; each message begins with the file.
        others: a `Dataset` of the cases without problems, for a check that goes on; None if there is none.
    """

    def __init__(self, problems: Sequence[str], others: object = None) -> None:
        super().__init__(str(join_mistakes(merged(problems))))
        self.problems, self.others = tuple(problems), others


def merged(problems: Iterable[object]) -> list[str]:
    """Return one line for each kind of problem, with a count and examples of the files that have it.

    Problems are of one kind if they differ only in files, quoted names, numbers and colours.
    """
    kinds: dict[str, dict[str, str]] = {}  # the first problem of each place
    for problem in map(str, problems):
        place, _, text = problem.partition(": ")
        kind = problem if "\n" in problem or not PLACE.fullmatch(place) else DIFFERING.sub("#", text)
        kinds.setdefault(kind, {}).setdefault(place, problem)
    return [
        f"{first} The same holds for {first_few(others, SHOWN)}: {len(others) + 1:,} in all." if others else first
        for found in kinds.values()
        for first, others in [(next(iter(found.values())), list(found)[1:])]
    ]


@contextmanager
def collected(problems: list[str] | None) -> Iterator[None]:
    """Add a UserError of the block to `problems`; without such a list, raise it."""
    try:
        yield
    except UserError as error:
        if problems is None:
            raise
        problems.append(str(error))


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
        raise UserError(f"{name}: not a text file: it contains a zero byte.")
    return text


def check_size(rows: int, columns: int, depth: int) -> None:
    """Raise a RefusedError unless an image of `depth` bytes per pixel, once decoded, is within the limits."""
    if not (1 <= rows <= SIDE and 1 <= columns <= SIDE):
        raise RefusedError(f"{rows} x {columns} pixels; images are read from 1 x 1 to {SIDE} x {SIDE}.")
    size = rows * columns * depth
    if size > MOST_DECODED:
        raise RefusedError(f"{size >> 20} MiB of pixels; images are read up to {MOST_DECODED >> 20} MiB.")


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
        return "contains a control character"
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
    return [(int(part), "") if part[0] in DIGITS and len(part) < 19 else (-1, part) for part in parts], name


def size_text(shape: Sequence[int]) -> str:
    """Return "20 x 30" for an image's size, "4 x 20 x 30" for a volume's."""
    return " x ".join(map(str, shape))
