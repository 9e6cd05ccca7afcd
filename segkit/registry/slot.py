"""A slot: what its components are called with, what they return, and their traits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from segkit.errors import RegistrationError, suggest


class Function:
    """The type of a trait that is a function."""


Trait = type[bool] | type[float] | type[Function] | tuple[str, ...]
DEFAULTS: dict[Any, Any] = {bool: False, float: None, Function: None}


def fold(name: str) -> str:
    """Return the form in which names are compared: without case, `-` and `_`."""
    return name.lower().replace("-", "").replace("_", "")


@dataclass(eq=False)
class Slot:
    """What all components of a slot have in common.

    Attributes:
        name: in a recipe and in messages, e.g. "loss".
        plural: the registry's own name, e.g. "losses".
        handed: the names of the positional arguments that segkit passes.
        called: whether a component is called with these each time (a loss), or is a factory called once (a model).
        weighted: whether a recipe may give each component a `weight`.
        grouped: whether a recipe may give a component `groups`, tables of other parameters for some of the weights.
        traits: what `register` may declare about a component, with its type: `bool` (default False), `float` (default
            None), `Function` (default None), or the possible words (default the first).
        check: takes the product of a factory and its positional arguments; returns what is wrong with it, or None.
        around: takes the positional arguments; returns the context in which a plugin's component is called, which
            raises ContractError.
    """

    name: str
    plural: str
    handed: tuple[str, ...] = ()
    called: bool = False
    weighted: bool = False
    grouped: bool = False
    traits: Mapping[str, Trait] = field(default_factory=dict)
    check: Callable[..., str | None] = lambda made, *handed: None
    around: Callable[..., AbstractContextManager[None]] = lambda *handed: nullcontext()

    @property
    def own_keys(self) -> tuple[str, ...]:
        """The keys of a component's table that are the slot's, not the component's."""
        return (*(("weight",) if self.weighted else ()), *(("groups",) if self.grouped else ()))

    def with_defaults(self, traits: Mapping[str, Any], place: str) -> dict[str, Any]:
        """Return every trait of the slot with its value, defaults included.

        Raises:
            RegistrationError: the slot has no such trait, or the value has another type.
        """
        for trait, value in traits.items():
            kind = self.traits.get(trait)
            if kind is None:
                raise RegistrationError(f"{place}: a {self.name} has no trait '{trait}'. {suggest(trait, self.traits)}")
            if isinstance(kind, tuple):
                fits, wanted = value in kind, " or ".join(map(repr, kind))
            elif kind is Function:
                fits, wanted = callable(value), "a function"
            elif kind is bool:
                fits, wanted = isinstance(value, bool), "True or False"
            else:
                fits, wanted = isinstance(value, int | float) and not isinstance(value, bool), "a number"
            if not fits:
                raise RegistrationError(f"{place}: {trait} must be {wanted}, got {value!r}.")
        defaults = {name: kind[0] if isinstance(kind, tuple) else DEFAULTS[kind] for name, kind in self.traits.items()}
        return {**defaults, **traits}
