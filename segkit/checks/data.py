"""Check a dataset folder: its layout, what is wrong with its files, and the recipe that reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segkit.checks import layouts
from segkit.checks.guess import Guess
from segkit.checks.masks import MaskStatistics
from segkit.checks.scans import describe_scans
from segkit.checks.statistics import ImageStatistics
from segkit.checks.tables import guess_table, split_lines
from segkit.checks.volumes import guess_nnunet, guess_volumes
from segkit.components.datasets import datasets
from segkit.components.datasets.case import Dataset, check_arrays
from segkit.components.datasets.loading import RGB
from segkit.components.datasets.reading import DatasetError, collected, files_below, inside, open_root
from segkit.components.datasets.rvsc import CONTOUR, LINE_KINDS
from segkit.errors import UserError, counted
from segkit.recipe import toml
from segkit.testing.findings import Finding

COLOURED = "coloured images: red, green and blue become three inputs; grey = true makes one."
NOT_LOADED = (
    "the Sunnybrook Cardiac Data as published, which the plugin sunnybrook.py reads: it is not loaded. Put it "
    "(plugins/sunnybrook.py of segkit's repository) into ./plugins, or name its folder by --plugins DIR."
)
PATTERNS = ("^([^_]+)_", "^([^-]+)-", "^(.+)_[^_]+$", "^(.+)-[^-]+$")  # patients in the names of images


@dataclass
class DataReport:
    """The content of a dataset folder.

    Attributes:
        layout: the dataset that reads it, e.g. "rvsc", or "unknown".
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


def check_data(folder: Path) -> DataReport:
    """Read all files of a folder and report on them; every file that cannot be read is a finding.

    Raises:
        UserError: there is no such folder, it cannot be listed, or it holds more than a million files.
    """
    root, report, problems = open_root(Path(folder)), DataReport(), list[str]()
    files = [path.relative_to(root).as_posix() for path in files_below(root, root, layouts.SCAN_DEPTH, problems)]
    report.add(problems)
    guess = next(filter(None, (of_layout(root, files) for of_layout in GUESSES)), None)
    if guess and guess.reader in datasets:
        _read_as(guess, root, report)
    elif guess:
        report.layout, report.recipe = guess.reader, "\n".join(guess.lines()) + "\n"
        report.findings.append(Finding("warning", NOT_LOADED, str(root)))
    elif files or not problems:
        report.facts = {"files": layouts.count_endings(files)} if files else {}
        report.facts |= (scans := describe_scans(root, files))
        bare = scans and not any(map(layouts.stem, files))  # names without suffix, as scanners give
        text = f"DICOM series, but no masks. {layouts.WITHOUT_MASKS}" if bare else layouts.explain_unknown(root, files)
        report.findings.append(Finding("fault", text, str(folder)))
    if report.recipe:
        report.recipe += "".join(f"{line}\n" for line in split_lines(root, files))
    return report


def _read_as(guess: Guess, root: Path, report: DataReport) -> None:
    """Read the folder with the guessed reader, and report on its cases."""
    seen, masks, unread, problems = ImageStatistics(), MaskStatistics(), list[str](), list[str]()
    for path in guess.masks:
        with collected(unread):
            masks.add(inside(root, path))
    labels = masks.labels()
    pictures = guess.reader in ("image_folder", "table")
    if pictures and isinstance(labels.get("background"), list):
        del labels["background"]  # a colour there
    parameters = guess.parameters | labels
    report.layout = guess.reader
    report.findings += [Finding("warning", note) for note in guess.notes]
    report.add([*unread, *masks.problems()])
    data: object = None
    try:
        data = datasets.build(guess.reader, parameters)
    except DatasetError as error:
        data = error.others
        report.add(error.problems)
    except UserError as error:
        report.add([str(error)])
    if isinstance(data, Dataset):
        report.findings += [Finding("note", note) for note in _read(data, seen, problems)]
        if pictures and data.inputs == RGB and isinstance(parameters.get("image", ""), str):
            parameters["grey"] = False
            report.findings.append(Finding("note", COLOURED))
    named = {finding.place for finding in report.findings}
    report.add(problem for problem in problems if problem.partition(": ")[0] not in named)
    report.facts = seen.facts() | (masks.facts() if guess.masks else {})
    report.findings += seen.findings()
    if seen.count and (masks.are_label_maps() or not guess.masks):
        table = Guess(guess.reader, parameters, hints=(*guess.hints, *_patients(guess, data, seen)))
        report.recipe = "\n".join([*seen.exclusive_lines(), *table.lines(), *seen.suggested_lines()]) + "\n"


def _read(data: Dataset, seen: ImageStatistics, problems: list[str]) -> Sequence[str]:
    """Read all cases; return the notes of their dataset."""
    for case in data.cases:
        with collected(problems):
            image, masks = case.read()
            check_arrays(case, image, masks, channels=len(data.channels), inputs=len(data.inputs))
            seen.add(case, image, masks, data)
    with collected(problems):
        return (*data.notes, *(data.conclude() if data.conclude else ()))
    return data.notes


def _patients(guess: Guess, data: object, seen: ImageStatistics) -> Iterator[str]:
    """Yield a commented line that groups images into patients by their names, for the user to judge."""
    if guess.reader != "image_folder" or not isinstance(data, Dataset) or not seen.patients[None]:
        return
    names = sorted(case.name.rpartition("/")[2] for case in data.cases)
    for pattern in PATTERNS:
        found = [match[1] for name in names if (match := re.search(pattern, name))]
        if len(found) == len(names) and 2 <= len(set(found)) < len(names):
            line = f"patient = {toml.format_value(pattern)}"
            yield f"# {line}  # {len(set(found))} patients, e.g. {found[0]} of {names[0]}? If so, use this line."
            return


def _guess_sunnybrook(root: Path, files: Sequence[str]) -> Guess | None:
    return Guess("sunnybrook", {"root": str(root)}) if any(map(layouts.SUNNYBROOK.search, files)) else None


def _guess_rvsc(root: Path, files: Sequence[str]) -> Guess | None:
    """Return how `rvsc` reads the folder, as volumes if its frames make some."""
    found = (CONTOUR.fullmatch(file.rpartition("/")[2]) for file in files)
    kinds = {match["kind"].lower() for match in found if match} & LINE_KINDS.keys()
    if not kinds:
        return None
    parameters: dict[str, Any] = {"root": str(root)}
    if len(kinds) == 1:
        parameters["structures"] = ["endocardium" if "i" in kinds else "epicardium"]
    try:
        count = len(datasets.build("rvsc", {**parameters, "volumes": True}).cases)
    except UserError:
        return Guess("rvsc", parameters)
    line = f"# volumes = true  # {counted(count, 'volume')}, of each patient and phase, in place of slices"
    return Guess("rvsc", parameters, hints=(line,))


GUESSES = (
    *(_guess_sunnybrook, _guess_rvsc, guess_nnunet, guess_table, guess_volumes),
    layouts.guess_image_folder,
)
