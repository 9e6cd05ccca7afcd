"""Entry: a registered component. Component: an entry chosen by a recipe, with validated parameters."""

from __future__ import annotations

import functools
import inspect
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from segkit.registry.faults import fault, raise_fault
from segkit.registry.signatures import PREFIX, annotation_parts, parameter_model
from segkit.registry.slot import Slot
from segkit.types import PRETRAINED

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo


Conflict = Callable[..., str | None]


@dataclass(frozen=True, eq=False, repr=False)
class Entry:
    """A registered component; `conflict` takes its parameters by name and says which values do not go together."""

    name: str
    slot: Slot
    factory: Callable[..., Any]
    signature: inspect.Signature
    doc: str
    origin: str
    traits: Mapping[str, Any] = field(default_factory=dict)
    conflict: Conflict | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle an entry by its name in its registry."""
        return operator.getitem, (self.slot, self.name)

    def __repr__(self) -> str:
        return f"<{self.slot.name} {self.name}, from {self.origin}: {self.summary}>"

    @property
    def summary(self) -> str:
        """The first line of the documentation."""
        return self.doc.strip().split("\n", 1)[0]

    @functools.cached_property
    def foreign(self) -> bool:
        """Whether it is from a plugin: neither segkit's own nor from a library's family."""
        return not str(self.factory.__module__).startswith("segkit.")

    @functools.cached_property
    def parameters(self) -> type[BaseModel]:
        """The pydantic model of what a recipe may set, keyed by TOML names."""
        handed = 0 if self.slot.called and inspect.isclass(self.factory) else len(self.slot.handed)
        return parameter_model(self.name, self.factory, self.signature, handed, self.slot)

    @functools.cached_property
    def fields(self) -> dict[str, FieldInfo]:
        """The fields of `parameters` by their TOML names."""
        return {str(field.alias): field for field in self.parameters.model_fields.values()}

    def keys_at(self, path: Sequence[str | int]) -> list[str]:
        """Return the known keys of the table that holds `path`: the component's own, or that of one of its groups."""
        own = list(self.fields)
        if len(path) == 3 and path[0] == "groups" and self.slot.grouped:
            return ["match", *(name for name in own if name not in self.slot.own_keys)]
        return own if len(path) == 1 else []

    @property
    def required(self) -> list[str]:
        """The TOML names of the parameters without a default."""
        return [name for name, field in self.fields.items() if field.is_required()]


@dataclass(frozen=True, eq=False, repr=False)
class Component:
    """A validated choice for a slot: an entry and its parameters, ready to be built."""

    entry: Entry
    values: BaseModel
    _built: list[Any] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in self.dump()[self.name].items())})"

    @property
    def name(self) -> str:
        """The registered name."""
        return self.entry.name

    @property
    def weight(self) -> float:
        """The factor from the recipe (losses and regularizers), 1 for other slots."""
        return float(getattr(self.values, PREFIX + "weight", 1.0))

    @property
    def groups(self) -> tuple[dict[str, Any], ...]:
        """The groups from the recipe (optimizers): the patterns that each matches, and its own parameters."""
        return getattr(self.values, PREFIX + "groups", None) or ()

    @property
    def arguments(self) -> dict[str, Any]:
        """The validated parameters by their Python names; nested components are `Component`s."""
        named = ((key.removeprefix(PREFIX), value) for key, value in self.values)
        return {key: value for key, value in named if key not in self.entry.slot.own_keys}

    def to_be_filled(self) -> Component:
        """Return the component as it is built where a file fills it: parameters of the type `Pretrained` are None."""
        changed: dict[str, Any] = {}
        for (key, value), info in zip(self.values, self.entry.fields.values(), strict=True):
            if isinstance(value, Component):
                changed[key] = value.to_be_filled()
            elif value is not None and PRETRAINED in (*info.metadata, *annotation_parts(info.annotation)):
                changed[key] = None
        return Component(self.entry, self.values.model_copy(update=changed)) if changed else self

    def conflict(self) -> str | None:
        """Return which of its values do not go together; None if all do.

        Raises:
            ComponentError: the function that says so raised.
        """
        try:
            return self.entry.conflict(**self.arguments) if self.entry.conflict else None
        except BaseException as error:
            raise_fault(self, error)

    def dump(self) -> dict[str, Any]:
        """Return `{name: parameters}` as a recipe writes it, defaults included."""
        return {self.name: json.loads(self.values.model_dump_json(by_alias=True, exclude_none=True))}

    def build(self, *handed: Any) -> Any:
        """Return the callable for slots whose components are called, else the product of the factory from `handed`."""
        factory, arguments = self.entry.factory, self.arguments
        if not self.entry.slot.called:
            return factory(*handed, **arguments)
        return factory(**arguments) if inspect.isclass(factory) else functools.partial(factory, **arguments)

    def __call__(self, *handed: Any) -> Any:
        """Call the component with what its slot hands in.

        Raises:
            ComponentError: it raised, or its result breaks the slot's contract; with its name, file and line.
        """
        slot = self.entry.slot
        try:
            if slot.called:
                if not self._built:
                    self._built.append(self.build())
                if not self.entry.foreign:
                    return self._built[0](*handed)
                with slot.around(*handed):
                    return self._built[0](*handed)
            made = self.build(*handed)
            wrong = slot.check(made, *handed) if self.entry.foreign else None
        except BaseException as error:
            raise_fault(self, error)
        if wrong:
            raise fault(self, wrong)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle a component as its entry and its validated parameters."""
        values = (value for _, value in self.values)
        return _unpickled, (self.entry, dict(zip(self.entry.fields, values, strict=True)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Component) and self.entry is other.entry and self.dump() == other.dump()

    def __hash__(self) -> int:
        return hash((self.name, json.dumps(self.dump(), sort_keys=True)))


def _unpickled(entry: Entry, parameters: dict[str, Any]) -> Component:
    return Component(entry, entry.parameters.model_construct(**parameters))
