"""NIfTI volumes whose patients, frames and other properties stand in the names of files and folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from segkit.components.datasets import reading
from segkit.components.datasets.acdc import Frames
from segkit.components.datasets.case import CaseFiles, Dataset, flaw_of_channels
from segkit.components.datasets.formats.geometry import Slices
from segkit.components.datasets.formats.kinds import NIFTI
from segkit.components.datasets.patterns import Pattern, best_matches, parse_pattern
from segkit.components.datasets.structures import Label, one_file_each, structures_of
from segkit.components.datasets.volumes import to_dataset
from segkit.errors import UserError, counted, first_few
from segkit.types import Positive

Fields = tuple[str, ...]
PATIENT = "patient"


Found = dict[Pattern, dict[Fields, Path]]  # files by the pattern that they match and the text of its fields


def nifti(
    *,
    root: Path,
    images: str | dict[str, str],
    masks: str | dict[str, str],
    labels: dict[str, Label | tuple[Label, ...]] | None = None,
    background: tuple[Label, ...] = (),
    slices: Slices = "auto",
    volumes: bool = True,
    spacing_mm: tuple[Positive, Positive, Positive] | None = None,
) -> Dataset:
    """NIfTI volumes with their masks, found by patterns of their names.

    For ACDC: images = "{patient}/{patient}_frame{frame}.nii.gz", masks = "{patient}/{patient}_frame{frame}_gt.nii.gz".
    `{patient}` is the patient; other fields become tags and, with it, the case's name. A field is one or more
    characters of a name, `*` any number. A file that matches several patterns belongs to the one that spells most of
    it out. Files of one case have the same text in all fields. Frames whose folder has an `Info.cfg` with `ED: 1` and
    `ES: 12` (Bernard et al. 2018) get the tag "phase", its `Group` the tag "group". Volumes are turned so that columns
    run to the patient's left and rows to posterior (of axial slices) or inferior; values are in the file's own units.
    Images without masks can be predicted alone.

    Args:
        root: the folder; patterns are relative to it.
        images: a pattern, or the pattern of each input, e.g. { t1 = "{patient}_t1.nii", t2 = "{patient}_t2.nii" }.
        masks: the pattern of label maps, or, one file a structure, of each structure.
        labels: each structure's value in label maps, or values of a region, e.g. { edema = 2, whole = [1, 2, 4] }.
            Without it, label maps show one structure, "foreground", as 0 and 1 or 0 and 255.
        background: further values in label maps that are no structure.
        slices: across which of the patient's axes slices lie; "auto": the axis with one voxel or with clearly the
            largest spacing (1.2 times the second), else axial.
        volumes: whether a case is a volume; otherwise each slice is one.
        spacing_mm: (slice, row, column) in place of what the headers say.

    Raises:
        UserError: a file is damaged, lacks its partner, lies elsewhere than its image, or holds other values or NaN.
    """
    top = reading.open_root(root)
    if isinstance(masks, str):
        structures = structures_of(labels, background)
    else:
        structures = one_file_each(masks, "masks", labels, background)
    inputs = tuple(images) if isinstance(images, dict) else ("image",)
    if flaw := flaw_of_channels(inputs, "input"):
        raise UserError(f"images: {flaw}.")
    problems: list[str] = []
    image_patterns, mask_patterns, unmatched = _patterns(images, "images"), _patterns(masks, "masks"), list[str]()
    files = _find(top, [*image_patterns, *mask_patterns], problems, unmatched)
    pictures, truths = ({pattern: files[pattern] for pattern in part} for part in (image_patterns, mask_patterns))
    found = list(_cases(top, pictures, truths, problems))
    left_out = f"{counted(len(unmatched), 'NIfTI file')} left out, which no pattern matches: {first_few(unmatched)}."
    notes = [left_out] if unmatched else []
    return to_dataset(
        "nifti", structures, inputs, found, problems, whole=volumes, slices=slices, spacing_mm=spacing_mm, notes=notes
    )


def _patterns(given: str | dict[str, str], what: str) -> list[Pattern]:
    if isinstance(given, str):
        return [parse_pattern(given, what)]
    if not given:
        raise UserError(f"{what}: the table is empty. Give a pattern, or a table of names and patterns.")
    return [parse_pattern(text, f"{what}.{name}") for name, text in given.items()]


def _find(root: Path, patterns: Sequence[Pattern], problems: list[str], unmatched: list[str]) -> Found:
    """Return the files below `root` that match; what is wrong with single files is added to `problems`.

    Other NIfTI files are added to `unmatched`.

    Raises:
        UserError: patterns have other fields than the first, or no file matches one of them.
    """
    first = patterns[0]
    for other in patterns[1:]:
        if set(other.fields) != set(first.fields):
            raise UserError(
                f"{other.what}: {other.text!r} must have the fields of {first.what} = {first.text!r}, by which files "
                "of one case are found."
            )
        if other.text == first.text:
            raise UserError(f"{other.what}: has the pattern of {first.what}, {first.text!r}. Write another.")
    found: Found = {pattern: {} for pattern in patterns}
    depth = max(pattern.depth for pattern in patterns)
    for path in reading.files_below(root, root, depth, problems):
        relative = path.relative_to(root).as_posix()
        with reading.collected(problems):
            matches = best_matches(relative, patterns)
            if len(matches) > 1:
                names = " and ".join(f"{pattern.what} = {pattern.text!r}" for pattern, _ in matches)
                raise UserError(f"{path}: matches both {names}. Write patterns that tell these files apart.")
            if not matches:
                unmatched += [relative] if relative.lower().endswith(NIFTI) else []
                continue
            pattern, fields = matches[0]
            key = tuple(fields[name] for name in first.fields)
            other_file = found[pattern].setdefault(key, reading.inside(root, path))
            if other_file is not path:
                raise UserError(f"{path}: a second file of one case, beside {other_file}. Which counts? Remove one.")
    for pattern in patterns:
        if not found[pattern] and not problems:
            raise UserError(f"{root}: no file matches {pattern.what} = {pattern.text!r}. {_content(root, depth)}")
    return found


def _content(root: Path, depth: int) -> str:
    names = [path.relative_to(root).as_posix() for path in reading.files_below(root, root, depth + 1, [])]
    return f"It holds {first_few(names)}." if names else "It holds no files down to that depth."


def _cases(root: Path, images: Found, masks: Found, problems: list[str]) -> Iterator[CaseFiles]:
    """Yield the cases whose files are complete, in natural order."""
    fields = next(iter(images)).fields
    frames = Frames(root)
    keys = {key for found in images.values() for key in found}
    masked = {key for found in masks.values() for key in found}
    problems += _lonely(images, masks, masked - keys)
    for key in sorted(keys, key=lambda key: [reading.natural(text) for text in key]):
        with reading.collected(problems):
            first = next(found[key] for found in images.values() if key in found)
            pictures = _complete(images, key, first)
            truths = _complete(masks, key, first) if key in masked else ()
            values = dict(zip(fields, key, strict=True))
            tags = {name: text for name, text in values.items() if name != PATIENT}
            told = {**frames.tags(first, tags), **tags}
            yield CaseFiles(case_name(values), values.get(PATIENT), pictures, truths, told)


def _lonely(images: Found, masks: Found, keys: set[Fields]) -> Iterator[str]:
    """Yield a message for each mask without image."""
    wanted = " and ".join(repr(pattern.text) for pattern in images)
    for found in masks.values():
        for key in sorted(found.keys() & keys):
            yield f"{found[key]}: a mask without image (which matches {wanted}). Add the image, or remove it."


def _complete(files: Found, key: Fields, first: Path) -> tuple[Path, ...]:
    """Return the file of each pattern for a case."""
    missing = [pattern for pattern, found in files.items() if key not in found]
    if missing:
        names = ", ".join(f"{pattern.what} ({pattern.text})" for pattern in missing)
        masks = missing[0].what.startswith("masks")
        remedy = "Add it; where a structure is absent, an empty mask." if masks else "Add it, or remove the case."
        raise UserError(f"{first}: its case has no file for {names}. {remedy}")
    return tuple(found[key] for found in files.values())


def case_name(values: Mapping[str, str]) -> str:
    """Return the name of the case with these fields: {patient: "p1", frame: "01"} is "p1/frame01"."""
    rest = [f"{name}{text}" if text[0].isdigit() else text for name, text in values.items() if name != PATIENT]
    return "/".join([values[PATIENT], *rest] if PATIENT in values else rest)
