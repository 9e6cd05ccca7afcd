"""The tables of a trial, metrics.csv and cases.csv: the one place that writes and reads them.

They are read as columns; messages about damage name the line.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from segkit import files
from segkit.evaluation.rows import Row
from segkit.files import from_cell

HEADER = ("case", "patient", "channel", "metric", "set", "value", "truth_pixels", "predicted_pixels")
NAMES = 5  # so many columns hold names, the others numbers
OLD_HEADER = tuple(name for name in HEADER if name != "set")
"""That of files in which every row is of the validation set."""
VALIDATION, TEST = "validation", "test"
WHOLE = ("epoch", "step")  # columns of metrics.csv that hold whole numbers
_NUMBERS = np.dtype([("value", np.float64), ("truth", np.int64), ("predicted", np.int64)])  # whole ones are read faster

Numbers = NDArray[np.float64]
Codes = NDArray[np.int32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Keys:
    """What each row of a cases.csv is of: names, each once, and for every row the number of its name.

    Attributes:
        names: the cases, patients, channels, metrics and sets, each in the order in which they first occur.
        codes: (5, rows) numbers into them.
    """

    names: tuple[list[str], list[str], list[str], list[str], list[str]]
    codes: Codes

    def of_set(self, name: str) -> Flags:
        """Return which rows are of a set."""
        sets = self.names[4]
        found: Flags = self.codes[4] == (sets.index(name) if name in sets else -1)
        return found


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


class History:
    """The rows of metrics.csv, an epoch each; NaN where a row has no such value.

    It takes eight bytes a cell: a long training has thousands of rows, and saves them every epoch.
    """

    def __init__(self) -> None:
        self._columns: dict[str, array[float]] = {}
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, number: int) -> dict[str, int | float]:
        row = range(self._rows)[number]
        return {name: int(found[row]) if name in WHOLE else found[row] for name, found in self._columns.items()}

    def __iter__(self) -> Iterator[dict[str, int | float]]:
        return (self[number] for number in range(self._rows))

    @property
    def names(self) -> list[str]:
        """The columns, in the order in which they first came."""
        return list(self._columns)

    def append(self, row: Mapping[str, float]) -> None:
        """Add an epoch's row, which may have other names than those before."""
        for name in row:
            if name not in self._columns:
                self._columns[name] = array("d", [math.nan] * self._rows)
        for name, column in self._columns.items():
            column.append(row.get(name, math.nan))
        self._rows += 1

    def write(self, path: Path) -> None:
        """Write a metrics.csv in full precision; cells without a value are empty."""
        rows = (["" if value != value else repr(value) for value in row.values()] for row in self)
        files.write_text(path, files.to_csv(self.names, rows))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the history that a metrics.csv holds.

        Raises:
            ValueError: it cannot be read or is damaged; with the line.
        """
        names, rows = _table(path.name, _content(path), ("epoch",))
        found = cls()
        found._rows = len(rows)
        for at, name in enumerate(names):
            numbers = (_number(path.name, line, row[at]) for line, row in rows)
            found._columns[from_cell(name)] = array("d", numbers)
        return found

    def column(self, name: str) -> list[float]:
        """Return a column, one number per epoch; [] for an unknown name."""
        return list(self._columns.get(name, ()))

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: one tensor, where a tree of numbers would take a hundred times as much.

        Its length is a power of two: safetensors makes a ctypes type for each length, and ctypes keeps them all.
        """
        import torch

        values = torch.zeros(len(self._columns), 1 << self._rows.bit_length(), dtype=torch.float64)
        for number, column in enumerate(self._columns.values()):
            values[number, : self._rows] = torch.tensor(column, dtype=torch.float64)
        return {"names": self.names, "rows": self._rows, "values": values}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Self:
        """Return the history that `state` gave."""
        found = cls()
        found._rows = state["rows"]
        for name, column in zip(state["names"], state["values"], strict=True):
            found._columns[name] = array("d", column[: found._rows].tolist())
        return found


