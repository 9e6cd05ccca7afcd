"""Guess from names how a folder holds NIfTI volumes and their masks: the patterns that the dataset `nifti` reads."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from segkit.checks.guess import Guess
from segkit.checks.layouts import MOST_FOLDERS, NNUNET, is_mask
from segkit.components.datasets.case import flaw_of_channels
from segkit.components.datasets.image_folder import MASK_SUFFIX

NIFTI = re.compile(r"(?P<stem>.*?)(?P<ending>\.nii(\.gz)?)", re.IGNORECASE)
HEADED = re.compile(r"([A-Za-z]+[-_. ]*)([0-9].*?)(\.nii(?:\.gz)?)", re.IGNORECASE)
NUMBERED = re.compile(r"([-_. ]?([A-Za-z]+))([0-9]+)")
SEPARATORS = "-_. "
SPECIAL = set("{}*")  # in patterns

Folders = tuple[str, ...]
Slot = tuple[str, str]  # the folder of an input, "" for the masks' own, and the end of its files' names


@dataclass(frozen=True)
class _Mask:
    """A mask's file: `above`/`folder`/`below`/`base``tail`, and the slots in which its case has images.

    `folder` holds masks alone; it is "" where masks lie beside the images.
    """

    above: Folders
    folder: str
    below: Folders
    base: str
    tail: str
    slots: frozenset[Slot]

    @property
    def kind(self) -> Any:
        """What masks that one pattern matches have in common."""
        return len(self.above), self.folder, len(self.below), self.tail, self.slots

    @property
    def path(self) -> str:
        return "/".join((*self.above, *([self.folder] if self.folder else []), *self.below, self.base + self.tail))


def guess_nnunet(root: Path, files: Iterable[str]) -> Guess | None:
    """Return how the dataset `nnunet` reads the folder, or one below, in nnU-Net's or the Decathlon's layout."""
    tops = {file[: match.start(2)] for file in files if (match := NNUNET.search(file))}
    if not tops:
        return None
    first, *others = sorted(tops)
    more = (f"{len(others)} more data sets, which the lines below leave out: {', '.join(others[:3])}.",)
    return Guess("nnunet", {"root": str(root / first)}, notes=more if others else ())


def guess_volumes(root: Path, files: Iterable[str]) -> Guess | None:
    """Return how the dataset `nifti` reads the folder; None if no mask is found by its name or its folder's."""
    names: dict[Folders, list[str]] = defaultdict(list)
    for file in files:
        *above, name = file.split("/")
        if NIFTI.fullmatch(name) and not set(file) & SPECIAL:
            names[tuple(above)].append(name)
    for found in names.values():
        found.sort()
    beside: dict[tuple[Folders, int], set[str]] = defaultdict(set)  # by the folders above, and the depth of files
    for folders in names:
        for at, folder in enumerate(folders):
            beside[folders[:at], len(folders)].add(folder)
    masks = [mask for folders in names for mask in _masks(names, folders, *_folder_of_masks(folders, beside))]
    kinds = Counter(mask.kind for mask in masks if mask.slots)
    numbered = _guess_numbered(root, names)
    if not kinds or (numbered is not None and len(numbered.masks) > max(kinds.values())):
        return numbered
    most = max(kinds, key=lambda kind: (kinds[kind], len(kind[-1])))
    members = [mask for mask in masks if mask.kind == most]
    template = _template(members)
    if template is None:
        return None
    one = members[0]
    slots = sorted(one.slots)
    patterns = [template.replace("\0", folder) + end for folder, end in slots]
    images: Any = patterns[0] if len(slots) == 1 else dict(zip(_inputs(slots), patterns, strict=True))
    truth = template.replace("\0", one.folder) + one.tail
    parameters = {"root": str(root), "images": images, "masks": truth}
    return Guess("nifti", parameters, tuple(root / mask.path for mask in members))


def _guess_numbered(root: Path, names: Mapping[Folders, list[str]]) -> Guess | None:
    """Return how names that differ before the case's number are read: segmentation-1.nii and volume-1.nii."""
    groups: dict[tuple[Folders, str, str], set[str]] = defaultdict(set)
    for folders, found in names.items():
        for name in found:
            if match := HEADED.fullmatch(name):
                groups[folders, match[1], match[3]].add(match[2])
    largest = sorted(groups, key=lambda group: -len(groups[group]))[:MOST_FOLDERS]
    masks = [group for group in largest if is_mask(group[1]) or is_mask("".join(group[0][-1:]))]
    images = [group for group in largest if group not in masks]
    beside = [(one, other) for one, other in product(images, masks) if one[0][:-1] == other[0][:-1]]
    image, mask = max(beside, key=lambda pair: len(groups[pair[0]] & groups[pair[1]]), default=(None, None))
    if image is None or mask is None or not groups[image] & groups[mask]:
        return None
    shared = sorted(groups[image] & groups[mask])
    begins = ["".join(f"{folder}/" for folder in folders) + head for folders, head, _ in (image, mask)]
    patterns = [f"{begin}{{patient}}{group[2]}" for begin, group in zip(begins, (image, mask), strict=True)]
    parameters = {"root": str(root), "images": patterns[0], "masks": patterns[1]}
    return Guess("nifti", parameters, tuple(root / f"{begins[1]}{number}{mask[2]}" for number in shared))


