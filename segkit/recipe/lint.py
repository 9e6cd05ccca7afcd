"""Warnings about what is valid in a recipe but seldom meant: flags without effect, variants that do not differ, ..."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from segkit.errors import truncate
from segkit.recipe import merge
from segkit.recipe.sections import Study
from segkit.registry.slot import fold

NAMED = 4  # variants that a warning names
UNVARIED = ("study", "title")


class StudyLint:
    """Collects the mistakes and warnings about a study from each of its variants."""

    def __init__(self, study: Study, document: merge.Document) -> None:
        self.study, self.document = study, document
        self._flags = {
            path: source for path, source in document.origins.items() if source.flag and path[0] not in UNVARIED
        }
        self._labels: list[str] = []
        self._deaf: dict[merge.KeyPath, dict[str, str]] = {path: {} for path in self._flags}
        self._twins: dict[bytes, list[str]] = {}
        self._weak: dict[str, list[str]] = {}

    def add_variant(self, label: str, content: str, laid: merge.Document, weaknesses: Iterable[str]) -> None:
        """Look at a variant.

        Args:
            label: its label.
            content: its whole recipe without title and study; equal for variants that do not differ.
            laid: the layers that it was made of.
            weaknesses: what makes its recipe alone doubtful.
        """
        self._labels.append(label)
        for path, source in self._flags.items():
            if laid.origins.get(path) is not source:
                place = laid.place(path) or self.document.place(("study", "variants"))
                self._deaf[path][label] = place
        self._twins.setdefault(hashlib.sha256(content.encode()).digest(), []).append(label)
        for text in weaknesses:
            self._weak.setdefault(text, []).append(label)

    def mistakes(self) -> list[str]:
        """Return a line for each flag that has no effect at all."""
        found = []
        for source in dict.fromkeys(self._flags.values()):
            own = [path for path, other in self._flags.items() if other.flag == source.flag]
            if all(self._is_dead(path) for path in own):
                found.append(f"{source.flag}: has no effect: {self._why(own[0])}")
        return list(dict.fromkeys(found))

    def warnings(self) -> list[str]:
        """Return a line for each thing that is valid but seldom meant."""
        found = []
        for path, deaf in self._deaf.items():
            source, name = self._flags[path], ".".join(path)
            what = f"{source.flag}: " + ("" if source.text is None else f"its {name} ")
            if self._is_dead(path):
                found.append(f"{what}has no effect: {self._why(path)}")
            elif deaf:
                places = ", ".join(dict.fromkeys(deaf.values()))
                found.append(f"{what}has no effect in {_names(list(deaf))}, where {truncate(places, 200)} decides.")
        for labels in self._twins.values():
            if len(labels) > 1:
                found.append(
                    f"{_names(labels)} are the same recipe under {len(labels)} labels: there is no difference."
                )
        for text, labels in self._weak.items():
            everywhere = len(labels) == len(self._labels)
            found.append(text if everywhere else f"{text} (in {_names(labels)})")
        if self.study.grid and len(self._labels) == 1:
            place = self.document.place(("study", "grid"))
            found.append(f"{place}: study.grid: has only one point: there is nothing to compare it with.")
        return found

    def _is_dead(self, path: merge.KeyPath) -> bool:
        return len(self._deaf[path]) == len(self._labels) or bool(self._by_seeds(path))

    def _by_seeds(self, path: merge.KeyPath) -> bool:
        return path == ("train", "seed") and self.study.seeds is not None

    def _why(self, path: merge.KeyPath) -> str:
        """Return what overrides a flag, and what to do."""
        if self._by_seeds(path):
            place = self.document.place(("study", "seeds"))
            return f"{place} gives the seeds of every trial. Use --set study.seeds=[...], or leave the flag out."
        place, name = next(iter(self._deaf[path].values())), ".".join(path)
        for grid in self.study.grid:
            if [fold(part) for part in merge.parse_path(grid)] == [fold(part) for part in path]:
                place = self.document.place(("study", "grid", grid))
                return f"{place} varies {name}. Use --set 'study.grid.\"{grid}\"=[...]', or leave the flag out."
        return f"every variant has its own {name} ({place}). Change it there, or leave the flag out."


def _names(labels: list[str]) -> str:
    shown = ", ".join(f"'{truncate(label)}'" for label in labels[:NAMED])
    return shown + (f" and {len(labels) - NAMED:,} more" if len(labels) > NAMED else "")
