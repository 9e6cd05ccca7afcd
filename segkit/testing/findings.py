"""What a check finds: faults, warnings and notes, printed in groups of one kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from segkit.components.datasets.reading import DIFFERING
from segkit.errors import counted, first_few

KINDS = ("fault", "warning", "note")
FEW, MANY = 5, 12  # places listed for findings of one kind: without and with a detail each


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        kind: a "fault" breaks the contract (exit status 1), a "warning" makes results doubtful, a "note" is
            worth knowing.
        text: what is wrong and what to do.
        place: "file:line" or a path, if known.
        detail: what is specific to this place, e.g. "230 pixels", where `text` holds for many.
    """

    kind: Literal["fault", "warning", "note"]
    text: str
    place: str | None = None
    detail: str | None = None

    @property
    def where(self) -> str:
        """Return the place with its detail; "" without a place."""
        return f"{self.place} ({self.detail})" if self.place and self.detail else self.place or ""

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.place else self.text


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return faults first, then warnings, then notes."""
    return sorted(findings, key=lambda finding: KINDS.index(finding.kind))


def grouped(findings: Iterable[Finding]) -> Iterator[str]:
    """Yield a line for each kind of finding: those that differ only in place, names and numbers share one."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in in_order(findings):
        alike = DIFFERING.sub("#", finding.text)
        groups.setdefault((finding.kind, alike), []).append(finding)
    for (kind, _), group in groups.items():
        first, count = group[0], len(group)
        places = [finding.where for finding in group if finding.place]
        most = MANY if any(finding.detail for finding in group) else FEW
        if count == 1:
            yield f"{kind}: {first}"
        elif all(finding.text == first.text for finding in group):
            yield f"{kind}, {count} times: {first.text}" + (f" At {first_few(places, most)}." if places else "")
        else:
            likewise = f" Likewise {first_few(places[1:], most)}." if places[1:] else ""
            yield f"{kind}, {count} times, e.g. {first}{likewise}"


def count_kinds(findings: Iterable[Finding]) -> str:
    """Return how many there are of each kind."""
    kinds: list[str] = [finding.kind for finding in findings]
    shown = [kind for kind in KINDS if kind != "warning" or kind in kinds]
    return ", ".join(counted(kinds.count(kind), kind) for kind in shown)
