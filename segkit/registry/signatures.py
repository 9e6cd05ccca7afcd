"""The strict pydantic model of a component's parameters, built from its signature."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from segkit.errors import RegistrationError, counted, sentence
from segkit.registry.messages import on_one_line
from segkit.registry.slot import Slot
from segkit.registry.source import code_of, location

if TYPE_CHECKING:
    from pydantic import BaseModel

PREFIX = "parameter_"  # keeps parameters from shadowing attributes of BaseModel
WRITABLE = (bool, int, float, str, Path, type(None))
ADVICE = "A recipe can write bool, int, float, str, Path, Literal[...], list, tuple, dict, `X | None` or a component."


def recipe_name(parameter: str) -> str:
    """Return the TOML key of a Python parameter: `lambda` for `lambda_`."""
    return parameter.removesuffix("_")


def _recipe_parameters(
    factory: Callable[..., Any], signature: inspect.Signature, handed: int
) -> list[inspect.Parameter]:
    """Return the parameters that a recipe may set: those after the `handed` positional ones that segkit passes."""
    parameters = list(signature.parameters.values())
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            star = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
            raise RegistrationError(
                f"{location(factory)}: '{star}{parameter.name}' is not allowed: a recipe could not name its values. "
                "Write each parameter out."
            )
    given, own = parameters[:handed], parameters[handed:]
    if len(given) < handed or any(p.kind is p.KEYWORD_ONLY for p in given):
        raise RegistrationError(
            f"{location(factory)}: segkit passes {counted(handed, 'positional argument')}, but the signature takes "
            f"({', '.join(str(p) for p in parameters)})."
        )
    if not inspect.isclass(factory):
        for parameter in own:
            if parameter.kind is not parameter.KEYWORD_ONLY:
                raise RegistrationError(
                    f"{location(factory)}: parameter '{parameter.name}' must be keyword-only: put a '*' before it. "
                    f"segkit passes only {counted(handed, 'positional argument')}."
                )
    return own


def _check_type(annotation: Any, place: str) -> None:
    """Raise unless every part of an annotation can be written in a recipe."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, Slot) or annotation in WRITABLE or origin is Literal:
        return
    if origin is Annotated:
        if not any(isinstance(extra, Slot) for extra in arguments[1:]):
            _check_type(arguments[0], place)
    elif origin in (Union, types.UnionType, list, tuple, dict):
        for argument in arguments:
            if argument is not Ellipsis:
                _check_type(argument, place)
    else:
        shown = getattr(annotation, "__name__", str(annotation))
        raise RegistrationError(f"{place} has type {shown}, which a recipe cannot write. {ADVICE}")


def annotation_parts(annotation: Any) -> Iterator[Any]:
    """Yield the types and metadata of an annotation, recursively."""
    yield annotation
    for argument in typing.get_args(annotation):
        yield from annotation_parts(argument)


def _resolved_type(factory: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Return the type of one parameter; the others' may be names that exist for type checkers only."""
    code = code_of(factory)
    inner = inspect.unwrap(code.__init__ if inspect.isclass(code) else code)
    scope = {**(vars(inspect.getmodule(code)) if inspect.isclass(code) else {}), **getattr(inner, "__globals__", {})}
    alone = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    return typing.get_type_hints(alone, scope, include_extras=True)[parameter.name]


def _field(factory: Callable[..., Any], parameter: inspect.Parameter) -> tuple[Any, Any]:
    from pydantic import Field

    place = f"{location(factory)}: parameter '{parameter.name}'"
    annotation = parameter.annotation
    if annotation is parameter.empty:
        raise RegistrationError(f"{place} has no type. Say what a recipe may write, as in `{parameter.name}: float`.")
    try:
        annotation = _resolved_type(factory, parameter)
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
    for parameter in _recipe_parameters(factory, signature, handed):
        alias = recipe_name(parameter.name)
        if weighted and alias == "weight":
            raise RegistrationError(f"{location(factory)}: parameter 'weight' is taken: it is the slot's own factor.")
        if any(alias == field.alias for _, field in fields.values()):
            raise RegistrationError(f"{location(factory)}: two parameters are called '{alias}' in a recipe.")
        fields[PREFIX + parameter.name] = _field(factory, parameter)
    if weighted:
        fields[PREFIX + "weight"] = (float, Field(1.0, alias="weight", ge=0, allow_inf_nan=False))
    config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True, allow_inf_nan=False)
    try:
        model: type[BaseModel] = create_model(name, __config__=config, **fields)
        defaults = {key: value for key, value in fields.items() if not value[1].is_required()}
        create_model(name, __config__=config, **defaults)()
    except ValidationError as error:
        broken = str(error.errors()[0]["loc"][0]).removeprefix(PREFIX)
        raise RegistrationError(
            f"{location(factory)}: the default of parameter '{broken}' does not fit its type: it "
            f"{sentence(on_one_line(error))}"
        ) from error
    except PydanticUserError as error:
        raise RegistrationError(f"{location(factory)}: {error.message}. {ADVICE}") from error
    return model
