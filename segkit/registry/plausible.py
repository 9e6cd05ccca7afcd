"""Plausible values for required parameters, by type and bounds."""

from __future__ import annotations

import contextlib
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Union

from segkit.registry.component import Entry
from segkit.registry.registry import Registry

SIZES = ("height", "width", "size")
SIZE = 16  # pixels of a crop: smaller than the images that components are tried on


class UnknownError(Exception):
    """There is no plausible value."""


def filled(entry: Entry, given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return `given` with every required parameter, by TOML name, and the names of those without a plausible value."""
    values, unknown = dict(given), []
    for name, field in entry.fields.items():
        if field.is_required() and name not in values:
            try:
                values[name] = _value(name, field.annotation, field.metadata)
            except UnknownError:
                unknown.append(name)
    return values, unknown


def _value(name: str, annotation: Any, metadata: Sequence[Any] = ()) -> Any:
    """Return a value of a type, within the bounds among the `metadata`.

    Raises:
        UnknownError: only the user can know one.
    """
    registry = next((part for part in (annotation, *metadata) if isinstance(part, Registry)), None)
    if registry is not None:
        return _component_without_parameters(registry)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _value(name, arguments[0], [*metadata, *arguments[1:]])
    if origin is Literal:
        return arguments[0]
    if origin in (Union, types.UnionType):
        for choice in arguments:
            with contextlib.suppress(UnknownError):
                return _value(name, choice, metadata)
    if origin in (list, tuple):
        values = [_value(name, argument) for argument in arguments if argument is not Ellipsis]
        several = origin is list or Ellipsis in arguments
        return values * max([1, *_bounds(metadata, "min_length")]) if several else values
    if annotation is bool:
        return True
    if annotation in (int, float):
        return _number(name, annotation, metadata)
    raise UnknownError


def _number(name: str, kind: type, metadata: Sequence[Any]) -> float:
    """Return 0.5 or 1, or `SIZE` for a size in pixels, clamped to the bounds."""
    step = 1 if kind is int else 1e-3
    low = [*_bounds(metadata, "ge"), *(bound + step for bound in _bounds(metadata, "gt"))]
    high = [*_bounds(metadata, "le"), *(bound - step for bound in _bounds(metadata, "lt"))]
    wanted = 0.5 if kind is float else SIZE if any(word in name for word in SIZES) else 1
    return kind(min([max([wanted, *low]), *high]))  # type: ignore[no-any-return]


def _bounds(metadata: Sequence[Any], name: str) -> list[Any]:
    return [bound for part in metadata if (bound := getattr(part, name, None)) is not None]


def _component_without_parameters(registry: Registry) -> str:
    for entry in registry:
        if not any(field.is_required() for field in entry.fields.values()):
            return entry.name
    raise UnknownError
