"""The rows of metrics.csv, eight bytes a cell: a long training has thousands, and saves them every epoch."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping
from typing import Any, Self

import torch

WHOLE = ("epoch", "step")  # columns of whole numbers


class History:
    """Rows of numbers by name, an epoch each; NaN where a row has no such value."""

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

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: one tensor, where a tree of numbers would take a hundred times as much.

        Its length is a power of two: safetensors makes a ctypes type for each length, and ctypes keeps them all.
        """
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
