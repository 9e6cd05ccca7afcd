"""The report on one component while it is being tried."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from segkit.errors import UserError, ended
from segkit.registry.component import Component, Entry
from segkit.registry.faults import explained, how_to_check
from segkit.registry.source import Source
from segkit.testing.findings import Finding
from segkit.testing.surroundings import library_settings, restored


class Report:
    """Collects findings; whatever the component raises becomes one.

    Attributes:
        entry: what is tried.
        source: the author's files.
        guessed: the parameters whose values were made up.
        findings: so far.
    """

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.source = Source(entry.factory)
        self.guessed: dict[str, Any] = {}
        self.findings: list[Finding] = []

    def fault(self, text: str, place: str | None = None) -> None:
        """Add a fault, at the component's definition unless a better place is known."""
        self.findings.append(Finding("fault", text, place or self.source.definition))

    def note(self, text: str, place: str | None = None) -> None:
        """Add a note, at the component's definition unless a better place is known."""
        self.findings.append(Finding("note", text, place or self.source.definition))

    @property
    def faults(self) -> int:
        """How many faults there are."""
        return sum(finding.kind == "fault" for finding in self.findings)

    def says(self, *words: str) -> bool:
        """Return whether the component's documentation holds one of the words, without regard to case."""
        doc = " ".join(self.entry.doc.lower().split())
        return any(word.lower() in doc for word in words)

    @contextmanager
    def trying(self, what: str) -> Iterator[None]:
        """Turn an exception into a fault at the author's line that raised it; see that no setting is left changed.

        Args:
            what: e.g. "called with an empty mask".
        """
        kept = library_settings()
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self.fault(f"{what}: {ended(explained(error))}", self.source.of_error(error))
        finally:
            restored(self, kept)

    def give(self, names: Iterable[str]) -> str:
        """Say how parameters are given: to the command, and in a test."""
        path = how_to_check(self.entry).strip("`")
        named = list(names)
        python = ", ".join(f"{name}=..." for name in named)
        if not path.startswith("segkit check"):
            return f"Give {', '.join(named)}: `assert_contract(entry, {python})`."
        return f"Give {', '.join(named)}: `{path} {' '.join(f'--set {name}=...' for name in named)}`."

    def build(self, component: Component, *handed: Any) -> Any:
        """Build the component; None, and a finding, if that fails or gives something of another kind."""
        try:
            made = component.build(*handed)
            wrong = component.entry.slot.check(made, *handed)
            if wrong is None:
                return made
            self.fault(wrong)
            return None
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if isinstance(error, UserError) and isinstance(error.__context__, ImportError):
                self.note(f"not tried: {error}", self.source.of_error(error))
            elif self.guessed and isinstance(error, (ValueError, OSError)):
                guesses = ", ".join(f"{key} = {value!r}" for key, value in self.guessed.items())
                self.note(
                    f"not tried: it refuses the values made up for it ({guesses}): {error}. {self.give(self.guessed)}"
                )
            else:
                self.fault(f"it cannot be built: {ended(explained(error))}", self.source.of_error(error))
            return None
