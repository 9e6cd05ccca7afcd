"""The tables of a trial, metrics.csv and cases.csv, as columns; damage is said with its line."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segkit.files import from_cell

HEADER = ("case", "patient", "channel", "metric", "value", "truth_pixels", "predicted_pixels")
NAMES = 4  # so many columns hold names, the others numbers
_NUMBERS = np.dtype([("value", np.float64), ("truth", np.int64), ("predicted", np.int64)])  # whole ones are read faster

Numbers = NDArray[np.float64]
Codes = NDArray[np.int32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Keys:
    """What each row of a cases.csv is of: names, each once, and for every row the number of its name.

    Attributes:
        names: the cases, patients, channels and metrics, each in the order in which they first occur.
        codes: (4, rows) numbers into them.
    """

    names: tuple[list[str], list[str], list[str], list[str]]
    codes: Codes


@dataclass(frozen=True)
class Rows:
    """A cases.csv.

    Attributes:
        keys: what each row is of; trials that validate the same cases share them.
        values: (rows,) the metric, NaN where it is undefined.
        truth, predicted: (rows,) whether the mask has any pixel.
    """

    keys: Keys
    values: Numbers
    truth: Flags
    predicted: Flags


def read_curves(path: Path) -> dict[str, list[float]]:
    """Return the columns of a metrics.csv, by name.

    Raises:
        ValueError: it cannot be read or is damaged; with the line.
    """
    names, rows = _table(path.name, _content(path), ("epoch",))
    return {from_cell(name): [_number(path.name, line, row[at]) for line, row in rows] for at, name in enumerate(names)}


def read_cases(path: Path, known: dict[bytes, Keys]) -> Rows:
    """Return a cases.csv.

    Args:
        path: the file.
        known: the keys of the trials read so far, which all trials with the same cases share.

    Raises:
        ValueError: it cannot be read or is damaged; with the line.
    """
    data = _content(path)
    return _read_plain(data, known) or _read_any(path.name, data)


def _content(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise ValueError(f"{path.name} cannot be read: it is no regular file")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror}") from error


def _read_plain(data: bytes, known: dict[bytes, Keys]) -> Rows | None:
    """Read a file as segkit writes it, without quotes; None for any other, and for a damaged one.

    Commas and line ends are found for the whole file at once, and the names, the same in most trials, are read once.
    """
    data = data.replace(b"\r\n", b"\n")
    head = ",".join(HEADER).encode() + b"\n"
    if not data.startswith(head) or not data.endswith(b"\n") or b'"' in data or b"\r" in data:
        return None
    raw = np.frombuffer(data, np.uint8)[len(head) :]
    commas, ends = np.flatnonzero(raw == ord(",")), np.flatnonzero(raw == ord("\n"))
    if len(commas) != len(ends) * (len(HEADER) - 1):
        return None
    places = commas.reshape(len(ends), len(HEADER) - 1)
    starts = np.concatenate([np.zeros(1, np.int64), ends + 1])[:-1]
    if (places[:, -1] > ends).any() or (places[:, 0] < starts).any():
        return None
    borders = np.stack([places[:, NAMES - 1], ends], axis=1).ravel() + 1  # ends of a row's names and of its numbers
    named = np.repeat(np.tile([True, False], len(ends)), np.diff(borders, prepend=0))
    try:
        keys = _keys(raw[named].tobytes(), known)
        return Rows(keys, *_numbers(raw[~named].tobytes(), len(ends)))
    except ValueError:  # also of bytes that are no UTF-8
        return None


def _keys(text: bytes, known: dict[bytes, Keys]) -> Keys:
    """Return the keys of the names of all rows, a comma after each."""
    digest = hashlib.blake2b(text, digest_size=16).digest()
    if digest not in known:
        cells = text.decode("utf-8").split(",")[:-1]
        known[digest] = _coded([cells[at::NAMES] for at in range(NAMES)])
    return known[digest]


def _coded(columns: Sequence[Sequence[str]]) -> Keys:
    names, codes = [], np.zeros((NAMES, len(columns[0])), np.int32)
    for row, column in zip(codes, columns, strict=True):
        numbers = {cell: number for number, cell in enumerate(dict.fromkeys(column))}
        row[:] = np.fromiter(map(numbers.__getitem__, column), np.int32, len(column))
        names.append([from_cell(cell) for cell in numbers])
    return Keys((names[0], names[1], names[2], names[3]), codes)


def _numbers(text: bytes, rows: int) -> tuple[Numbers, Flags, Flags]:
    """Return the values, and whether truth and prediction have pixels, of lines "value,truth,predicted"."""
    if not rows:
        return np.zeros(0), np.zeros(0, bool), np.zeros(0, bool)
    filled = (b"\n" + text).replace(b"\n,", b"\nnan,")[1:]  # an empty value is NaN
    found = np.loadtxt(io.BytesIO(filled), _NUMBERS, comments=None, delimiter=",", ndmin=1)
    if found.shape != (rows,):
        raise ValueError("these are not values and numbers of pixels")
    return found["value"].copy(), found["truth"] > 0, found["predicted"] > 0


def _read_any(name: str, data: bytes) -> Rows:
    """Read a file with quotes, or with its columns in another order; say what is wrong with a damaged one."""
    header, rows = _table(name, data, HEADER)
    at = [header.index(column) for column in HEADER]
    numbers = np.zeros((len(rows), len(HEADER) - NAMES))
    for found, (line, row) in zip(numbers, rows, strict=True):
        found[:] = [_number(name, line, row[i]) for i in at[NAMES:]]
        if not np.isfinite(found[1:]).all():
            raise ValueError(f"{name} is damaged: line {line} has no number of pixels")
    keys = _coded([[row[i] for _, row in rows] for i in at[:NAMES]])
    return Rows(keys, numbers[:, 0], numbers[:, 1] > 0, numbers[:, 2] > 0)


def _table(name: str, data: bytes, least: Iterable[str]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return a table's names and its rows with their lines, each as long as the names."""
    try:
        text = data.decode("utf-8")
        reader = csv.reader(io.StringIO(text, newline=""))
        names = next(reader, [])
        rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{name} cannot be read: {error}") from error
    if not names:
        raise ValueError(f"{name} is damaged: it is empty")
    missing = [column for column in least if column not in names]
    if missing:
        raise ValueError(f"{name} is damaged: it has no column {', '.join(missing)}")
    if not text.endswith("\n"):
        raise ValueError(f"{name} is damaged: it ends within line {len(rows) + 1}")
    for line, row in rows:
        if len(row) != len(names):
            raise ValueError(f"{name} is damaged: line {line} has {len(row)} of {len(names)} values")
    return names, rows


def _number(name: str, line: int, text: str) -> float:
    """Return a value of a table, NaN for an empty one."""
    try:
        return float(text) if text else math.nan
    except ValueError:
        raise ValueError(f"{name} is damaged: line {line} has {text!r} instead of a number") from None
