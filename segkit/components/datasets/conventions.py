"""What the data that a model was trained on call images and structures, for images that it is to predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segkit.components.datasets.formats.geometry import Slices
from segkit.components.datasets.nnunet_listing import IMAGES, TEST
from segkit.components.datasets.patterns import Pattern, parse_pattern

REGIONS = ("nifti", "nnunet")  # readers whose labels may be lists of values; other readers' lists are colours


@dataclass(frozen=True)
class Conventions:
    """Which images a model takes, and what the data that it was trained on call them.

    Attributes:
        inputs: of the model.
        slices: across which of the patient's axes the slices of NIfTI volumes lie.
        images: patterns of the names of NIfTI files, one an input; none if names follow no pattern.
        masks: patterns of files that are masks.
        folders: names of the folders that hold the images, where a folder has them.
        numbered: whether files are called CASE_0000 even of one input.
        suffixes: of the names of results.
    """

    inputs: tuple[str, ...] = ("image",)
    slices: Slices = "auto"
    images: tuple[Pattern, ...] = ()
    masks: tuple[Pattern, ...] = ()
    folders: tuple[str, ...] = ()
    numbered: bool = False
    suffixes: tuple[str, ...] = ()


def conventions_of(
    reader: str, arguments: Mapping[str, Any], inputs: tuple[str, ...], suffixes: tuple[str, ...] = ()
) -> Conventions:
    """Return which images a model takes.

    Args:
        reader: the dataset of its training; "" if that is not available.
        arguments: of the reader.
        inputs: of the model.
        suffixes: of the names of results.
    """
    images, is_nifti = arguments.get("images"), reader == "nifti"
    folders = {"nnunet": (IMAGES, TEST), "image_folder": _texts(images)}
    return Conventions(
        inputs,
        arguments.get("slices", "auto"),
        _patterns(images) if is_nifti else (),
        _patterns(arguments.get("masks")) if is_nifti else (),
        folders.get(reader, ()),
        numbered=reader == "nnunet",
        suffixes=suffixes,
    )


def label_values(reader: str, arguments: Mapping[str, Any], channels: Sequence[str]) -> tuple[int, ...] | None:
    """Return the value of each structure in label maps: those of the reader's `labels`, else 1, 2, ...

    None is returned where one map cannot hold the structures, since they are regions that share values, and for a
    single structure without a value of its own.
    """
    given = arguments.get("labels")
    stated = list(given.values()) if isinstance(given, Mapping) and tuple(given) == tuple(channels) else []
    if reader in REGIONS:
        values = [(found,) if isinstance(found, int) else tuple(found) for found in stated]
        listed = [value for found in values for value in found]
        if len(set(listed)) < len(listed):
            return None
        stated = [found[0] if len(found) == 1 else found for found in values]
    if stated and all(isinstance(found, int) for found in stated):
        return tuple(stated)
    return tuple(range(1, len(channels) + 1)) if len(channels) > 1 else None


def _texts(given: Any) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given.values()) if isinstance(given, Mapping) else ()


def _patterns(given: Any) -> tuple[Pattern, ...]:
    return tuple(parse_pattern(text, "images") for text in _texts(given))
