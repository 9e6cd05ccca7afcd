"""Plausible values for required parameters, by type and bounds."""

from __future__ import annotations

import contextlib
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Union

from segkit.errors import UserError
from segkit.registry.component import Entry
from segkit.registry.registry import Registry

SIZES = ("height", "width", "size")
SIZE = 16  # pixels of a crop: smaller than the images that components are tried on
ENDS = {"low": -160.0, "high": 240.0}  # of a range: soft tissue in CT


def filled(entry: Entry, given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return `given` with every required parameter, by TOML name, and the names of those without a plausible value."""
    missing = [name for name in entry.required if name not in given]
    found = {name: _value(name, entry.fields[name].annotation, entry.fields[name].metadata) for name in missing}
    known = {name: value for name, value in found.items() if value is not None}
    return given | known, [name for name in missing if name not in known]


def _value(name: str, annotation: Any, metadata: Sequence[Any] = ()) -> Any:
    """Return a value of a type, within the bounds among the `metadata`; None if only the user can know one."""
    registry = next((part for part in (annotation, *metadata) if isinstance(part, Registry)), None)
    if registry is not None:
        with contextlib.suppress(UserError):  # a library that is not installed
            return next((entry.name for entry in registry if not entry.required), None)
        return None
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _value(name, arguments[0], [*metadata, *arguments[1:]])
    if origin is Literal:
        return next((choice for choice in arguments if choice is not None), None)
    if origin in (Union, types.UnionType):
        values = [_value(name, choice, metadata) for choice in arguments]
        return next((value for value in values if value is not None), None)
    if origin in (list, tuple):
        values = [_value(name, argument) for argument in arguments if argument is not Ellipsis]
        several = origin is list or Ellipsis in arguments
        if None in values:
            return None
        return values * max([1, *_bounds(metadata, "min_length")]) if several else values
    if annotation is bool:
        return True
    if annotation in (int, float):
        return _number(name, annotation, metadata)
    return None


def _number(name: str, kind: type, metadata: Sequence[Any]) -> float:
    """Return 0.5 or 1, `SIZE` for a size in pixels, or an end of a range, clamped to the bounds."""
    step = 1 if kind is int else 1e-3
    low = [*_bounds(metadata, "ge"), *(bound + step for bound in _bounds(metadata, "gt"))]
    high = [*_bounds(metadata, "le"), *(bound - step for bound in _bounds(metadata, "lt"))]
    wanted = ENDS.get(name, 0.5) if kind is float else SIZE if any(word in name for word in SIZES) else 1
    return kind(min([max([wanted, *low]), *high]))  # type: ignore[no-any-return]


def _bounds(metadata: Sequence[Any], name: str) -> list[Any]:
    return [bound for part in metadata if (bound := getattr(part, name, None)) is not None]
