"""What of a library's class a recipe can write."""

from __future__ import annotations

import enum
import inspect
import types
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from annotated_types import Ge

from segkit import optimizers, schedulers, transforms
from segkit.components.families import add_classes, classes, narrowed, summary, writable
from segkit.errors import UserError
from segkit.registry.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterable


class Base:
    """Steps,
    as torch's do.

    More.
    """


class Plain(Base):
    def __init__(
        self, params: Any, rates: Iterable[float], mode: Literal["a", "b"] = "a", hook: Any = None
    ) -> None: ...


class Closed(Base):
    def __init__(self, params: Any, hook: Callable[[int], float], rate: float = 0.5) -> None: ...


class _Hidden(Base): ...


def own(name: str, hint: Any, default: Any) -> tuple[Any, Any]:
    return writable(hint), default


def test_a_signature_keeps_what_a_recipe_can_write() -> None:
    signature = narrowed(Plain, own, handed=("parameters",), hidden=("params",))
    assert signature is not None
    assert list(signature.parameters) == ["parameters", "rates", "mode"]
    assert signature.parameters["parameters"].kind is inspect.Parameter.POSITIONAL_ONLY
    rates, mode = signature.parameters["rates"], signature.parameters["mode"]
    assert (rates.annotation, rates.default) == (list[float], inspect.Parameter.empty)
    assert (mode.annotation, mode.default, mode.kind) == (Literal["a", "b"], "a", inspect.Parameter.KEYWORD_ONLY)


def test_a_class_that_requires_what_no_recipe_can_write_is_left_out() -> None:
    assert narrowed(Closed, own, hidden=("params",)) is None
    assert narrowed(Closed, own, hidden=("params", "hook")) is not None


@pytest.mark.parametrize(
    "hint, expected",
    [
        (int | None, int | None),
        (Callable[[int], float] | float, float),
        (Callable[[int], float] | None, None),
        (tuple[int, ...] | Base, tuple[int, ...]),
        (Sequence[str], list[str]),
        (dict[str, tuple[float, float]], dict[str, tuple[float, float]]),
        (list[Base], None),
        (Base, None),
        (Any, None),
    ],
)
def test_the_part_of_a_type_that_a_recipe_can_write(hint: Any, expected: Any) -> None:
    assert writable(hint) == expected


def test_numbers_are_bounded_wherever_they_stand() -> None:
    bounded = Annotated[float, Ge(0)]
    assert writable(list[float] | None, lambda hint: bounded if hint is float else hint) == list[bounded] | None


def test_a_modules_classes_are_its_public_ones() -> None:
    module = types.ModuleType("library")
    vars(module).update({"Plain": Plain, "Base": Base, "_Hidden": _Hidden, "other": int, "value": 3})
    assert list(classes(module, Base)) == [("Plain", Plain)]
    assert (summary(Base), summary(Plain)) == ("Steps, as torch's do.", "Plain")


class Library(enum.Enum):
    """Of a parameter that is written by its value."""

    WORD = "word"


class Written:
    """Is built from what a recipe wrote."""

    def __init__(
        self,
        size: int,
        sides: Sequence[int] = (1, 2),
        kind: Library | str = Library.WORD,
        blocks: tuple = (1, 2),  # type: ignore[type-arg]
        act: str | tuple = (  # type: ignore[type-arg]
            "leaky",
            {"slope": 0.1},
        ),
        hook: Any = None,
    ) -> None:
        self.given = {"size": size, "sides": sides, "kind": kind, "blocks": blocks, "act": act}


def test_classes_of_a_library_become_components() -> None:
    library = types.ModuleType("library")
    vars(library).update({"Written": Written})
    registry = Registry("thing", "things", home=__name__, handed=("size",))
    add_classes(
        registry, library, ["Written", "Absent"], lambda cls, size, **values: (cls, size, values), hidden=["size"]
    )
    (entry,) = registry
    assert (entry.name, entry.origin, entry.summary) == ("Written", "library", "Is built from what a recipe wrote.")
    own = {"sides": (1, 2), "kind": "word", "blocks": (1, 2), "act": None}  # None: the library's own default
    assert {name: field.default for name, field in entry.fields.items()} == own
    assert registry.build("Written", {"act": "relu", "sides": [3]}, 5) == (
        Written, 5, own | {"act": "relu", "sides": (3,)},
    )  # fmt: skip
    with pytest.raises(UserError, match=r"thing\.Written\.side: no such parameter\. Did you mean 'sides'"):
        registry.build("Written", {"side": [3]}, 5)


def test_a_library_that_is_missing_is_named_each_time() -> None:
    def family(registry: Registry) -> None:
        raise UserError("install it")

    registry = Registry("thing", "things", home=__name__, family=family)
    for _ in range(2):
        with pytest.raises(UserError, match=r"^install it$"):
            registry.component("any")


@pytest.mark.parametrize("registry", [optimizers, schedulers, transforms], ids=lambda registry: registry.plural)
def test_each_parameter_of_a_library_has_a_schema_of_its_own(registry: Registry) -> None:
    for entry in registry:
        for name, schema in entry.parameters.model_json_schema().get("properties", {}).items():
            assert schema.keys() & {"type", "anyOf", "enum", "const", "$ref", "segkit-slot"}, f"{entry.name}.{name}"
