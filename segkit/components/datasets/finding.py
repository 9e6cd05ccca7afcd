"""Which images there are to predict among files and folders, and which files make one."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segkit.components.datasets.conventions import Conventions
from segkit.components.datasets.formats.dicom_series import Series, group_slices, stack
from segkit.components.datasets.formats.kinds import DICOM, IMAGES, is_bare_dicom, is_nifti, without_ending
from segkit.components.datasets.loading import RGB
from segkit.components.datasets.nifti import case_name
from segkit.components.datasets.nnunet_listing import INPUT
from segkit.components.datasets.patterns import Pattern, best_matches
from segkit.components.datasets.reading import collected, files_below, inside, is_folder, natural
from segkit.components.datasets.scans import Scan, read_dicom_series, read_pictures, read_volume
from segkit.errors import UserError, counted, first_few

DEPTH = 4  # levels of folders in which images are searched


@dataclass
class Found:
    """The images among files and folders.

    Attributes:
        scans: in natural order.
        notes: on what was left out, and on how files were taken.
        problems: files that cannot be used.
    """

    scans: list[Scan] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


Named = dict[Path, str]  # files, and the names of their results


def find_scans(given: Sequence[Path], conventions: Conventions, out: Path) -> Found:
    """Return the images among files and folders.

    Folders are searched down to `DEPTH` levels. There, DICOM files of one series are a volume if they lie like one, or
    else images of their own; other files are known by their endings.

    Args:
        given: files, whatever their names, and folders.
        conventions: of the model. Files of several inputs belong together by the patterns, or by the numbers in
            CASE_0000.
        out: a folder that is left out: that of the results.

    Raises:
        UserError: a folder without images.
    """
    found = Found()
    loose: Named = {}
    for path in given:
        if is_folder(path):
            _add_folder(found, path, conventions, out)
        else:
            loose.setdefault(path, without_ending(path.name))
    _add(found, loose, conventions, None)
    found.scans = list(_distinct(found, conventions))
    return found


def _distinct(found: Found, conventions: Conventions) -> Iterator[Scan]:
    """Yield each image once, and only those whose results overwrite no other's."""
    seen: set[tuple[str, ...]] = set()
    owners: dict[str, Scan] = {}
    for scan in found.scans:
        key = tuple(map(os.path.realpath, scan.files))
        if key in seen:
            continue
        seen.add(key)
        results = [f"{scan.name}{suffix}".casefold() for suffix in ("", *conventions.suffixes)]
        other = next((owners[name] for name in results if name in owners), None)
        if other is None:
            owners |= dict.fromkeys(results, scan)
            yield scan
        else:
            what = f"its results would overwrite those of {other.source}"
            remedy = "Give them one after the other, each with another --out, or rename one."
            found.problems.append(f"{scan.source}: {what}. {remedy}")


def _add_folder(found: Found, root: Path, conventions: Conventions, out: Path) -> None:
    """Add the images of a folder."""
    chosen = [root / name for name in conventions.folders if is_folder(root / name)]
    problems = found.problems
    before = len(problems)
    images: list[Path] = []
    masks: list[Path] = []
    others: list[Path] = []
    for path in _files(root, chosen or [root], out, problems):
        if not (is_nifti(path) or path.suffix.lower() in IMAGES or is_bare_dicom(path)):
            others.append(path)
        elif (match := _match(path, (*conventions.images, *conventions.masks))) and match[0] in conventions.masks:
            masks.append(path)
        else:
            images.append(path)
    matching = [path for path in images if _match(path, conventions.images)]
    if not images and len(problems) == before:
        held = _listed(root, [*masks, *others])
        text = f"It holds {held}." if held else "It holds no files."
        raise UserError(f"{root}: contains no images down to {DEPTH} levels of folders. {text}")
    kept = set(matching)
    left_out = {
        "image": ([path for path in images if kept and path not in kept], ", which no pattern of the recipe matches"),
        "mask": (masks, ""),
        "non-image file": (others, ""),
    }
    for noun, (paths, why) in left_out.items():
        if paths:
            found.notes.append(f"{root}: {counted(len(paths), noun)} left out{why}: {_listed(root, paths)}.")
    if chosen:
        searched = " and ".join(f"{path.relative_to(root).as_posix()}/" for path in chosen)
        found.notes.append(f"{root}: only {searched} {'is' if len(chosen) == 1 else 'are'} searched.")
    chosen_files = matching or images
    names = {path: (path.relative_to(root).parent / without_ending(path.name)).as_posix() for path in chosen_files}
    _add(found, names, conventions, root)


