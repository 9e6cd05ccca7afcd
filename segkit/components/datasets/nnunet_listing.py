"""`dataset.json` of nnU-Net and of the Medical Segmentation Decathlon: what it says, and which files it means."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkit.components.datasets import reading
from segkit.components.datasets.case import MOST_INPUTS, CaseFiles
from segkit.components.datasets.formats.kinds import NIFTI
from segkit.components.datasets.structures import MOST_LABEL, Structures
from segkit.errors import UserError, counted, first_few
from segkit.files import read_json

NAME = "dataset.json"
IMAGES, LABELS, TEST = "imagesTr", "labelsTr", "imagesTs"
PICTURES = (".png", ".bmp", ".tif")
INPUT = re.compile(r"(.+)_([0-9]{4})")
IGNORED = "ignore"


@dataclass(frozen=True)
class Description:
    """What a `dataset.json` says.

    Attributes:
        path: the file.
        inputs: their names, in the order of their numbers.
        structures: the values of each structure in label maps.
        ending: of the files, e.g. ".nii.gz".
        pairs: the image and label map that it lists; None if the folders are the list.
    """

    path: Path
    inputs: tuple[str, ...]
    structures: Structures
    ending: str
    pairs: tuple[tuple[str, str], ...] | None


def read_description(root: Path) -> Description:
    """Return what the `dataset.json` of a folder, resolved, says.

    Raises:
        UserError: it is missing or damaged, lacks a key, or has labels that cannot be trained on.
    """
    path = root / NAME
    if not os.path.exists(path):
        held = first_few(entry.name for entry in reading.entries(root))
        raise UserError(
            f"{path}: no such file. Name the folder of one data set, which holds {NAME} and {IMAGES}; it has: {held}."
        )
    found = read_json(reading.inside(root, path))
    if not isinstance(found, dict):
        raise _damaged(path, "it must be a table of keys")
    names = found.get("channel_names", found.get("modality"))
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise _damaged(path, '"channel_names" (or "modality") must name the inputs, as {"0": "CT"}')
    if len(names) > MOST_INPUTS:
        raise _damaged(path, f"it names {len(names):,} inputs; at most {MOST_INPUTS} are read")
    if sorted(names) != sorted(map(str, range(len(names)))):
        raise _damaged(path, f"the inputs must be numbered from 0 without a gap, got {first_few(names, 8)}")
    ending = found.get("file_ending", ".nii.gz")
    if ending not in (*NIFTI, *PICTURES):
        known = ", ".join((*NIFTI, *PICTURES))
        raise UserError(f"{path}: files that end with {ending!r} are not read. Convert them to one of {known}.")
    inputs = [names[str(index)] for index in range(len(names))]
    unique = [name if inputs.count(name) == 1 else f"{name}-{index}" for index, name in enumerate(inputs)]
    return Description(path, tuple(unique), _structures(path, found.get("labels")), ending, _pairs(path, found))


def _structures(path: Path, labels: Any) -> Structures:
    """Return the structures of `labels`, {"name": 1, "region": [1, 2]} or, as in the Decathlon, {"1": "name"}."""
    if not isinstance(labels, dict) or not labels:
        raise _damaged(path, '"labels" must give the value of each structure, as {"background": 0, "liver": 1}')
    if all(isinstance(name, str) for name in labels.values()):
        if len(set(labels.values())) < len(labels) or not all(value.isdecimal() for value in labels):
            raise _damaged(path, '"labels" must give each value a name of its own, as {"0": "background"}')
        labels = {name: int(value[:9]) for value, name in labels.items()}
    values: dict[str, tuple[int, ...]] = {}
    for name, given in labels.items():
        several = tuple(given) if isinstance(given, list) else (given,)
        lowest = 0 if several == (0,) else 1  # a region cannot hold the background
        if not several or not all(type(value) is int and lowest <= value <= MOST_LABEL for value in several):
            raise _damaged(
                path, f"the label {name!r} must be a whole number from 0 to {MOST_LABEL:,}, or a list of them without 0"
            )
        values[name] = several
    if IGNORED in values:
        raise UserError(
            f'{path}: has the label "{IGNORED}": parts of the masks are not annotated, which cannot be trained on. '
            "Use complete masks, or leave out the cases and the label."
        )
    shown = {name: several for name, several in values.items() if several != (0,)}
    if not shown:
        raise _damaged(path, '"labels" name no structure beside the background')
    return Structures(shown, remedy=f"Correct the mask, or the labels in {path}.")


def _pairs(path: Path, found: Mapping[str, Any]) -> tuple[tuple[str, str], ...] | None:
    """Return the pairs of the list "training"; None without such a list."""
    listed = found.get("training")
    if listed is None:
        return None
    items = listed if isinstance(listed, list) else []
    pairs = [(item.get("image"), item.get("label")) for item in items if isinstance(item, dict)]
    if not pairs or len(pairs) < len(items) or not all(isinstance(name, str) for pair in pairs for name in pair):
        raise _damaged(path, '"training" must list {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}')
    return tuple((str(image), str(label)) for image, label in pairs)


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path}: damaged: {what}.")


def entries_of(root: Path, about: Description, problems: list[str]) -> Iterator[CaseFiles]:
    """Yield the training cases; what is wrong with single ones is added to `problems`."""
    images, labels = (_by_name(root, root / part, about.ending, problems) for part in (IMAGES, LABELS))
    inputs: dict[str, dict[int, Path]] = {}
    for name, file in images.items():
        if match := INPUT.fullmatch(name):
            inputs.setdefault(match[1], {})[int(match[2])] = file
    if about.pairs is not None:
        yield from _listed(root, about, about.pairs, inputs, problems)
        return
    if not inputs and not problems:
        raise UserError(f"{root / IMAGES}: no file is called CASE_0000{about.ending}. {_content(root / IMAGES)}")
    if not labels and not problems:
        raise UserError(
            f"{root / LABELS}: no file is called CASE{about.ending}, and training needs label maps. "
            f"{_content(root / LABELS)}"
        )
    for name in sorted(labels.keys() - inputs.keys(), key=reading.natural):
        problems.append(f"{labels[name]}: a label map without image in {IMAGES}. Add the image, or remove it.")
    for name in sorted(inputs, key=reading.natural):
        with reading.collected(problems):
            masks = (labels[name],) if name in labels else ()
            yield CaseFiles(name, None, _of_one(name, inputs[name], about), masks)


def _listed(
    root: Path,
    about: Description,
    pairs: tuple[tuple[str, str], ...],
    inputs: Mapping[str, Mapping[int, Path]],
    problems: list[str],
) -> Iterator[CaseFiles]:
    """Yield the listed cases; nnU-Net's first version lists CASE.nii.gz where the files are CASE_0000.nii.gz."""
    seen: set[str] = set()
    for image, label in pairs:
        with reading.collected(problems):
            path = root / image
            name = path.name.removesuffix(about.ending)
            if name in seen:
                raise UserError(f"{about.path}: lists a case twice ({name}). Remove one of the two.")
            seen.add(name)
            if not os.path.exists(path) and name not in inputs:
                raise UserError(f"{path}: is not there, though {NAME} lists it. Add it, or take it out of {NAME}.")
            files = (path,) if os.path.exists(path) or name not in inputs else _of_one(name, inputs[name], about)
            images = tuple(reading.inside(root, file) for file in files)
            yield CaseFiles(name, None, images, (reading.inside(root, root / label),))


