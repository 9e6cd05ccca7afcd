"""Statistics of the images of a dataset folder, and what is suspicious about them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from segkit.components.datasets.case import Case, Dataset
from segkit.components.datasets.reading import size_text
from segkit.data.splits import patient_warnings
from segkit.errors import first_few
from segkit.testing.findings import Finding

SETS = {"train", "training", "val", "valid", "validation", "test", "testing"}
AIR = -900  # Hounsfield units; a lowest value below is one of CT
MOST_SHOWN = 6  # values of a fact


class ImageStatistics:
    """Statistics of the readable images.

    Attributes:
        count: of images.
        empty: how many have masks that show nothing.
        patients: the number of images of each; None for those without.
    """

    def __init__(self) -> None:
        self.count, self.empty = 0, 0
        self.patients = Counter[str | None]()
        self._sizes, self._kinds, self._spacings = Counter[str](), Counter[str](), Counter[str]()
        self._ranges: dict[str, tuple[float, float]] = {}
        self._tags: dict[str, Counter[str]] = {}
        self._structures = Counter[str]()
        self._unlabelled, self._overlapping, self._cached = 0, False, 0
        self._contents: dict[tuple[tuple[int, ...], str, bytes], list[str]] = {}
        self._constant: list[str] = []

    def add(self, case: Case, image: Any, masks: Any, dataset: Dataset) -> None:
        """Add a case that was read: its image (H, W), (I, H, W) or (I, D, H, W), and its masks."""
        parts = image if image.ndim > 2 else image[None]
        self.count += 1
        self._cached += (len(parts) + 1) * parts[0].size
        self._sizes[size_text(parts.shape[1:])] += 1
        self._kinds[image.dtype.name] += 1
        spacing = case.spacing_mm
        self._spacings[f"{' x '.join(f'{mm:g}' for mm in spacing)} mm" if spacing else "not stated"] += 1
        self.patients[case.patient or None] += 1
        for tag, text in case.tags.items():
            self._tags.setdefault(tag, Counter())[text] += 1
        self._add_values(case.name, image, dict(zip(dataset.inputs, parts, strict=True)))
        if masks is None:
            self._unlabelled += 1
            return
        there = [bool(mask.any()) for mask in masks]
        self._structures.update({name: int(shown) for name, shown in zip(dataset.channels, there, strict=True)})
        self.empty += not any(there)
        self._overlapping = self._overlapping or bool((masks.sum(axis=0) > 1).any())

    def _add_values(self, name: str, image: Any, parts: Mapping[str, Any]) -> None:
        spans = {label: (float(part.min()), float(part.max())) for label, part in parts.items()}
        for label, (low, high) in spans.items():
            before = self._ranges.get(label, (low, high))
            self._ranges[label] = min(before[0], low), max(before[1], high)
        if len({value for span in spans.values() for value in span}) == 1:
            self._constant.append(name)
            return
        digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        self._contents.setdefault((image.shape, image.dtype.name, digest), []).append(name)

    def facts(self) -> dict[str, str]:
        """Return a description of each statistic by name; nothing if no image could be read."""
        if not self.count:
            return {}
        named = len(self.patients.keys() - {None})
        spans = {name: f"{low:g} to {high:g}" for name, (low, high) in self._ranges.items()}
        several = len(spans) > 1
        levels = ", ".join(f"{name} {span}" if several else span for name, span in spans.items())
        found = {
            "images": str(self.count),
            "inputs": ", ".join(spans) if several else "",
            "patients": str(named) if named else "not named: cases are split one by one",
            "sizes": _frequencies(self._sizes),
            "kinds": f"{_frequencies(self._kinds)}; grey levels {levels}",
            "spacing": _frequencies(self._spacings),
            "structures": _listed(self._structures),
            **{f"tag {tag}": _frequencies(values) for tag, values in self._tags.items()},
            "empty masks": str(self.empty),
            "in the cache": f"about {self._cached / 1e6:,.1f} MB with 8 bits a value",
            "without masks": str(self._unlabelled) if self._unlabelled else "",
        }
        return {name: text for name, text in found.items() if text}

    def findings(self) -> Iterator[Finding]:
        """Yield constant and duplicate images, and suspicious patients."""
        for name in self._constant:
            yield Finding("warning", "an empty image: a single grey level. Is it damaged?", name)
        for names in self._contents.values():
            if len(names) > 1:
                yield Finding("fault", f"the same image {len(names)} times. Keep one.", first_few(names))
        yield from (Finding("warning", line) for line in patient_warnings(self.patients[None], self.count))
        named = {name for name in self.patients if name}
        sets = sorted(name for name in named if name.lower() in SETS)
        if sets:
            yield Finding(
                "warning",
                f"the folders {', '.join(sets)} are read as patients. Put the folders of patients, of all sets, "
                "directly below the images' and the masks' folder: segkit divides them itself.",
            )
        elif len(named) == 1 and not self.patients[None]:
            yield Finding("warning", f"all images are of one patient, {named.pop()}: they cannot be split by patient.")
        if self.count and self.empty == self.count:
            yield Finding("warning", "every mask is empty.")
        elif absent := [name for name, count in self._structures.items() if not count]:
            yield Finding("warning", f"no mask holds {', '.join(absent)}. Is its value right?")

    def suggested_lines(self) -> list[str]:
        """Return commented tables of a recipe that these images may need, for the user to judge."""
        lowest = min((low for low, _ in self._ranges.values()), default=0.0)
        if lowest > AIR or len(self._ranges) > 1:
            return []
        why = f"values down to {lowest:g}: CT? Then use these lines; this window shows soft tissue"
        return [f"# [intensity.window]  # {why}", "# low = -160", "# high = 240"]

    def exclusive_lines(self) -> list[str]:
        """Return a commented line if there are several structures that never overlap."""
        count = len(self._structures)
        text = f"{count} structures that never overlap: one class a pixel. It belongs above all tables."
        return [f'# channels = "exclusive"  # {text}'] if count > 1 and not self._overlapping else []


def _frequencies(counter: Counter[str]) -> str:
    shown = ", ".join(f"{name} ({count})" for name, count in counter.most_common(MOST_SHOWN))
    return shown + (f" and {len(counter) - MOST_SHOWN} others" if len(counter) > MOST_SHOWN else "")


def _listed(structures: Mapping[str, int]) -> str:
    return ", ".join(f"{name} (in {count})" for name, count in structures.items())
