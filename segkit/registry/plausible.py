"""Plausible values for required parameters, by type and bounds."""

from __future__ import annotations

import types
import typing
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from segkit.registry.component import Component, Entry
from segkit.registry.registry import Registry
from segkit.registry.signatures import PREFIX, recipe_name

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

SIZES = ("height", "width", "size")
SIZE = 16  # pixels of a crop: smaller than the images that components are tried on


class UnknownError(Exception):
    """There is no plausible value."""


def filled(entry: Entry, given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return `given` with every required parameter, by TOML name, and the names of those without a plausible value."""
    values, unknown = dict(given), []
    for key, field in entry.parameters.model_fields.items():
        name = field.alias or recipe_name(key.removeprefix(PREFIX))
        if not field.is_required() or name in values:
            continue
        try:
            values[name] = _of_field(name, field)
        except UnknownError:
            unknown.append(name)
    return values, unknown


def _of_field(name: str, field: FieldInfo) -> Any:
    registry = next((extra for extra in field.metadata if isinstance(extra, Registry)), None)
    if registry is not None:
        return _component(registry)
    return _of_type(name, field.annotation, field.metadata)


def _of_type(name: str, annotation: Any, bounds: typing.Sequence[Any] = ()) -> Any:
    """Return a value of a type.

    Raises:
        UnknownError: only the user can know one.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, Registry):
        return _component(annotation)
    if origin is Annotated:
        registry = next((extra for extra in arguments[1:] if isinstance(extra, Registry)), None)
        if arguments[0] is Component and registry is not None:
            return _component(registry)
        return _of_type(name, arguments[0], [*bounds, *arguments[1:]])
    if origin is Literal:
        return arguments[0]
    if origin in (Union, types.UnionType):
        return _first(name, [argument for argument in arguments if argument is not type(None)], bounds)
    if origin is tuple:
        inner = [argument for argument in arguments if argument is not Ellipsis]
        values = [_of_type(name, argument) for argument in inner]
        return values * _least(bounds) if Ellipsis in arguments else values
    if origin is list:
        return [_of_type(name, arguments[0])] * _least(bounds)
    if annotation is bool:
        return True
    if annotation in (int, float):
        return _number(name, annotation, bounds)
    raise UnknownError


def _first(name: str, choices: list[Any], bounds: typing.Sequence[Any]) -> Any:
    for choice in choices:
        try:
            return _of_type(name, choice, bounds)
        except UnknownError:
            continue
    raise UnknownError


def _least(bounds: typing.Sequence[Any]) -> int:
    lengths = [bound.min_length for bound in bounds if getattr(bound, "min_length", None) is not None]
    return int(max([1, *lengths]))


def _number(name: str, kind: type, bounds: typing.Sequence[Any]) -> float:
    """Return 0.5 or 1, or `SIZE` for a size in pixels, clamped to the bounds."""
    step = 1 if kind is int else 1e-3
    low = _limits(bounds, "ge", 0) + _limits(bounds, "gt", step)
    high = _limits(bounds, "le", 0) + _limits(bounds, "lt", -step)
    wanted = 0.5 if kind is float else SIZE if any(word in name for word in SIZES) else 1
    return kind(min([max([wanted, *low]), *high]))  # type: ignore[no-any-return]


def _limits(bounds: typing.Sequence[Any], name: str, shift: float) -> list[float]:
    return [getattr(bound, name) + shift for bound in bounds if getattr(bound, name, None) is not None]


def _component(registry: Registry) -> str:
    """Return the first component that needs no parameters."""
    for entry in registry:
        if not any(field.is_required() for field in entry.parameters.model_fields.values()):
            return entry.name
    raise UnknownError