def _of_one(name: str, numbered: Mapping[int, Path], about: Description) -> tuple[Path, ...]:
    """Return the files of a case in the order of the inputs; a coloured picture may hold three."""
    coloured = about.ending in PICTURES and len(about.inputs) == 3 and sorted(numbered) == [0]
    if sorted(numbered) != list(range(1 if coloured else len(about.inputs))):
        raise UserError(
            f"{numbered[min(numbered)]}: its case lacks some of the {counted(len(about.inputs), 'input')} of {NAME}, "
            f"{first_few(about.inputs)} (files {first_few(f'_{number:04d}' for number in sorted(numbered))}). Add "
            f"the missing files, or correct {NAME}."
        )
    return tuple(numbered[number] for number in sorted(numbered))


def _by_name(root: Path, folder: Path, ending: str, problems: list[str]) -> dict[str, Path]:
    """Return the files of a folder with an ending, by their name without it."""
    if not reading.is_folder(folder):
        return {}
    found = {}
    for path in reading.files_below(root, reading.inside(root, folder), 1, problems):
        if path.name.endswith(ending):
            with reading.collected(problems):
                found[path.name.removesuffix(ending)] = reading.inside(root, path)
    return found


def _content(folder: Path) -> str:
    if not reading.is_folder(folder):
        return "There is no such folder."
    names = [entry.name for entry in reading.entries(folder)]
    return f"The folder holds {first_few(names)}." if names else "The folder is empty."