def _files(root: Path, folders: Sequence[Path], out: Path, problems: list[str]) -> Iterator[Path]:
    """Yield the files of folders below the root but for those in `out`."""
    top, away = root.resolve(), out.resolve()
    for folder in folders:
        for path in files_below(top, folder, DEPTH, problems):
            if not path.resolve().is_relative_to(away) or top.is_relative_to(away):
                with collected(problems):
                    yield inside(top, path)


def _listed(root: Path, paths: Sequence[Path]) -> str:
    return first_few(path.relative_to(root).as_posix() for path in paths)


def _match(path: Path, patterns: Sequence[Pattern]) -> tuple[Pattern, dict[str, str]] | None:
    return next(iter(best_matches(path.absolute().as_posix(), patterns, end=True)), None)


def _add(found: Found, files: Named, conventions: Conventions, root: Path | None) -> None:
    """Add the images that files make, in natural order of their names; `root` is the folder that was given."""
    single = {path: name for path, name in files.items() if path.name.upper() != "DICOMDIR"}
    of_folder: dict[str, list[Series]] = {}
    for series in _series(found, single):
        of_folder.setdefault(_series_name(series, files, root), []).append(series)
    scans: list[Scan] = []
    for name, alike in of_folder.items():
        for number, series in enumerate(alike, 1):
            read = functools.partial(read_dicom_series, series, conventions.inputs)
            scans.append(Scan(f"{name}-{number}" if len(alike) > 1 else name, series.name, series.files, read))
    for name, paths in _cases(found, single, conventions):
        if all(map(is_nifti, paths)):
            reading = functools.partial(read_volume, paths, conventions.inputs, conventions.slices)
        else:
            reading = functools.partial(read_pictures, paths, conventions.inputs)
        scans.append(Scan(name, first_few(map(str, paths)), paths, reading))
    found.scans += sorted(scans, key=lambda scan: [natural(part) for part in scan.name.split("/")])


def _series(found: Found, files: Named) -> Iterator[Series]:
    """Yield the volumes among DICOM files, and take them out of `files`; a film in one file is a problem."""
    dicom = [path for path in files if path.suffix.lower() in DICOM or is_bare_dicom(path)]
    for slices in group_slices(dicom, []):  # reading the images reports what is wrong with single files
        paths = {item.path for item in slices}
        if len(slices) == 1 or (len(paths) > 1 and not all(item.position and item.axes for item in slices)):
            continue  # a single image, or several of which nothing says where they lie
        try:
            yield stack(slices)
        except UserError as error:
            if len(paths) == len(slices):
                found.notes.append(f"{error} Its images are predicted one by one.")
                continue
            found.problems.append(str(error))
        for path in paths:
            del files[path]


def _series_name(series: Series, files: Named, root: Path | None) -> str:
    """Return the name of a series' results: that of its only file, or of the folder of its files."""
    first = series.files[0]
    if len(series.files) == 1:
        return files[first]
    folder = first.parent
    if root is not None and folder != root:
        return folder.relative_to(root).as_posix()
    return folder.resolve().name or "series"


def _cases(found: Found, files: Named, conventions: Conventions) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Yield the name of the results of each image, and its files in the order of the inputs."""
    cases: dict[tuple[str, str], dict[int, Path]] = {}
    for path, name in files.items():
        case, number = _place(path, name, conventions) or ((name, str(path)), 0)
        other = cases.setdefault(case, {}).setdefault(number, path)
        if other is not path:
            found.problems.append(f"{path}: a second file of one image, beside {other}. Remove one of them.")
    for (name, _), numbered in cases.items():
        paths = tuple(numbered[number] for number in sorted(numbered))
        if sorted(numbered) in ([0], list(range(len(conventions.inputs)))):
            yield name, paths
            continue
        takes = f"the model takes {counted(len(conventions.inputs), 'input')}: {', '.join(conventions.inputs)}"
        held = f"its files are {first_few(path.name for path in paths)}"
        what = f"an image of other inputs than the model's; {takes}"
        found.problems.append(f"{paths[0]}: {what} ({held}). Give one file for each input.")


def _place(path: Path, name: str, conventions: Conventions) -> tuple[tuple[str, str], int] | None:
    """Return the case of a file, by a name and what tells it from others of that name, and the number of its input."""
    several = len(conventions.inputs) > 1
    if several and (match := _match(path, conventions.images)):
        case = case_name(match[1])
        return (case, ""), conventions.images.index(match[0])
    if several and not conventions.numbered and len(conventions.folders) == len(conventions.inputs):
        for number, folder in enumerate(conventions.folders):
            if name.startswith(f"{folder}/"):
                return (name.removeprefix(f"{folder}/"), ""), number
    by_number = conventions.numbered or (several and conventions.inputs != RGB)  # one in colours holds all three
    if by_number and (numbered := INPUT.fullmatch(name)):
        return (numbered[1], str(path.parent)), int(numbered[2])
    return None
