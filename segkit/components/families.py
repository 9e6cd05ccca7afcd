"""A library's classes as components, their constructors narrowed to what a recipe can write."""

from __future__ import annotations

import collections.abc
import enum
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

if TYPE_CHECKING:
    from segkit.registry.registry import Registry

TYPING = {**vars(typing), **vars(collections.abc), "Path": Path}  # which libraries import for type checkers alone


def classes(module: types.ModuleType, *bases: type) -> Iterator[tuple[str, type[Any]]]:
    """Yield name and class of a module's public subclasses of `bases`, without these, in order of the names."""
    for name, cls in sorted(vars(module).items()):
        if inspect.isclass(cls) and issubclass(cls, bases) and cls not in bases and not name.startswith("_"):
            yield name, cls


def summary(cls: type) -> str:
    """Return the first paragraph of a class's documentation, on one line."""
    return " ".join((cls.__doc__ or cls.__name__).strip().split("\n\n", 1)[0].split())


def narrowed(
    cls: type,
    choose: Callable[[str, Any, Any], tuple[Any, Any]],
    *,
    handed: Collection[str] = (),
    hidden: Collection[str] = (),
) -> inspect.Signature | None:
    """Return the signature of a class in a recipe, None if that cannot set a parameter without a default.

    Args:
        cls: of a library.
        choose: maps a parameter's name, type and default to its type and default in a recipe; the type None omits it.
        handed: the positional arguments that segkit passes.
        hidden: parameters that recipes never set: segkit does, or the library's default stays.
    """
    parameters = inspect.signature(cls).parameters
    scope = {key: value for base in reversed(cls.__mro__) for key, value in vars(sys.modules[base.__module__]).items()}
    annotated = types.SimpleNamespace(__annotations__={name: each.annotation for name, each in parameters.items()})
    hints = typing.get_type_hints(annotated, {**TYPING, **scope}, include_extras=True)
    kept = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in handed]
    for name, parameter in parameters.items():
        if name in hidden:
            continue
        annotation, default = choose(name, hints[name], parameter.default)
        if annotation is not None:
            kept.append(parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=annotation, default=default))
        elif parameter.default is parameter.empty:
            return None
    return inspect.Signature(kept)


def add_classes(
    registry: Registry,
    module: types.ModuleType,
    names: Iterable[str],
    build: Callable[..., Any],
    *,
    hidden: Collection[str] = (),
) -> None:
    """Register classes of a library by name, with all of their parameters that a recipe can write.

    Args:
        registry: whose components they become.
        module: has the classes; those that this version of the library lacks are left out.
        names: of the classes.
        build: takes a class, what the slot hands in, and the parameters by name; where one is None the library's own
            default is meant.
        hidden: as for `narrowed`.
    """
    for name, cls in ((name, getattr(module, name)) for name in names if hasattr(module, name)):
        signature = narrowed(cls, chosen, handed=registry.handed, hidden=hidden)
        if signature is not None:
            factory = functools.partial(build, cls)
            factory.__module__ = build.__module__  # a partial has none
            registry.add(name, factory, signature, doc=summary(cls), origin=module.__name__)


def chosen(name: str, hint: Any, default: Any) -> tuple[Any, Any]:
    """Return type and default of a library's parameter in a recipe, for `narrowed`.

    The type is the part of the library's that a recipe can write. A default that it cannot write is None here: the
    library's own holds then.
    """
    kind = _immutable(writable(hint))
    if isinstance(default, enum.Enum):
        default = default.value
    if kind is None and isinstance(default, tuple) and {type(item) for item in default} == {int}:
        kind = tuple[int, ...]  # of a type without type arguments
    if kind is None or default is inspect.Parameter.empty or _fits(kind, default):
        return kind, default
    return kind | None, None


def _immutable(kind: Any) -> Any:
    """Return a type with tuples in place of lists, since defaults are not mutable."""
    inner = tuple(_immutable(part) for part in typing.get_args(kind))
    if typing.get_origin(kind) is list:
        return tuple[(*inner, ...)]  # type: ignore[valid-type]
    return Union[inner] if typing.get_origin(kind) in (Union, types.UnionType) else kind  # noqa: UP007


def _fits(kind: Any, default: Any) -> bool:
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(kind).validate_python(default, strict=True)
    except ValidationError:
        return False
    return True


def plain(hint: Any) -> Any:
    """Return a type without type arguments if a recipe can write it, else None."""
    return hint if hint in (bool, int, float, str, type(None)) or typing.get_origin(hint) is Literal else None


def writable(hint: Any, leaf: Callable[[Any], Any] = plain) -> Any:
    """Return the part of a library's type that a recipe can write, None if there is none.

    `leaf` does so for types without type arguments, e.g. to bound numbers.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    inner = tuple(argument if argument is Ellipsis else writable(argument, leaf) for argument in arguments)
    if origin in (Union, types.UnionType):
        members = tuple(member for member in inner if member is not None)
        return Union[members] if set(members) - {type(None)} else None  # noqa: UP007
    if origin in (tuple, dict):
        return None if None in inner else origin[inner]
    if origin in (list, collections.abc.Sequence, collections.abc.Iterable):
        return None if None in inner else list[inner]  # type: ignore[valid-type]
    return leaf(hint)
