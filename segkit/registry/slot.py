"""A slot: what its components are handed, what they give back, and their traits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from segkit.errors import RegistrationError, suggest

Trait = type[bool] | type[float] | tuple[str, ...]
DEFAULTS: dict[Any, Any] = {bool: False, float: None}


def fold(name: str) -> str:
    """Return the form under which names are compared: case, `-` and `_` do not count."""
    return name.lower().replace("-", "").replace("_", "")


@dataclass(eq=False)
class Slot:
    """What every component of a slot has in common.

    Attributes:
        name: in a recipe and in messages, e.g. "loss".
        plural: the registry's own name, e.g. "losses".
        handed: what segkit hands in by position.
        called: whether a component is called with it each time (a loss), or is a factory called once (a model).
        weighted: whether a recipe may give each component a `weight`.
        traits: what `register` may declare about a component: `bool` (false by default), `float` (None by default), or
            the words to choose from, the default first.
        check: given what a factory made, and what it was handed: returns what is wrong with it, or None.
        around: what a call of a plugin's component runs in, given what it is handed; raises ContractError.
    """

    name: str
    plural: str
    handed: tuple[str, ...]
    called: bool
    weighted: bool = False
    traits: Mapping[str, Trait] = field(default_factory=dict)
    check: Callable[..., str | None] = lambda made, *handed: None
    around: Callable[..., AbstractContextManager[None]] = lambda *handed: nullcontext()

    def with_defaults(self, traits: Mapping[str, Any], place: str) -> dict[str, Any]:
        """Return every trait of the slot with its value.

        Raises:
            RegistrationError: the slot has no such trait, or it has another type.
        """
        for trait, value in traits.items():
            kind = self.traits.get(trait)
            if kind is None:
                known = suggest(trait, self.traits)
                raise RegistrationError(f"{place}: a {self.name} has no trait '{trait}'. {known}")
            if isinstance(kind, tuple):
                fits, wanted = value in kind, " or ".join(map(repr, kind))
            elif kind is bool:
                fits, wanted = isinstance(value, bool), "True or False"
            else:
                fits, wanted = isinstance(value, int | float) and not isinstance(value, bool), "a number"
            if not fits:
                raise RegistrationError(f"{place}: {trait} must be {wanted}, not {value!r}.")
        defaults = {name: kind[0] if isinstance(kind, tuple) else DEFAULTS[kind] for name, kind in self.traits.items()}
        return {**defaults, **traits}
