"""Describe the DICOM series of a folder that has no masks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from segkit.components.datasets.formats.dicom_series import find_series
from segkit.components.datasets.formats.kinds import DICOM
from segkit.components.datasets.reading import collected, inside, size_text

MOST = 4096  # files whose headers are read
SHOWN = 6


def describe_scans(root: Path, files: Iterable[str]) -> dict[str, str]:
    """Return the number of series, their sizes and spacing, by name; nothing if there are no DICOM files."""
    paths, problems = list[Path](), list[str]()
    named = [file for file in files if file.lower().endswith(DICOM) or "." not in file.rpartition("/")[2]]
    for file in named[:MOST]:
        with collected(problems):
            paths += [inside(root, root / file)] if os.path.isfile(root / file) else []
    series = find_series(paths, problems)
    if not series:
        return {}
    sizes = Counter(size_text((len(found.slices), *found.slices[0].size)) for found in series)
    lengths = Counter(_lengths(found.spacing_mm) for found in series)
    return {"series": str(len(series)), "sizes": _shown(sizes), "spacing": _shown(lengths)}


def _lengths(spacing_mm: tuple[float, float, float] | None) -> str:
    return f"{' x '.join(f'{mm:g}' for mm in spacing_mm)} mm" if spacing_mm else "not stated"


def _shown(found: Counter[str]) -> str:
    return ", ".join(f"{text} ({count})" for text, count in found.most_common(SHOWN))
