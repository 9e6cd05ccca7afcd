"""Tables in CSV, as spreadsheets write them."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from segkit.components.datasets.reading import decode, flaw_of_name, read_bytes
from segkit.errors import UserError, counted, first_few

DELIMITERS = (",", ";", "\t")
LARGEST = 64 << 20  # bytes
MOST_ROWS, MOST_COLUMNS = 1_000_000, 1000
DIVIDED = "columns are divided by comma, semicolon or tab"


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        place: "FILE:LINE", for messages.
        cells: its values by column, without white space around them.
    """

    place: str
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


def read_sheet(path: Path, problems: list[str]) -> Sheet:
    """Return a table; comma, semicolon or tab divide its columns, whichever its first line has the most of.

    Empty lines, and columns without a name, are left out.

    Args:
        path: a CSV file in UTF-8, whose first line names the columns.
        problems: receives lines that have not as many cells as there are columns.

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
            wanted = counted(len(lines[0][1]), "cell")
            problems.append(f"{path}:{line}: has {counted(len(cells), 'cell')}, its header {wanted}.")
        elif any(cells):
            named = {name: cell for name, cell in zip(lines[0][1], cells, strict=True) if name}
            if flaw := next(filter(None, map(flaw_of_name, named.values())), None):
                problems.append(f"{path}:{line}: a cell {flaw}.")
            else:
                rows.append(Row(f"{path}:{line}", named))
    if not rows and not problems:
        raise UserError(f"{path}: has no rows below its header.")
    return Sheet(path, tuple(columns), tuple(rows))


def _lines(path: Path, text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """Return the cells of each line that is not blank, and its number."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    found, line = list[tuple[int, list[str]]](), 1
    try:
        for cells in reader:
            if len(found) > MOST_ROWS or len(cells) > MOST_COLUMNS:
                raise UserError(
                    f"{path}:{line}: tables are read up to {MOST_ROWS:,} rows of {MOST_COLUMNS:,} cells. Divide it."
                )
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