def cases_text(rows: Iterable[Row], header: Sequence[str] = HEADER) -> str:
    """Return a cases.csv: one row a case, channel and metric, in full precision; an undefined value is empty."""
    kept = [HEADER.index(name) for name in header]
    return files.to_csv(header, ([cells[at] for at in kept] for cells in map(_cells, rows)))


def _cells(row: Row) -> list[str]:
    value = "" if math.isnan(row.value) else repr(row.value)
    names = [row.case, row.patient, row.channel, row.metric, row.set]
    return [*names, value, str(row.truth_pixels), str(row.predicted_pixels)]


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
            raise ValueError(f"{path.name} cannot be read: not a regular file")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror}") from error


def _read_plain(data: bytes, known: dict[bytes, Keys]) -> Rows | None:
    """Read a file as segkit writes it, without quotes; None for any other, and for a damaged one.

    Commas and line ends are found for the whole file at once, and the names, the same in most trials, are read once.
    """
    data = data.replace(b"\r\n", b"\n")
    line = data.partition(b"\n")[0]
    header = next((header for header in (HEADER, OLD_HEADER) if line == ",".join(header).encode()), None)
    if header is None or not data.endswith(b"\n") or b'"' in data or b"\r" in data:
        return None
    raw = np.frombuffer(data, np.uint8)[len(line) + 1 :]
    commas, ends = np.flatnonzero(raw == ord(",")), np.flatnonzero(raw == ord("\n"))
    names, between = len(header) - 3, len(header) - 1
    if len(commas) != len(ends) * between:
        return None
    places = commas.reshape(len(ends), between)
    starts = np.concatenate([np.zeros(1, np.int64), ends + 1])[:-1]
    if (places[:, -1] > ends).any() or (places[:, 0] < starts).any():
        return None
    borders = np.stack([places[:, names - 1], ends], axis=1).ravel() + 1  # ends of a row's names and of its numbers
    named = np.repeat(np.tile([True, False], len(ends)), np.diff(borders, prepend=0))
    try:
        keys = _keys(raw[named].tobytes(), names, known)
        return Rows(keys, *_numbers(raw[~named].tobytes(), len(ends)))
    except ValueError:  # also of bytes that are no UTF-8
        return None


def _keys(text: bytes, names: int, known: dict[bytes, Keys]) -> Keys:
    """Return the keys of the names of all rows, so many a row, a comma after each."""
    digest = hashlib.blake2b(text, digest_size=16, salt=bytes([names])).digest()
    if digest not in known:
        cells = text.decode("utf-8").split(",")[:-1]
        known[digest] = _coded([cells[at::names] for at in range(names)])
    return known[digest]


def _coded(columns: Sequence[Sequence[str]]) -> Keys:
    """Return the keys of the columns of names; without sets, all rows are of the validation set."""
    columns = columns if len(columns) == NAMES else [*columns, [VALIDATION] * len(columns[0])]
    names, codes = [], np.zeros((NAMES, len(columns[0])), np.int32)
    for row, column in zip(codes, columns, strict=True):
        numbers = {cell: number for number, cell in enumerate(dict.fromkeys(column))}
        row[:] = np.fromiter(map(numbers.__getitem__, column), np.int32, len(column))
        names.append([from_cell(cell) for cell in numbers])
    return Keys((names[0], names[1], names[2], names[3], names[4]), codes)


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
    """Read a file with quotes, or with its columns in another order; raise what is wrong with a damaged one."""
    header, rows = _table(name, data, OLD_HEADER)
    at = [header.index(column) for column in HEADER if column in header]
    numbers = np.zeros((len(rows), len(HEADER) - NAMES))
    for found, (line, row) in zip(numbers, rows, strict=True):
        found[:] = [_number(name, line, row[i]) for i in at[-3:]]
        if not np.isfinite(found[1:]).all():
            raise ValueError(f"{name} is damaged: line {line} has a pixel count that is not a finite number")
    keys = _coded([[row[i] for _, row in rows] for i in at[:-3]])
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
