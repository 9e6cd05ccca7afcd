"""The place where each value of a recipe was written."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from segkit.recipe import toml
from segkit.recipe.paths import KeyPath

ITEM = 2  # where in a path the index of a component in a list stands, as in transforms.train.0


@dataclass(frozen=True)
class Source:
    """The source of values: a file, or a flag of the command line."""

    name: str  # the file for display, or the flag as typed
    text: str | None  # of the file
    folder: Path  # the base of relative paths
    prefix: KeyPath = ()  # of the values in the file, e.g. ("study", "variants", "1")
    flag: str = ""  # the flag of the command line that added the values; "" for the recipe itself
    named: bool = False  # whether it gives the components of a list by name, not by index
    moved: int = field(default=0, compare=False)  # by how many places others moved the components of its list

    def place(self, path: KeyPath) -> str:
        """Return "file:line" of a path, or the flag."""
        if self.text is None:
            return self.name
        if len(path) > ITEM and path[ITEM].isdigit():
            index = () if self.named else (str(int(path[ITEM]) - self.moved),)
            path = (*path[:ITEM], *index, *path[ITEM + 1 :])
        line = toml.line_of(self.text, self.prefix + path)
        return f"{self.name}:{line}" if line else self.name

    def at(self, *path: str) -> Source:
        """Return the same source for the values at `path`."""
        return dataclasses.replace(self, prefix=(*self.prefix, *path))
