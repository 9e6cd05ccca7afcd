"""Tables in CSV, as spreadsheets write them, and messages that name their lines."""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from segkit.components.datasets.reading import decode, flaw_of_name, read_bytes
from segkit.errors import UserError, counted, first_few

DELIMITERS = (",", ";", "\t")
LARGEST = 64 << 20  # bytes; a table of a million cases
DIVIDED = "columns are divided by comma, semicolon or tab"


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        line: its number in the file, from 1.
        cells: its values by column, without white space around them.
    """

    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Sheet:
    """A table: its columns, and at least one row."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def require(self, column: str, parameter: str) -> None:
        """Raise unless the table has a column that a parameter of the recipe names.

        Raises:
            UserError: the message lists the columns that there are.
        """
        if column not in self.columns:
            listed = first_few(map(repr, self.columns), 24)
            raise UserError(f"{self.path}:1: has no column {column!r}, which `{parameter}` names; it has {listed}.")


class LineFaults:
    """What is wrong with the lines of a table; faults of one kind become one message with their lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)

    def add(self, line: int, kind: str, example: str = "", advice: str = "") -> None:
        """Add the fault of a line; `kind` and `advice` are those of all faults like it."""
        self._found[kind, advice].append((line, example))

    def messages(self) -> list[str]:
        """Return one message for each kind of fault."""
        return [self._message(kind, advice, places) for (kind, advice), places in self._found.items()]

    def _message(self, kind: str, advice: str, places: list[tuple[int, str]]) -> str:
        (line, example), *more = places
        end = f" {advice}" if advice else ""
        if not more:
            return f"{self._path}:{line}: {kind}{f': {example}' if example else ''}.{end}"
        listed = first_few(f"{line} ({example})" if example else str(line) for line, example in places)
        return f"{self._path}: {kind}, in {counted(len(places), 'line')}: {listed}.{end}"


def read_sheet(path: Path, faults: LineFaults) -> Sheet:
    """Return a table; comma, semicolon or tab divide its columns, whichever its first line has the most of.

    Empty lines, and columns without a name, are left out.

    Args:
        path: a CSV file in UTF-8, whose first line names the columns.
        faults: receives lines that have not as many cells as there are columns.

    Raises:
        UserError: it cannot be read, is no text, has no rows, or two columns of one name.
    """
    data = read_bytes(path, LARGEST)
    try:
        text = decode(data, str(path))
    except UserError as error:
        raise UserError(f"{error} Save the table as CSV in UTF-8.") from None
    first = re.sub('"[^"]*"', "", next(filter(str.strip, io.StringIO(text, newline="")), ""))
    delimiter = max(DELIMITERS, key=first.count)
    lines = _lines(path, text, delimiter)
    if not lines:
        raise UserError(f"{path}: is empty; its first line should name the columns.")
    columns = [name for name in lines[0][1] if name]
    _check_columns(path, columns)
    rows = []
    for line, cells in lines[1:]:
        if len(cells) != len(lines[0][1]):
            faults.add(line, f"has not {counted(len(lines[0][1]), 'cell')}, as its header", f"{len(cells)}")
        elif any(cells):
            named = {name: cell for name, cell in zip(lines[0][1], cells, strict=True) if name}
            rows.append(Row(line, named))
            if flaw := next(filter(None, map(flaw_of_name, named.values())), None):
                faults.add(line, f"a cell {flaw}")
    if not rows and not faults.messages():
        raise UserError(f"{path}: has no rows below its header.")
    return Sheet(path, tuple(columns), tuple(rows))


def _lines(path: Path, text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """Return the cells of each line that is not blank, and its number."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    found, line = [], 1
    try:
        for cells in reader:
            if cells:
                found.append((line, [cell.strip() for cell in cells]))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}:{line}: not a line of a table: {error}. Is a quotation mark not closed?") from None
    return found


def _check_columns(path: Path, columns: list[str]) -> None:
    if len(columns) < 2:
        raise UserError(f"{path}:1: its header has one column, {columns[0] if columns else ''!r}; {DIVIDED}.")
    twins = [name for name in columns if columns.count(name) > 1]
    if twins:
        raise UserError(f"{path}:1: {columns.count(twins[0])} columns are called {twins[0]!r}. Rename one.")
    for name in columns:
        if flaw := flaw_of_name(name):
            raise UserError(f"{path}:1: the column {name!a} {flaw}. Rename it.")
