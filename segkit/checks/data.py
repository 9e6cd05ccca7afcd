"""Check a dataset folder: its layout, what is wrong with its files, and the recipe that reads it."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segkit.checks import layouts
from segkit.checks.masks import MaskStatistics
from segkit.components.datasets import datasets
from segkit.components.datasets.image_folder import find_pairs
from segkit.components.datasets.loading import read_any, size_text
from segkit.components.datasets.reading import DatasetError, collected, files_below, open_root
from segkit.components.datasets.rvsc import CONTOUR, LINE_KINDS, Structure, read_case, read_patients
from segkit.data.splits import patient_warnings
from segkit.errors import UserError, counted, first_few
from segkit.recipe import toml
from segkit.testing.findings import Finding

SETS = {"train", "training", "val", "valid", "validation", "test", "testing"}
PATTERNS = ("^([^_]+)_", "^([^-]+)-", "^(.+)_[^_]+$", "^(.+)-[^-]+$")  # patients in the names of images


@dataclass
class DataReport:
    """The content of a dataset folder.

    Attributes:
        layout: "rvsc", "image_folder", "sunnybrook", or "unknown".
        facts: descriptions by name.
        recipe: the lines of TOML that read the folder; "" if it cannot be read.
    """

    layout: str = "unknown"
    facts: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    recipe: str = ""

    def add(self, problems: Iterable[str]) -> None:
        """Add the problems that readers report as faults, each once, at the file that it names."""
        known = {str(finding) for finding in self.findings}
        for problem in dict.fromkeys(problems):
            place, colon, text = problem.partition(": ")
            located = colon and "/" in place and "\n" not in place
            if problem not in known:
                self.findings.append(Finding("fault", text, place) if located else Finding("fault", problem))


class _ImageStatistics:
    """Statistics of the readable images."""

    def __init__(self) -> None:
        self.sizes, self.kinds, self.spacings = Counter[str](), Counter[str](), Counter[str]()
        self.patients = Counter[str | None]()
        self.contents: dict[tuple[tuple[int, ...], str, bytes], list[str]] = {}
        self.constant: list[str] = []
        self.count, self.empty = 0, 0
        self.low, self.high = math.inf, -math.inf

    def add(
        self, name: str, patient: str | None, pixels: Any, spacing: tuple[float, ...] | None, inputs: int = 0
    ) -> None:
        """Add an image, or a volume; the first axis is one of `inputs` unless there are 0."""
        self.count += 1
        self.sizes[size_text(pixels.shape[1:] if inputs else pixels.shape)] += 1
        self.kinds[pixels.dtype.name] += 1
        self.spacings[f"{' x '.join(f'{mm:g}' for mm in spacing)} mm" if spacing else "not stated"] += 1
        self.low, self.high = min(self.low, float(pixels.min())), max(self.high, float(pixels.max()))
        self.patients[patient or None] += 1
        if pixels.min() == pixels.max():
            self.constant.append(name)
            return
        digest = hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()
        self.contents.setdefault((pixels.shape, pixels.dtype.name, digest), []).append(name)

    def facts(self) -> dict[str, str]:
        """Return a description of each statistic by name; nothing if no image could be read."""
        if not self.count:
            return {}
        named = len(self.patients.keys() - {None})
        return {
            "images": str(self.count),
            "patients": str(named) if named else "not named: cases are split one by one",
            "sizes": _frequencies(self.sizes),
            "kinds": f"{_frequencies(self.kinds)}; grey levels {self.low:g} to {self.high:g}",
            "spacing": _frequencies(self.spacings),
            "empty masks": str(self.empty),
        }

    def findings(self) -> Iterator[Finding]:
        """Yield constant and duplicate images, and suspicious patients."""
        for name in self.constant:
            yield Finding("warning", "an empty image: a single grey level. Is it damaged?", name)
        for names in self.contents.values():
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


def _frequencies(counter: Counter[str]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counter.most_common(6))


def check_data(folder: Path) -> DataReport:
    """Read all files of a folder and report on them; every file that cannot be read is a finding.

    Raises:
        UserError: there is no such folder, it cannot be listed, or it holds more than a million files.
    """
    root, report, problems = open_root(Path(folder)), DataReport(), list[str]()
    files = [path.relative_to(root).as_posix() for path in files_below(root, root, layouts.SCAN_DEPTH, problems)]
    report.add(problems)
    pairs = layouts.pairs(files)
    contours = [match["kind"].lower() for file in files if (match := CONTOUR.fullmatch(file.rpartition("/")[2]))]
    if any(layouts.SUNNYBROOK.search(file) for file in files):
        _sunnybrook(root, report)
    elif any(kind in LINE_KINDS for kind in contours):
        _rvsc(root, report)
    elif pairs:
        _image_folder(root, pairs, report)
    elif files or not problems:
        report.facts = {"files": layouts.count_endings(files)} if files else {}
        report.findings.append(Finding("fault", layouts.explain_unknown(root, files), str(folder)))
    return report


def _sunnybrook(root: Path, report: DataReport) -> None:
    """Read the Sunnybrook Cardiac Data with its plugin, or report how to load it."""
    report.layout = "sunnybrook"
    report.recipe = f"[data.sunnybrook]\nroot = {toml.format_value(str(root))}\n"
    if "sunnybrook" not in datasets:
        text = (
            "the Sunnybrook Cardiac Data as published, which the plugin sunnybrook.py reads: it is not loaded. Put it "
            "(plugins/sunnybrook.py of segkit's repository) into ./plugins, or name its folder by --plugins DIR."
        )
        report.findings.append(Finding("warning", text, str(root)))
        return
    seen = _ImageStatistics()
    try:
        data = datasets.build("sunnybrook", {"root": str(root)})
    except UserError as error:
        report.add(error.problems if isinstance(error, DatasetError) else [str(error)])
        return
    problems: list[str] = []
    for case in data.cases:
        with collected(problems):
            image, masks = case.read()
            seen.add(case.name, case.patient, image, case.spacing_mm)
            seen.empty += masks is not None and not masks.any()
    report.add(problems)
    report.facts = seen.facts() | {"channels": ", ".join(data.channels)}
    report.findings += [Finding("note", note) for note in (*data.notes, *(data.conclude() if data.conclude else ()))]
    report.findings += seen.findings()


def _rvsc(root: Path, report: DataReport) -> None:
    """Read the patients of the RVSC layout, frame by frame, each with the structures that it has."""
    seen, contours, problems = _ImageStatistics(), Counter[str](), list[str]()
    for patient in read_patients(root, problems):
        if not patient.frames:
            report.findings.append(Finding("note", "a patient without contours, left out.", str(patient.folder)))
        for frame, found in patient.frames.items():
            contours.update(list(found))
            structures: tuple[Structure, ...] = ("endocardium",) if "i" in found else ("epicardium",)
            if len(found) == 2:
                structures = ("wall", "cavity")
            else:
                text = f"has only an {LINE_KINDS[next(iter(found))]} contour: left out of wall and cavity."
                report.findings.append(Finding("note", text, f"{patient.folder}: frame {frame}"))
            with collected(problems):
                case, beyond = read_case(patient, frame, structures)
                image, masks = case.read()
                seen.add(case.name, case.patient, image, case.spacing_mm)
                seen.empty += masks is not None and not masks.any()
                if beyond:
                    text = "its inner contour leaves the outer one: one of them is misplaced, or of another frame."
                    report.findings.append(Finding("warning", text, case.name, counted(beyond, "pixel")))
    report.add(problems)
    listed = ", ".join(f"{LINE_KINDS[kind]} ({contours[kind]})" for kind in LINE_KINDS if contours[kind])
    report.layout = "rvsc"
    report.facts = seen.facts() | {"contours": listed or "none"}
    report.findings += seen.findings()
    report.recipe = f"[data.rvsc]\nroot = {toml.format_value(str(root))}\n" if seen.count else ""
    if not seen.count and not any(finding.kind == "fault" for finding in report.findings):
        report.findings.append(Finding("fault", "contours, but no readable frame.", str(root)))


def _image_folder(root: Path, pairs: list[layouts.Pair], report: DataReport) -> None:
    seen, masks = _ImageStatistics(), MaskStatistics()
    problems, names, coloured = list[str](), list[str](), list[Path]()
    with collected(problems):
        for pair in find_pairs(root, pairs[0].images, pairs[0].masks, problems, []):
            names.append(pair.name)
            size: tuple[int, ...] = ()
            with collected(problems):
                picture = read_any(pair.images[0], grey=False)
                pixels = picture.pixels if picture.coloured else picture.pixels[0]
                patient = pair.name.rpartition("/")[0].split("/")[0]
                seen.add(pair.name, patient, pixels, picture.spacing_mm, 3 * picture.coloured)
                size = picture.pixels.shape[1:]
                coloured += [pair.images[0]] if picture.coloured else []
            with collected(problems):
                shape = masks.add(pair.mask) if pair.mask else ()
                if shape and size and shape != size:
                    problems.append(
                        f"{pair.mask}: the mask has {size_text(shape)} pixels, its image has {size_text(size)}."
                    )
    report.add([*problems, *masks.problems()])
    seen.empty = masks.empty
    text = "a coloured image: red, green and blue become three inputs; grey = true makes one."
    report.findings += [Finding("note", text, str(path)) for path in coloured]
    report.layout = "image_folder"
    report.facts = seen.facts() | masks.facts()
    report.findings += seen.findings()
    if len(pairs) > 1:
        report.findings.append(Finding("warning", layouts.more_pairs_note(pairs)))
    if seen.count and masks.are_label_maps():
        report.recipe = _recipe_lines(root, pairs[0], seen, masks, names, bool(coloured))


def _recipe_lines(
    root: Path, pair: layouts.Pair, seen: _ImageStatistics, masks: MaskStatistics, names: list[str], coloured: bool
) -> str:
    lines = ["[data.image_folder]", f"root = {toml.format_value(str(root))}"]
    lines += [f"images = {toml.format_value(pair.images)}"] if pair.images != "images" else []
    lines += [f"masks = {toml.format_value(pair.masks)}"] if pair.masks != "masks" else []
    lines += masks.label_lines()
    lines += ["grey = false"] if coloured else []
    if seen.patients[None]:
        lines += _pattern(sorted(name.rpartition("/")[2] for name in names))
    return "\n".join(lines) + "\n"


def _pattern(names: list[str]) -> list[str]:
    """Return a commented line that groups images into patients by their names, for the user to judge."""
    for pattern in PATTERNS:
        found = [match[1] for name in names if (match := re.search(pattern, name))]
        if len(found) == len(names) and 2 <= len(set(found)) < len(names):
            guess = f"patient = {toml.format_value(pattern)}"
            return [f"# {guess}  # {len(set(found))} patients, e.g. {found[0]} of {names[0]}? If so, use this line."]
    return []
