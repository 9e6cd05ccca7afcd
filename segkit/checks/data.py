"""Check a dataset folder: its layout, what is wrong with its files, and the recipe that reads it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segkit.checks import layouts
from segkit.checks.guess import Guess
from segkit.checks.masks import MaskStatistics
from segkit.checks.scans import describe_scans
from segkit.checks.statistics import ImageStatistics, exclusive
from segkit.checks.tables import guess_table, split_lines
from segkit.checks.volumes import guess_nnunet, guess_volumes
from segkit.components.datasets import datasets
from segkit.components.datasets.case import Dataset, check_arrays
from segkit.components.datasets.image_folder import find_pairs
from segkit.components.datasets.loading import ONE_INPUT, RGB, read_any, size_text
from segkit.components.datasets.reading import DatasetError, collected, files_below, inside, open_root
from segkit.components.datasets.rvsc import CONTOUR, LINE_KINDS, Structure, read_case, read_patients
from segkit.errors import UserError, counted
from segkit.recipe import toml
from segkit.testing.findings import Finding

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
    contours = [match["kind"].lower() for file in files if (match := CONTOUR.fullmatch(file.rpartition("/")[2]))]
    if any(layouts.SUNNYBROOK.search(file) for file in files):
        _sunnybrook(root, report)
    elif any(kind in LINE_KINDS for kind in contours):
        _rvsc(root, report)
    elif guess := guess_nnunet(root, files) or guess_table(root, files) or guess_volumes(root, files):
        _by_reader(root, guess, report)
    elif pairs := layouts.pairs(files):
        _image_folder(root, pairs, report)
    elif files or not problems:
        report.facts = {"files": layouts.count_endings(files)} if files else {}
        report.facts |= (scans := describe_scans(root, files))
        bare = scans and not any(map(layouts.stem, files))  # names without suffix, as scanners give
        text = f"DICOM series, but no masks. {layouts.WITHOUT_MASKS}" if bare else layouts.explain_unknown(root, files)
        report.findings.append(Finding("fault", text, str(folder)))
    if report.recipe:
        report.recipe += "".join(f"{line}\n" for line in split_lines(root, files))
    return report


def _by_reader(root: Path, guess: Guess, report: DataReport) -> None:
    """Read the folder with the guessed reader, and report on its cases."""
    seen, masks, problems = ImageStatistics(), MaskStatistics(), list[str]()
    for path in guess.masks:
        with collected([]):  # the reader reports it
            masks.add(inside(root, path))
    labels = masks.labels()
    if guess.reader == "table" and isinstance(labels.get("background"), list):
        del labels["background"]  # a colour there
    parameters = guess.parameters | labels
    report.layout = guess.reader
    report.findings += [Finding("warning", note) for note in guess.notes]
    report.add(masks.problems())
    try:
        found: object = datasets.build(guess.reader, parameters)
    except DatasetError as error:
        found = error.others
        report.add(error.problems)
    except UserError as error:
        found = None
        report.add([str(error)])
    if isinstance(found, Dataset):
        report.findings += [Finding("note", note) for note in _read(found, seen, problems)]
    named = {finding.place for finding in report.findings}
    report.add(problem for problem in problems if problem.partition(": ")[0] not in named)
    report.facts = seen.facts() | (masks.facts() if guess.masks else {})
    report.findings += seen.findings()
    table = Guess(guess.reader, parameters).lines()
    report.recipe = "\n".join([*seen.exclusive_lines(), *table, *seen.suggested_lines()]) + "\n"


def _read(data: Dataset, seen: ImageStatistics, problems: list[str]) -> Sequence[str]:
    """Read all cases; return the notes of their dataset."""
    for case in data.cases:
        with collected(problems):
            image, masks = case.read()
            check_arrays(case, image, masks, channels=len(data.channels), inputs=len(data.inputs))
            seen.add_case(case, image, masks, data)
    with collected(problems):
        return (*data.notes, *(data.conclude() if data.conclude else ()))
    return data.notes


def _sunnybrook(root: Path, report: DataReport) -> None:
    """Read the Sunnybrook Cardiac Data with its plugin, or report how to load it."""
    guess = Guess("sunnybrook", {"root": str(root)})
    if guess.reader in datasets:
        _by_reader(root, guess, report)
        return
    report.layout, report.recipe = guess.reader, "\n".join(guess.lines()) + "\n"
    text = (
        "the Sunnybrook Cardiac Data as published, which the plugin sunnybrook.py reads: it is not loaded. Put it "
        "(plugins/sunnybrook.py of segkit's repository) into ./plugins, or name its folder by --plugins DIR."
    )
    report.findings.append(Finding("warning", text, str(root)))


def _rvsc(root: Path, report: DataReport) -> None:
    """Read the patients of the RVSC layout, frame by frame, each with the structures that it has."""
    seen, contours, problems = ImageStatistics(), Counter[str](), list[str]()
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
    lines = [*Guess("rvsc", {"root": str(root)}).lines(), *_stacks(root)]
    report.recipe = "\n".join(lines) + "\n" if seen.count else ""
    if not seen.count and not any(finding.kind == "fault" for finding in report.findings):
        report.findings.append(Finding("fault", "contours, but no readable frame.", str(root)))


def _stacks(root: Path) -> list[str]:
    """Return a commented line that makes volumes of the frames, if they make some."""
    try:
        found = len(datasets.build("rvsc", {"root": str(root), "volumes": True}).cases)
    except UserError:
        return []
    return [f"# volumes = true  # {counted(found, 'volume')}, of each patient and phase, in place of slices"]


def _image_folder(root: Path, pairs: list[layouts.Pair], report: DataReport) -> None:
    seen, masks = ImageStatistics(), MaskStatistics()
    problems, names, coloured = list[str](), list[str](), list[Path]()
    with collected(problems):
        for pair in find_pairs(root, pairs[0].images, pairs[0].masks, problems, []):
            names.append(pair.name)
            size: tuple[int, ...] = ()
            with collected(problems):
                picture = read_any(pair.images[0], grey=False)
                pixels = picture.pixels if picture.coloured else picture.pixels[0]
                patient = pair.name.rpartition("/")[0].split("/")[0]
                inputs = RGB if picture.coloured else ONE_INPUT
                seen.add(pair.name, patient, pixels if picture.coloured else pixels[None], picture.spacing_mm, inputs)
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
    root: Path, pair: layouts.Pair, seen: ImageStatistics, masks: MaskStatistics, names: list[str], coloured: bool
) -> str:
    folders = {name: folder for name, folder in (("images", pair.images), ("masks", pair.masks)) if folder != name}
    labels = masks.labels()
    lines = Guess("image_folder", {"root": str(root), **folders, **labels}).lines()
    lines += ["grey = false"] if coloured else []
    if pair.alike:
        inputs = {folder.rpartition("/")[2].lower(): folder for folder in (pair.images, *pair.alike)}
        lines.append(
            f"# images = {toml.format_value(inputs)}  # {len(inputs)} inputs of the same names? Then use this line."
        )
    if seen.patients[None]:
        lines += _pattern(sorted(name.rpartition("/")[2] for name in names))
    return "\n".join([*exclusive(len(labels.get("labels", ()))), *lines, *seen.suggested_lines()]) + "\n"


def _pattern(names: list[str]) -> list[str]:
    """Return a commented line that groups images into patients by their names, for the user to judge."""
    for pattern in PATTERNS:
        found = [match[1] for name in names if (match := re.search(pattern, name))]
        if len(found) == len(names) and 2 <= len(set(found)) < len(names):
            guess = f"patient = {toml.format_value(pattern)}"
            return [f"# {guess}  # {len(set(found))} patients, e.g. {found[0]} of {names[0]}? If so, use this line."]
    return []
