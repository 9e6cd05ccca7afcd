"""A registry per slot: register components by name, look them up, validate their parameters, build them.

A registry is also the pydantic type of its slot, so that a recipe is one static class, plugins may register late, and
every mistake in a file is found in one pass.
"""

from __future__ import annotations

import functools
import inspect
import json
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from segkit.errors import RegistrationError, UserError, suggest, truncate
from segkit.registry.component import Component, Conflict, Entry
from segkit.registry.messages import Mistake, describe_value, error_of, mistakes_of, translate_errors
from segkit.registry.slot import Slot, fold
from segkit.registry.source import code_of, location

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import core_schema

F = TypeVar("F", bound=Callable[..., Any])
REFERENCE = "segkit-slot"  # key in a JSON Schema: [slot, whether it holds several components]


class Registry(Slot):
    """The named components of one slot.

    Args:
        name, plural, about: see `Slot`.
        home: the module of the slot, whose names are also attributes of the registry, e.g. `segkit.losses.dice`.
        family: registers a library's components when a name is first looked up, e.g. the optimizers of torch.
    """

    def __init__(
        self, name: str, plural: str, *, home: str, family: Callable[[Registry], None] | None = None, **about: Any
    ) -> None:
        super().__init__(name, plural, **about)
        self.home, self._family = home, family
        self._of_family: set[str] = set()
        self._entries: dict[str, Entry] = {}

    def __repr__(self) -> str:
        return f"<registry {self.plural}>"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        """Copy and pickle a registry by name: each process has its own."""
        return pkgutil.resolve_name, (f"{self.home}:{self.plural}",)

    def __getattr__(self, name: str) -> Any:
        """Return a name that the slot's module defines, e.g. `segkit.losses.dice`."""
        home = self.__dict__.get("home", "")
        found = None if name.startswith("_") else vars(sys.modules.get(home, object)).get(name)
        if isinstance(found, ModuleType) or (home and str(getattr(found, "__module__", "")).startswith(home)):
            return found
        raise AttributeError(f"segkit.{self.__dict__.get('plural')} has no attribute '{name}'")

    def register(self, name: str, *, conflict: Conflict | None = None, **traits: Any) -> Callable[[F], F]:
        """Return a decorator that registers a function or class under `name` and returns it unchanged.

        Args:
            name: its name in recipes.
            conflict: takes the parameters by name and returns what is wrong with values that do not go together, None
                if nothing is; it is asked when a recipe is read.
            traits: those of the slot's traits that apply, e.g. `exclusive_only` (a loss or regularizer defined for
                exclusive channels only) or `final_only` (a metric too slow for every epoch).

        Raises:
            RegistrationError: the name is taken, the signature cannot be written in a recipe, or the slot has no such
                trait.
        """

        def decorate(factory: F) -> F:
            if not callable(factory):
                raise RegistrationError(f"{self.plural}.register('{name}') decorates a function or a class.")
            signature, code = inspect.signature(factory), code_of(factory)
            if isinstance(factory, functools.partial):
                factory.__module__ = code.__module__
            self.add(name, factory, signature, doc=code.__doc__ or "", traits=traits, conflict=conflict)
            return factory

        return decorate

    def add(
        self,
        name: str,
        factory: Callable[..., Any],
        signature: inspect.Signature,
        *,
        doc: str,
        origin: str | None = None,
        traits: Mapping[str, Any] = MappingProxyType({}),
        conflict: Conflict | None = None,
    ) -> Entry:
        """Register `factory` under an explicit signature, e.g. a library's reduced to what recipes can write."""
        builtin = factory.__module__.startswith("segkit.")
        place = origin or ("segkit" if builtin else location(factory))
        if not name or not all(part.isalnum() for part in name.replace("-", "_").split("_") if part):
            raise RegistrationError(f"{place}: '{name}' is not a valid {self.name} name: use letters, digits and '_'.")
        if origin is None and not builtin:
            self._load()
        taken = self._entries.get(fold(name))
        if taken is not None:
            raise RegistrationError(
                f"{place}: the {self.name} '{name}' is taken by '{taken.name}' of {taken.origin} "
                "(case, '-' and '_' do not count). Choose another name."
            )
        entry = Entry(name, self, factory, signature, doc, place, self.with_defaults(traits, place), conflict)
        if origin is None and not builtin:
            _ = entry.parameters  # raises for a bad signature
        self._entries[fold(name)] = entry
        return entry

    def _load(self) -> None:
        """Register the library's family, once."""
        family, self._family = self._family, None
        if family is not None:
            before = set(self._entries)
            try:
                family(self)
            except BaseException:  # the library is not installed: say so each time
                self._family = family
                raise
            self._of_family = set(self._entries) - before

    def snapshot(self) -> dict[str, Entry]:
        """Return the current entries, for `restore`."""
        return dict(self._entries)

    def restore(self, entries: dict[str, Entry]) -> None:
        """Undo every registration since `snapshot`, except those of a library's family, which loads only once."""
        family = {key: entry for key, entry in self._entries.items() if key in self._of_family}
        self._entries = {**entries, **family}

    def names(self) -> list[str]:
        """Return the registered names, sorted."""
        return sorted(entry.name for entry in self)

    def __iter__(self) -> Iterator[Entry]:
        self._load()
        return iter(sorted(self._entries.values(), key=lambda entry: entry.name.lower()))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) is not None

    def _find(self, name: str) -> Entry | None:
        if fold(name) not in self._entries:
            self._load()
        return self._entries.get(fold(name))

    def __getitem__(self, name: str) -> Entry:
        """Return the entry of a name, matched without regard to case, `-` and `_`.

        Raises:
            UserError: nothing is registered under that name.
        """
        entry = self._find(name)
        if entry is None:
            raise UserError(f"no {self.name} is called '{name}'. {suggest(name, self.names())}")
        return entry

    def component(self, name: str, parameters: dict[str, Any] | None = None) -> Component:
        """Validate `parameters` (TOML names) and return the component.

        Raises:
            UserError: an unknown name, or every mistake of the parameters, one a line.
        """
        from pydantic import ValidationError

        try:
            return self._validate({name: parameters or {}})
        except ValidationError as error:
            lines = (f"{self.name}.{'.'.join(map(str, path))}: {text}" for path, text, _ in mistakes_of(error))
            raise UserError("\n".join(lines)) from None

    def build(self, name: str, parameters: dict[str, Any] | None = None, *handed: Any) -> Any:
        """Validate and build: `losses.build("dice_mix", {"lambda": 0.6})`, `models.build("unet", {}, 1, 2)`."""
        return self.component(name, parameters).build(*handed)

    def _validate(self, value: Any) -> Component:
        """Return the component for a recipe's value: a name, or a table of one name."""
        if isinstance(value, Component) and value.entry.slot is self:
            return value
        if isinstance(value, str):
            value = {value: {}}
        if not isinstance(value, dict) or len(value) != 1:
            given = f"{len(value)} names: {truncate(', '.join(value))}" if isinstance(value, dict) and value else ""
            text = f"must be one {self.name}: a name or a table of one name, got {given or describe_value(value)}"
            raise error_of(self.name, [Mistake((), text)])
        ((name, parameters),) = value.items()
        return self._choose(str(name), parameters)

    def _choose(self, name: str, parameters: Any) -> Component:
        from pydantic import ValidationError

        entry = self._find(name)
        if entry is None:
            text = f"no such {self.name}. {suggest(name, self.names())}"
            raise error_of(self.name, [Mistake((name,), text)])
        if not isinstance(parameters, dict):
            text = f"must be a table of parameters, got {describe_value(parameters)}"
            raise error_of(self.name, [Mistake((name,), text)])
        try:
            text = json.dumps(parameters, default=str)
            component = Component(entry, entry.parameters.model_validate_json(text, strict=True))
        except ValidationError as error:
            mistakes = translate_errors(error, parameters, entry.keys_at, "parameter")
            raise error_of(error.title, mistakes, (name,)) from None
        conflict = component.conflict()
        if conflict is not None:
            raise error_of(self.name, [Mistake((name,), conflict)])
        return component

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return _schema(self._validate, Component.dump)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return a placeholder for the slot, since slots nest; `segkit.recipe.schema` resolves it."""
        return {REFERENCE: [self.name, False]}


def _schema(validate: Callable[[Any], Any], dump: Callable[[Any], Any]) -> core_schema.CoreSchema:
    from pydantic_core import core_schema

    return core_schema.no_info_plain_validator_function(
        validate, serialization=core_schema.plain_serializer_function_ser_schema(dump)
    )


class Several:
    """The pydantic type of a slot that holds one or more components by name: `[loss.dice]`, `[loss.bce]`."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def _validate(self, value: Any) -> tuple[Component, ...]:
        from pydantic import ValidationError

        if isinstance(value, tuple) and all(isinstance(item, Component) for item in value):
            return value
        if isinstance(value, str):
            value = {value: {}}
        if not isinstance(value, dict):
            text = f"must be a table of {self.registry.plural} by name, got {describe_value(value)}"
            raise error_of(self.registry.name, [Mistake((), text)])
        chosen: list[Component] = []
        mistakes: list[Mistake] = []
        for name, parameters in value.items():
            try:
                chosen.append(self.registry._choose(str(name), parameters))
            except ValidationError as error:
                mistakes += mistakes_of(error)
        if mistakes:
            raise error_of(self.registry.name, mistakes)
        return tuple(chosen)

    @staticmethod
    def _dump(value: tuple[Component, ...]) -> dict[str, Any]:
        return {name: parameters for component in value for name, parameters in component.dump().items()}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return _schema(self._validate, self._dump)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {REFERENCE: [self.registry.name, True]}
