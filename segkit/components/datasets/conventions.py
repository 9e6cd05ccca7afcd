"""What the data that a model was trained on call images and structures, for images that it is to predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segkit.components.datasets.finding import Taken
from segkit.components.datasets.nnunet_listing import IMAGES, TEST
from segkit.components.datasets.patterns import Pattern, parse_pattern

REGIONS = ("nifti", "nnunet")  # readers whose labels may be lists of values; other readers' lists are colours


def images_like(
    reader: str, arguments: Mapping[str, Any], inputs: tuple[str, ...], suffixes: tuple[str, ...] = ()
) -> Taken:
    """Return which images a model takes.

    Args:
        reader: the dataset of its training; "" if that is not available.
        arguments: of the reader.
        inputs: of the model.
        suffixes: of the names of results.
    """
    images, is_nifti = arguments.get("images"), reader == "nifti"
    folders = {"nnunet": (IMAGES, TEST), "image_folder": _texts(images)}
    return Taken(
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
