"""The strict pydantic model of a component's parameters, built from its signature."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from annotated_types import Len

from segkit.errors import RegistrationError, counted, sentence
from segkit.registry.messages import on_one_line
from segkit.registry.slot import Slot
from segkit.registry.source import code_of, location

if TYPE_CHECKING:
    from pydantic import BaseModel, ConfigDict

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
            inherited = inspect.isclass(factory) and "__init__" not in vars(factory)
            advice = "Give the class an `__init__(self)` of its own" if inherited else "Write each parameter out"
            raise RegistrationError(
                f"{location(factory)}: '{star}{parameter.name}' is not allowed: a recipe could not name its values. "
                f"{advice}."
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


def _groups(name: str, fields: Mapping[str, Any], config: ConfigDict) -> Any:
    """Return the type of `groups`: tables of the patterns that each matches, and its own values of the parameters.

    Its value is a tuple of such tables by Python names; what a group does not set is not in it.
    """
    from pydantic import AfterValidator, Field, PlainSerializer, WithJsonSchema, create_model

    pattern = Annotated[str, Len(1)]
    own: dict[str, Any] = {"match": (pattern | Annotated[tuple[pattern, ...], Len(1)], ...)}
    for key, (annotation, field) in fields.items():
        if not any(isinstance(part, Slot) for part in annotation_parts(annotation)):
            own[key] = (annotation, Field(None, alias=field.alias))
    group = create_model(f"{name} group", __config__=config, **own)

    def plain(groups: tuple[BaseModel, ...]) -> tuple[dict[str, Any], ...]:
        found = []
        for number, values in enumerate(each.model_dump(exclude_unset=True) for each in groups):
            if len(values) == 1:
                raise ValueError(f"group {number} sets no parameter: give it one, e.g. weight_decay, or leave it out")
            match = values.pop("match")
            values = {key.removeprefix(PREFIX): value for key, value in values.items()}
            found.append({"match": (match,) if isinstance(match, str) else match, **values})
        return tuple(found)

    def written(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{recipe_name(key): value for key, value in each.items()} for each in groups]

    schema = {"type": "array", "minItems": 1, "items": group.model_json_schema(by_alias=True)}
    several = Annotated[tuple[group, ...], Len(1)]
    return Annotated[several, AfterValidator(plain), PlainSerializer(written), WithJsonSchema(schema)] | None


def parameter_model(
    name: str, factory: Callable[..., Any], signature: inspect.Signature, handed: int, slot: Slot
) -> type[BaseModel]:
    """Return the strict model of a component's parameters, `extra="forbid"`, keyed by TOML names.

    The keys of the slot itself, `weight` and `groups`, are among them.

    Raises:
        RegistrationError: the signature is untyped, unwritable, or has a default outside its own bounds.
    """
    from pydantic import ConfigDict, Field, PydanticUserError, ValidationError, create_model

    fields: dict[str, Any] = {}
    for parameter in _recipe_parameters(factory, signature, handed):
        alias = recipe_name(parameter.name)
        if alias in slot.own_keys:
            raise RegistrationError(
                f"{location(factory)}: parameter '{alias}' is taken: it is a key of the slot itself."
            )
        if any(alias == field.alias for _, field in fields.values()):
            raise RegistrationError(f"{location(factory)}: two parameters are called '{alias}' in a recipe.")
        fields[PREFIX + parameter.name] = _field(factory, parameter)
    config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True, allow_inf_nan=False)
    if slot.grouped:
        groups = _groups(name, fields, ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False))
        fields[PREFIX + "groups"] = (groups, Field(None, alias="groups"))
    if slot.weighted:
        fields[PREFIX + "weight"] = (float, Field(1.0, alias="weight", ge=0, allow_inf_nan=False))
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
