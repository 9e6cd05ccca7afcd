"""What reads a folder, guessed from the names of its files: a reader, its parameters, and the masks to look into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkit.recipe import toml


@dataclass(frozen=True)
class Guess:
    """A reader that may read a folder.

    Attributes:
        reader: the name of a dataset.
        parameters: its parameters, as in a recipe.
        masks: files whose levels are the structures; none if the reader knows them.
        notes: what the user should know about the guess.
        hints: commented lines of the recipe's table, for the user to judge.
    """

    reader: str
    parameters: dict[str, Any]
    masks: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the table of a recipe."""
        values = [f"{name} = {toml.format_value(value)}" for name, value in self.parameters.items()]
        return [f"[data.{self.reader}]", *values, *self.hints]
