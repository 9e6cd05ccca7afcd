"""What a check finds: faults, which break a contract, and notes, which should be known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        kind: a "fault" breaks the contract (exit status 1), a "note" should be known.
        text: in plain words, what it is and what to do.
        place: "file:line" or a path, if known.
    """

    kind: Literal["fault", "note"]
    text: str
    place: str | None = None

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" if self.place else self.text