def _masks(
    names: Mapping[Folders, list[str]], folders: Folders, at: int | None, beside: Sequence[str]
) -> Iterator[_Mask]:
    """Yield the masks of a folder, each with the images of its case.

    Args:
        names: of all files.
        folders: the path of the folder.
        at: which of its parts holds masks alone; None if none does.
        beside: the folders of images beside that part.
    """
    suffixes = {name: MASK_SUFFIX.fullmatch(_stem(name)) for name in names[folders]}
    alone = sum(suffix is not None for suffix in suffixes.values()) == 1
    for name, suffix in suffixes.items():
        stem = _stem(name)
        if at is None and suffix is None:
            continue
        above, folder, below = (folders, "", ()) if at is None else (folders[:at], folders[at], folders[at + 1 :])
        places = {"": folders} if at is None else {other: (*above, other, *below) for other in beside}
        for base in dict.fromkeys(
            ([stem] if at is not None else []) + ([suffix[1]] if suffix and (suffix[1] or alone) else [])
        ):
            slots = frozenset(
                (place, end)
                for place, path in places.items()
                for end in _ends(names.get(path, []), base, alone=at is not None)
            )
            if slots:
                yield _Mask(above, folder, below, base, name[len(base) :], slots)
                break


def _stem(name: str) -> str:
    """Return a file's name without its ending; "" if it is not NIfTI."""
    found = NIFTI.fullmatch(name)
    return found["stem"] if found else ""


def _folder_of_masks(folders: Folders, beside: Mapping[tuple[Folders, int], set[str]]) -> tuple[int | None, list[str]]:
    """Return which of the folders holds masks alone, if it stands beside others; and these."""
    for at in reversed(range(len(folders))):
        if is_mask(folders[at]):
            others = sorted(name for name in beside[folders[:at], len(folders)] if not is_mask(name))[:MOST_FOLDERS]
            if others:
                return at, others
    return None, []


def _ends(names: Sequence[str], base: str, alone: bool) -> Iterator[str]:
    """Yield what follows the base in the names of a case's images; they are `alone`, or beside masks."""
    for name in names[bisect_left(names, base) :]:
        if not name.startswith(base):
            break
        found = NIFTI.fullmatch(name)
        rest = found["stem"][len(base) :] if found else ""
        is_image = alone or not rest or not MASK_SUFFIX.fullmatch(base + rest)
        if found and is_image and (not base or not rest or rest[0] in SEPARATORS):
            yield name[len(base) :]


def _template(masks: Sequence[_Mask]) -> str | None:
    """Return the pattern of the masks' paths without their tails, with "\\0" for the folder of masks or images."""
    rows = [(*mask.above, *mask.below) for mask in masks]
    varying = [at for at in range(len(rows[0])) if len({row[at] for row in rows}) > 1]
    if not varying and rows[0] and all(mask.base.startswith(row[-1]) for mask, row in zip(masks, rows, strict=True)):
        varying = [len(rows[0]) - 1]
    patient = varying[-1] if varying else None
    for at in varying:
        if all(mask.base.startswith(row[at]) for mask, row in zip(masks, rows, strict=True)):
            patient = at
    fields = {
        at: f"group{number}" if number > 1 else "group" for number, at in enumerate(sorted({*varying} - {patient}), 1)
    }
    shown = [
        "{patient}" if at == patient else f"{{{fields[at]}}}" if at in fields else rows[0][at]
        for at in range(len(rows[0]))
    ]
    bases = [mask.base for mask in masks]
    name = "{patient}" if patient is None else _name(bases, [row[patient] for row in rows])
    if patient is None and not all(bases):
        return None
    cut = len(masks[0].above)
    folder = ["\0"] if masks[0].folder else []
    return "/".join([*shown[:cut], *folder, *shown[cut:], name])


def _name(bases: Sequence[str], patients: Sequence[str]) -> str:
    """Return the pattern of files' names, given the patients' folders."""
    begin = all(base.startswith(patient) for base, patient in zip(bases, patients, strict=True))
    rests = [base[len(patient) * begin :] for base, patient in zip(bases, patients, strict=True)]
    prefix = "{patient}" * begin
    if len(set(rests)) == 1:
        return prefix + rests[0]
    numbered = [NUMBERED.fullmatch(rest) for rest in rests]
    words = {(match[1], match[2].lower()) for match in numbered if match}
    if all(numbered) and len(words) == 1:
        ((word, field),) = words
        return f"{prefix}{word}{{{field if field != 'patient' else 'name'}}}"
    first = {rest[:1] for rest in rests}
    if begin and len(first) == 1 and first <= set(SEPARATORS) and all(len(rest) > 1 for rest in rests):
        return f"{prefix}{first.pop()}{{name}}"
    return "{name}"


def _inputs(slots: Sequence[Slot]) -> list[str]:
    """Return a name for each input, from the ends of files' names, or from their folders'."""
    same = len({end for _, end in slots}) == 1
    found = [folder if same else end.partition(".nii")[0].strip(SEPARATORS) or "image" for folder, end in slots]
    lowered = [name.lower() for name in found]
    return lowered if not flaw_of_channels(lowered, "input") else [f"input{n}" for n in range(1, len(slots) + 1)]
