"""Case and Dataset: what every reader returns, checked once."""

from __future__ import annotations

import math
import numbers
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segkit.components.datasets.reading import flaw_of_name
from segkit.errors import ContractError, counted, first_few, first_unprintable
from segkit.types import Array

MOST_CHANNELS = 16
MOST_INPUTS = 16
LONGEST_NAME = 100  # characters of a channel's, in tables and file names
TAKEN = {"all": "the mean over channels", "overlay": "a picture of all masks"}  # names that tables and files use
KINDS = ("uint8", "uint16", "int16", "float32")
AXES = {2: "(H, W)", 3: "(I, H, W)", 4: "(I, D, H, W)"}  # of images


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """What a metric is computed on: one image, or one volume, with its masks.

    Its arrays are given, or read when they are needed, so that a data set need not fit into memory:
    `Case(name, patient, load=functools.partial(read_pair, image, mask), files=(image, mask))`.

    Attributes:
        name: unique in the dataset, e.g. "patient01/P01-0059"; used in tables and file names.
        patient: whose image it is; None if the data do not say.
        image: (H, W), (I, H, W) of I inputs, or a volume (I, D, H, W); uint8, uint16, int16 or float32, as stored.
            None if `load` reads it.
        masks: (C, H, W) or (C, D, H, W) bool, one per channel of the dataset; they may overlap. None if `load` reads
            them, or if there are none.
        spacing_mm: distance between the centres of neighbours along (row, column), of a volume (slice, row, column);
            None if the data do not say.
        tags: groups that the case belongs to, e.g. {"phase": "ED", "scanner": "A"}.
        load: returns image and masks (None if there are none). It may be called from several threads, and again.
        files: what `load` reads: the case is read again when one of them changes.
        labelled: whether `load` returns masks.
    """

    name: str
    patient: str | None
    image: Array | None = None
    masks: Array | None = None
    spacing_mm: tuple[float, ...] | None = None
    tags: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    load: Callable[[], tuple[Array, Array | None]] | None = field(default=None, kw_only=True)
    files: tuple[Path, ...] = field(default=(), kw_only=True)
    labelled: bool = field(default=True, kw_only=True)

    def read(self) -> tuple[Array, Array | None]:
        """Return image and masks, masks None where there are none.

        Raises:
            UserError: a file cannot be read; the message names it.
        """
        if self.load is not None:
            return self.load()
        if self.image is None:
            raise ContractError(f"{self.name}: has no image: give `image`, or `load`.")
        return self.image, self.masks

    @property
    def has_masks(self) -> bool:
        """Whether the case has masks; without, it can be predicted, but neither trained on nor evaluated."""
        return self.labelled if self.load is not None else self.masks is not None


