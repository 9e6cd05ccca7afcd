"""What a folder of images holds: how it is laid out, what is wrong, and the recipe lines that would read it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkit import toml
from segkit.datasets.images import DICOM_SUFFIXES, SUFFIXES, decode_image, read_with_spacing
from segkit.datasets.reading import entries, files_below, inside, open_root, read_bytes, shortened
from segkit.datasets.rvsc import Structure, patient_folders, read_case, read_patient
from segkit.errors import UserError
from segkit.testing.findings import Finding

if TYPE_CHECKING:
    from segkit.types import Array

MASK_WORDS = ("mask", "label", "seg", "truth", "gt", "annot")
KINDS = SUFFIXES + DICOM_SUFFIXES
MOST_LEVELS = 12  # more in a mask, and it is no label map


@dataclass
class DataReport:
    """What was found in a folder.

    Attributes:
        layout: "rvsc", "image_folder", or "unknown".
        facts: (what, in words).
        findings: what is wrong or should be known.
        recipe: the lines of TOML that read the folder; "" where none would.
    """

    layout: str = "unknown"
    facts: list[tuple[str, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    recipe: str = ""


@dataclass
class _Seen:
    """What the readable files are like."""

    sizes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    spacings: Counter[str] = field(default_factory=Counter)
    patients: set[str] = field(default_factory=set)
    contents: dict[bytes, list[str]] = field(default_factory=dict)
    levels: Counter[float] = field(default_factory=Counter)
    count: int = 0
    empty: int = 0
    low: float = float("inf")
    high: float = float("-inf")

    def image(self, name: str, patient: str | None, image: Array, spacing: tuple[float, float] | None) -> None:
        """Take note of an image."""
        import numpy as np

        pixels: Any = image
        self.count += 1
        self.sizes[f"{pixels.shape[0]} x {pixels.shape[1]}"] += 1
        self.kinds[pixels.dtype.name] += 1
        self.spacings[f"{spacing[0]:g} x {spacing[1]:g} mm" if spacing else "not stated"] += 1
        self.low, self.high = min(self.low, float(pixels.min())), max(self.high, float(pixels.max()))
        if patient:
            self.patients.add(patient)
        if pixels.min() != pixels.max():
            digest = hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=16).digest()
            self.contents.setdefault(digest, []).append(name)

    def facts(self) -> list[tuple[str, str]]:
        """Return it in words."""
        return [
            ("images", str(self.count)),
            ("patients", str(len(self.patients)) if self.patients else "not named: cases are split one by one"),
            ("sizes", _counted(self.sizes)),
            ("kinds", f"{_counted(self.kinds)}; grey levels {self.low:g} to {self.high:g}"),
            ("spacing", _counted(self.spacings)),
            ("empty masks", str(self.empty)),
        ]

    def duplicates(self) -> Iterator[Finding]:
        """Yield images of the same content."""
        for names in self.contents.values():
            if len(names) > 1:
                yield Finding("fault", f"the same image {len(names)} times: {shortened(names)}. Keep one.")


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counter.most_common(6))


def check_data(folder: Path) -> DataReport:
    """Read everything in a folder and say what is there; every file that cannot be read is a finding.

    Raises:
        UserError: there is no such folder, or it cannot be listed.
    """
    root = open_root(Path(folder))
    report = DataReport()
    patients = list(patient_folders(root))
    pair = _pair(root) if not patients else None
    if patients:
        _rvsc(root, patients, report)
    elif pair:
        _image_folder(root, *pair, report)
    else:
        text = "no known layout: neither PXXdicom and PXXcontours-manual, nor two folders with files of the same names."
        report.findings.append(Finding("fault", text + " Write a reader: segkit new data NAME.", str(folder)))
    return report


def _rvsc(root: Path, folders: list[Path], report: DataReport) -> None:
    """Read the patients of the challenge's layout, one frame at a time."""
    seen, contours = _Seen(), Counter[str]()
    for folder in folders:
        try:
            patient = read_patient(root, folder)
        except UserError as error:
            report.findings.append(Finding("fault", str(error)))
            continue
        if not patient.frames:
            report.findings.append(Finding("note", "a patient without contours, left out.", str(folder)))
        for frame, found in patient.frames.items():
            contours.update(list(found))
            structures: tuple[Structure, ...] = ("endocardium",) if "i" in found else ("epicardium",)
            if {"i", "o"} <= set(found):
                structures = ("wall", "cavity")
            else:
                text = f"frame {frame} has an {'inner' if 'i' in found else 'outer'} contour only"
                report.findings.append(Finding("note", f"{text}: left out of wall and cavity.", str(folder)))
            try:
                case = read_case(patient, frame, structures)
            except UserError as error:
                report.findings.append(Finding("fault", str(error)))
                continue
            seen.image(case.name, case.patient, case.image, case.spacing_mm)
            seen.empty += not case.masks.any()
    named = {"i": "inner", "o": "outer"}
    listed = ", ".join(f"{named[kind]} ({count})" for kind, count in sorted(contours.items()))
    report.layout = "rvsc"
    report.facts = [*seen.facts(), ("contours", listed or "none")]
    report.findings += seen.duplicates()
    report.recipe = f"[data.rvsc]\nroot = {toml.value(str(root))}\n" if seen.count else ""


