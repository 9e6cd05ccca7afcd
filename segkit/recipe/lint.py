"""Warnings about valid recipes that are probably not what was meant: flags without effect, identical variants, ..."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from segkit.errors import first_few, truncate
from segkit.recipe import merge
from segkit.recipe.paths import KeyPath, parse_path, without_place
from segkit.recipe.sections import Study
from segkit.registry.slot import fold

MOST_LABELS = 4  # in one warning
UNVARIED = ("study", "title")


class StudyLint:
    """Collects mistakes and warnings about a study, variant by variant."""

    def __init__(self, study: Study, document: merge.Document) -> None:
        self.study, self.document = study, document
        self._flags = {
            path: source for path, source in document.origins.items() if source.flag and path[0] not in UNVARIED
        }
        self._labels: list[str] = []
        # path of a flag -> label of each variant that overrides it, with the place where it does
        self._overrides: dict[KeyPath, dict[str, str]] = {path: {} for path in self._flags}
        self._labels_by_content: dict[bytes, list[str]] = {}
        self._labels_by_warning: dict[str, list[str]] = {}

    def add_variant(self, label: str, content: str, document: merge.Document, warnings: Iterable[str]) -> None:
        """Add a variant; `content` is its recipe without title and study, `warnings` are about its recipe alone."""
        self._labels.append(label)
        kept = {(without_place(path), source) for path, source in document.origins.items()}
        for path, source in self._flags.items():
            if (without_place(path), source) not in kept:
                place = document.place(path) or self.document.place(("study", "variants"))
                self._overrides[path][label] = place
        self._labels_by_content.setdefault(hashlib.sha256(content.encode()).digest(), []).append(label)
        for text in warnings:
            self._labels_by_warning.setdefault(text, []).append(label)

    def mistakes(self) -> Iterator[str]:
        """Yield a line for each flag that has no effect at all."""
        for source in dict.fromkeys(self._flags.values()):
            reasons = [self._no_effect(path) for path, other in self._flags.items() if other.flag == source.flag]
            if all(reasons):
                yield f"{source.flag}: has no effect: {reasons[0]}"

    def warnings(self) -> Iterator[str]:
        """Yield a line for each warning."""
        for path, overrides in self._overrides.items():
            source, name = self._flags[path], ".".join(path)
            what = f"{source.flag}: " + ("" if source.text is None else f"its {name} ")
            reason = self._no_effect(path)
            if reason:
                yield f"{what}has no effect: {reason}"
            elif overrides:
                places = truncate(", ".join(dict.fromkeys(overrides.values())), 200)
                yield f"{what}has no effect in {_quoted(overrides)}: overridden at {places}."
        for labels in self._labels_by_content.values():
            if len(labels) > 1:
                yield f"{_quoted(labels)} are the same recipe under {len(labels)} labels."
        for text, labels in self._labels_by_warning.items():
            yield text if len(labels) == len(self._labels) else f"{text} (in {_quoted(labels)})"
        if self.study.grid and len(self._labels) == 1:
            place = self.document.place(("study", "grid"))
            yield f"{place}: study.grid: has only one point: there is nothing to compare it with."

    def _no_effect(self, path: KeyPath) -> str:
        """Return why a flag has no effect in any variant, and what to do; "" if it has one."""
        if path == ("train", "seed") and self.study.seeds is not None:
            place = self.document.place(("study", "seeds"))
            return f"{place} sets the seeds of every trial. Use --set study.seeds=[...], or leave the flag out."
        if len(self._overrides[path]) < len(self._labels):
            return ""
        place, name = next(iter(self._overrides[path].values())), ".".join(path)
        for grid in self.study.grid:
            if [*map(fold, without_place(parse_path(grid)))] == [*map(fold, without_place(path))]:
                place = self.document.place(("study", "grid", grid))
                return f"{place} varies {name}. Use --set 'study.grid.\"{grid}\"=[...]', or leave the flag out."
        return f"every variant has its own {name} ({place}). Change it there, or leave the flag out."


def _quoted(labels: Iterable[str]) -> str:
    return first_few((f"'{truncate(label)}'" for label in labels), MOST_LABELS)