@dataclass(frozen=True)
class CaseFiles:
    """The files of a case, which a reader has found and not opened.

    Attributes:
        name, patient, tags: of the case.
        images: one file an input, or one that holds all.
        masks: one file of all structures, or one each; none if there are no masks.
        spacing_mm: what is stated of this case alone.
    """

    name: str
    patient: str | None
    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    tags: Mapping[str, str] = field(default_factory=dict)
    spacing_mm: tuple[float, ...] | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Cases with the same channels and the same inputs.

    Attributes:
        name: e.g. "rvsc".
        channels: what each mask shows, at most 16.
        cases: at least one.
        notes: what the user should know about the data, e.g. what was left out.
        inputs: what each channel of an image shows, e.g. ("t1", "t2") or ("red", "green", "blue"); at most 16.
        conclude: called once all cases have been read; returns further notes, and raises what only all together show.

    Raises:
        ContractError: a case is not as `Case` describes, or two share a name; the message names the case.
    """

    name: str
    channels: tuple[str, ...]
    cases: tuple[Case, ...]
    notes: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ("image",)
    conclude: Callable[[], Sequence[str]] | None = None

    def __post_init__(self) -> None:
        for what, items in (("cases", self.cases), ("channels", self.channels), ("inputs", self.inputs)):
            if not isinstance(items, tuple | list):
                raise ContractError(f"{self.name}: its {what} must be a tuple, got {type(items).__name__}.")
        _check_names(self)
        if not self.cases:
            raise ContractError(f"{self.name}: has no cases.")
        for what, items, most in (("channel", self.channels, MOST_CHANNELS), ("input", self.inputs, MOST_INPUTS)):
            if not 1 <= len(items) <= most:
                raise ContractError(f"{self.name}: must have from 1 to {most} {what}s, got {len(items)}.")
            flaw = flaw_of_channels(items, what)
            if flaw:
                raise ContractError(f"{self.name}: {flaw}.")
        name, count = Counter(case.name for case in self.cases).most_common(1)[0]
        if count > 1:
            raise ContractError(f"{self.name}: {count} cases are called '{name}'. Names must be unique.")
        for case in self.cases:
            _check_metadata(case)
            if case.load is None:
                check_arrays(case, *case.read(), channels=len(self.channels), inputs=len(self.inputs))


def unlabelled_notes(found: Sequence[CaseFiles]) -> list[str]:
    """Return a note on the cases without masks, if there are some."""
    bare = [files.name for files in found if not files.masks]
    text = f"{counted(len(bare), 'image')} without masks, neither trained on nor evaluated: {first_few(bare)}."
    return [text] if bare else []


def flaw_of_channels(names: Sequence[str], what: str = "channel") -> str:
    """Return what is wrong with the names of channels, which tables and file names use; "" if nothing is."""
    if len(names) > MOST_CHANNELS:
        rest = ". Leave some out; in label maps, count their values as `background`" if what == "channel" else ""
        return f"names {len(names)} {what}s; at most {MOST_CHANNELS} are read{rest}"
    for name in names:
        control = first_unprintable(name)
        if not name.strip():
            return f"a {what} has an empty name. Name it after what it shows, e.g. wall or cavity"
        if control or name != name.strip() or set(name) & set("/\\"):
            flaw = f"the character {control}" if control else "a slash, or white space at an end"
            return f"the {what} name {name!a} holds {flaw}, which tables and file names cannot have. Rename it"
        if len(name) > LONGEST_NAME:
            return f"the {what} name {name[:20]}... has {len(name):,} characters; at most {LONGEST_NAME} are allowed"
        if name.casefold() in TAKEN:
            return f"a {what} cannot be called '{name}': this is the name of {TAKEN[name.casefold()]}. Rename it"
    folded = [unicodedata.normalize("NFKC", name).casefold() for name in names]
    twins = [name for name, key in zip(names, folded, strict=True) if folded.count(key) > 1]
    if twins:
        return f"{what}s are called {' and '.join(map(repr, twins))}; names must differ in more than case. Rename one"
    return ""


def _check_names(dataset: Dataset) -> None:
    """Raise unless cases are of type Case, and names are text."""
    for item in dataset.cases:
        if not isinstance(item, Case):
            raise ContractError(f"{dataset.name}: each case must be a segkit Case, got {type(item).__name__}.")
        if not isinstance(item.name, str) or not isinstance(item.patient, str | None):
            kinds = f"{type(item.name).__name__} and {type(item.patient).__name__}"
            raise ContractError(f"{item.name!r}: its name and patient must be strings, got {kinds}.")
    for what, names in (("channels", dataset.channels), ("inputs", dataset.inputs)):
        if not all(isinstance(name, str) for name in names):
            raise ContractError(f"{dataset.name}: its {what} must be strings, got {names!r}.")


def _check_metadata(case: Case) -> None:
    """Raise unless names, spacing and tags of a case can be used."""
    for name in (case.name, case.patient or "", *case.tags, *case.tags.values()):
        flaw = flaw_of_name(name) if isinstance(name, str) else "is no text"
        if flaw:
            raise ContractError(f"the name {name!a} of a case {flaw}. Rename it.")
    spacing = case.spacing_mm if isinstance(case.spacing_mm, tuple | list) else ()
    positive = [isinstance(mm, numbers.Real) and 0 < float(mm) < math.inf for mm in spacing]
    if case.spacing_mm is not None and positive not in ([True] * 2, [True] * 3):
        raise ContractError(
            f"{case.name}: its pixel spacing must be two lengths in mm above 0, or three of a volume, got "
            f"{case.spacing_mm}."
        )


def check_arrays(case: Case, image: Array, masks: Array | None, *, channels: int, inputs: int) -> None:
    """Raise unless what was read of a case is as its class describes.

    Raises:
        ContractError: the message names the case.
    """
    import numpy as np

    for what, array in (("image", image), *((("masks", masks),) if masks is not None else ())):
        if not isinstance(array, np.ndarray):
            raise ContractError(f"{case.name}: its {what} must be a numpy array, got {type(array).__name__}.")
    if image.ndim not in AXES or image.size == 0 or image.dtype.name not in KINDS:
        raise ContractError(
            f"{case.name}: its image must be {', '.join(AXES.values())}, of uint8, uint16, int16 or float32, got "
            f"{image.dtype} {image.shape}."
        )
    if (image.shape[0] if image.ndim > 2 else 1) != inputs:
        have = image.shape[0] if image.ndim > 2 else 1
        raise ContractError(
            f"{case.name}: its image has {counted(have, 'input')}, its dataset {inputs}: an image is "
            f"{AXES[image.ndim]}."
        )
    if image.dtype == np.float32 and not np.isfinite(image).all():
        raise ContractError(f"{case.name}: its image contains values that are not finite (NaN or infinity).")
    pixels = image.shape[1:] if image.ndim > 2 else image.shape
    if masks is not None and (masks.dtype != bool or masks.shape != (channels, *pixels)):
        raise ContractError(
            f"{case.name}: its masks must be bool {(channels, *pixels)} for {counted(channels, 'channel')} of its "
            f"image, got {masks.dtype} {masks.shape}."
        )
    if case.spacing_mm is not None and len(case.spacing_mm) != len(pixels):
        raise ContractError(
            f"{case.name}: its pixel spacing must be {len(pixels)} lengths in mm, one an axis of {pixels}, got "
            f"{case.spacing_mm}."
        )
