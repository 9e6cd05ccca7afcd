"""A component's signature becomes the strict pydantic model of what a recipe may set."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from segkit.errors import RegistrationError, counted, sentence
from segkit.registry.messages import summed
from segkit.registry.slot import Slot

if TYPE_CHECKING:
    from pydantic import BaseModel

PREFIX = "parameter_"  # keeps authors' names clear of BaseModel's own attributes
WRITABLE = (bool, int, float, str, Path, type(None))
ADVICE = "A recipe can write bool, int, float, str, Path, Literal[...], list, tuple, dict, `X | None` or a component."


def code_of(factory: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function or class whose code a component is: that of a partial, or of an object that is called."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    return factory if hasattr(factory, "__qualname__") else type(factory)


def at_home(factory: Callable[..., Any]) -> Callable[..., Any]:
    """Give a partial the module of the code that it calls; return that code."""
    code = code_of(factory)
    if isinstance(factory, functools.partial):
        factory.__module__ = code.__module__
    return code


def where(factory: Callable[..., Any]) -> str:
    """Return "file:line" of a function or class, or its module where there is no source."""
    factory = code_of(factory)
    try:
        path = inspect.getsourcefile(factory)
        line = factory.__code__.co_firstlineno if inspect.isfunction(factory) else inspect.getsourcelines(factory)[1]
    except (OSError, TypeError):
        return getattr(factory, "__module__", None) or "unknown"
    shown = Path(path or "?")
    if shown.is_relative_to(Path.cwd()):
        shown = shown.relative_to(Path.cwd())
    return f"{shown}:{line}"


def recipe_name(parameter: str) -> str:
    """Return the TOML key of a Python parameter: `lambda_` is `lambda`."""
    return parameter.removesuffix("_")


def settable(factory: Callable[..., Any], signature: inspect.Signature, handed: int) -> list[inspect.Parameter]:
    """Return the parameters that a recipe may set; refuse a signature that segkit cannot call.

    Args:
        factory: the function or class, for messages.
        signature: its signature, without `self`.
        handed: how many positional values segkit hands in.
    """
    parameters = list(signature.parameters.values())
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            star = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
            raise RegistrationError(
                f"{where(factory)}: '{star}{parameter.name}' is not allowed: a recipe could not name its values. "
                "Write each parameter out."
            )
    given, own = parameters[:handed], parameters[handed:]
    if len(given) < handed or any(p.kind is p.KEYWORD_ONLY for p in given):
        raise RegistrationError(
            f"{where(factory)}: segkit hands in {counted(handed, 'positional value')} here, but the signature takes "
            f"({', '.join(str(p) for p in parameters)})."
        )
    if not inspect.isclass(factory):
        for parameter in own:
            if parameter.kind is not parameter.KEYWORD_ONLY:
                raise RegistrationError(
                    f"{where(factory)}: parameter '{parameter.name}' must be keyword-only: put a '*' before it. "
                    f"segkit hands in {counted(handed, 'positional value')} here."
                )
    return own


def _check_type(annotation: Any, place: str) -> None:
    """Raise unless every part of an annotation can be written in a recipe."""
    if isinstance(annotation, Slot) or annotation in WRITABLE:
        return
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is Annotated:
        if any(isinstance(extra, Slot) for extra in arguments[1:]):
            return
        _check_type(arguments[0], place)
    elif origin is Literal:
        return
    elif origin in (Union, types.UnionType, list, tuple, dict):
        for argument in arguments:
            if argument is not Ellipsis:
                _check_type(argument, place)
    else:
        shown = getattr(annotation, "__name__", str(annotation))
        raise RegistrationError(f"{place} has type {shown}, which a recipe cannot write. {ADVICE}")


def _evaluated(factory: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Return the type of a parameter, alone: those of what is handed in may be names for type checkers only."""
    code = code_of(factory)
    inner = inspect.unwrap(code.__init__ if inspect.isclass(code) else code)
    scope = {**(vars(inspect.getmodule(code)) if inspect.isclass(code) else {}), **getattr(inner, "__globals__", {})}
    alone = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    return typing.get_type_hints(alone, scope, include_extras=True)[parameter.name]


def _field(factory: Callable[..., Any], parameter: inspect.Parameter) -> tuple[Any, Any]:
    """Return the type and pydantic field of one parameter."""
    from pydantic import Field

    place = f"{where(factory)}: parameter '{parameter.name}'"
    annotation = parameter.annotation
    if annotation is parameter.empty:
        raise RegistrationError(f"{place} has no type. Say what a recipe may write, as in `{parameter.name}: float`.")
    try:
        annotation = _evaluated(factory, parameter)
    except Exception as error:
        raise RegistrationError(f"{place}: its type '{annotation}' cannot be read: {sentence(error)}") from error
    _check_type(annotation, place)
    default = parameter.default
    if isinstance(default, (list, dict, set)):
        raise RegistrationError(
            f"{place} has a mutable default ({default!r}), which calls would share. Use a tuple, or None."
        )
    alias = recipe_name(parameter.name)
    return annotation, Field(... if default is parameter.empty else default, alias=alias)


def parameter_model(
    name: str, factory: Callable[..., Any], signature: inspect.Signature, handed: int, weighted: bool
) -> type[BaseModel]:
    """Return the strict model of a component's parameters, `extra="forbid"`, keyed by TOML names.

    Raises:
        RegistrationError: the signature is untyped, unwritable, or has a default outside its own bounds.
    """
    from pydantic import ConfigDict, Field, PydanticUserError, ValidationError, create_model

    fields: dict[str, Any] = {}
    for parameter in settable(factory, signature, handed):
        if weighted and parameter.name == "weight":
            raise RegistrationError(f"{where(factory)}: parameter 'weight' is taken: it is the slot's own factor.")
        fields[PREFIX + parameter.name] = _field(factory, parameter)
    if weighted:
        fields[PREFIX + "weight"] = (float, Field(1.0, alias="weight", ge=0, allow_inf_nan=False))
    config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True, allow_inf_nan=False)
    try:
        model = create_model(name, __config__=config, **fields)
        defaults = {key: value for key, value in fields.items() if not value[1].is_required()}
        create_model(name, __config__=config, **defaults)()
    except ValidationError as error:
        broken = str(error.errors()[0]["loc"][0]).removeprefix(PREFIX)
        raise RegistrationError(
            f"{where(factory)}: the default of parameter '{broken}' breaks its own type: it {sentence(summed(error))}"
        ) from error
    except PydanticUserError as error:
        raise RegistrationError(f"{where(factory)}: {error.message}. {ADVICE}") from error
    found: type[BaseModel] = model
    return found