def _pair(root: Path) -> tuple[str, str] | None:
    """Return the folders, relative to the root, of images and of their masks: those with most names in common."""
    folders = [path for path in entries(root) if path.is_dir()]
    folders += [below for path in folders for below in entries(path) if below.is_dir()]
    stems = {folder: set(_images(root, folder)) for folder in folders}
    best: tuple[int, str, str] | None = None
    for one in folders:
        for other in folders:
            common = len(stems[one] & stems[other])
            named = any(word in other.name.lower() for word in MASK_WORDS)
            plain = not any(word in one.name.lower() for word in MASK_WORDS)
            if one != other and common and named and plain and (best is None or common > best[0]):
                best = common, one.relative_to(root).as_posix(), other.relative_to(root).as_posix()
    return best[1:] if best else None


def _images(root: Path, folder: Path) -> dict[str, Path]:
    """Return a folder's image files by their path in it without the ending."""
    found = {}
    for path in files_below(root, folder):
        if path.suffix.lower() in KINDS:
            found[path.relative_to(folder).with_suffix("").as_posix()] = path
    return found


def _image_folder(root: Path, images: str, masks: str, report: DataReport) -> None:
    """Read pairs of images and masks."""
    pictures, truths, seen = _images(root, root / images), _images(root, root / masks), _Seen()
    for these, those, word in ((pictures, truths, "mask"), (truths, pictures, "image")):
        alone = [path for stem, path in these.items() if stem not in those]
        report.findings += [Finding("fault", f"has no {word} of the same name.", str(path)) for path in alone]
    for stem, path in pictures.items():
        size = None
        try:
            image, spacing = read_with_spacing(inside(root, path))
            size = image.shape
            folder = stem.rpartition("/")[0]
            seen.image(stem, folder.split("/")[0] or None, image, spacing)
        except UserError as error:
            report.findings.append(Finding("fault", str(error)))
        if stem in truths:
            report.findings += _mask(inside(root, truths[stem]), size, seen)
    report.layout = "image_folder"
    levels = sorted(seen.levels)
    shown = ", ".join(f"{level:g} (in {seen.levels[level]})" for level in levels[:MOST_LEVELS])
    report.facts = [*seen.facts(), ("mask levels", shown or "none")]
    report.findings += seen.duplicates()
    if seen.count and len(levels) <= MOST_LEVELS:
        report.recipe = _lines(root, images, masks, [level for level in levels if level])


def _mask(path: Path, size: tuple[int, ...] | None, seen: _Seen) -> Iterable[Finding]:
    """Take note of a mask's levels; yield what is wrong with it."""
    import numpy as np

    try:
        dicom = path.suffix.lower() in DICOM_SUFFIXES
        pixels: Any = read_with_spacing(path)[0] if dicom else decode_image(read_bytes(path), str(path))
    except UserError as error:
        yield Finding("fault", str(error))
        return
    if pixels.ndim == 3:
        yield Finding(
            "fault", f"a mask of {pixels.shape[2]} channels; it should hold one grey level a structure.", str(path)
        )
        pixels = pixels[..., 0]
    if size is not None and pixels.shape != size:
        yield Finding("fault", f"the mask has {pixels.shape} pixels, its image {size}.", str(path))
    found = np.unique(pixels).tolist()
    if len(found) > MOST_LEVELS:
        yield Finding("fault", f"holds {len(found)} levels: no label map. Was it scaled, or saved as JPEG?", str(path))
    seen.levels.update(found)
    seen.empty += found == [0]


def _lines(root: Path, images: str, masks: str, levels: list[float]) -> str:
    lines = ["[data.image_folder]", f"root = {toml.value(str(root))}"]
    lines += [f"images = {toml.value(images)}"] if images != "images" else []
    lines += [f"masks = {toml.value(masks)}"] if masks != "masks" else []
    if levels not in ([1], [255], [1.0], [255.0]):
        labels = ", ".join(f"structure_{int(level)} = {int(level)}" for level in levels)
        lines.append(f"labels = {{ {labels} }}")
    return "\n".join(lines) + "\n"
