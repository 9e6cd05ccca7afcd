"""A tree of merged values, and the source of each: what layers of a recipe are laid into."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segkit.errors import UserError, suggest
from segkit.recipe.paths import KeyPath, is_file_path, list_of, slot_of
from segkit.recipe.source import Source
from segkit.registry.registry import Registry
from segkit.registry.slot import fold

DERIVED = {"train.init_from": ("train", "init_sha256")}
"""What a filled recipe adds to a key, and what therefore goes with it."""


@dataclass
class Document:
    """A merged tree of values and the source of each leaf."""

    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, Source] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)  # for the command line; copies share the list

    @classmethod
    def from_tree(cls, tree: dict[str, Any], name: str) -> Document:
        """Return a document of values that are not from a recipe file, e.g. a checkpoint's; `name` is their source."""
        document = cls()
        document.merge(tree, Source(name, None, Path.cwd()))
        return document

    def copy(self) -> Document:
        """Return a copy that can be merged into without changing this one."""
        return Document(copy.deepcopy(self.tree), dict(self.origins), self.warnings)

    def origin(self, path: KeyPath) -> Source | None:
        """Return the source of a path, or else of its nearest parent or child."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
            below = [key for key in self.origins if key[:length] == path[:length]]
            if below:
                return self.origins[below[-1]]
        return None

    def place(self, path: KeyPath) -> str:
        """Return the place of a path: "file:line" or the flag; "" for a default."""
        source = self.origin(path)
        return source.place(path) if source else ""

    def merge(self, patch: dict[str, Any], source: Source) -> None:
        """Merge a patch over the document, after removing the keys that its `drop` lists.

        Raises:
            UserError: `drop` names a key that is not inherited.
        """
        patch = dict(patch)
        dropped = patch.pop("drop", [])
        if not isinstance(dropped, list) or not all(isinstance(name, str) for name in dropped):
            raise UserError(f'{source.place(("drop",))}: drop: must be a list of names, e.g. ["scheduler"].')
        for name in dropped:
            self._drop(tuple(name.split(".")), source)
            derived = DERIVED.get(name)
            if derived is not None and derived[1] in self.tree.get(derived[0], {}):
                self._drop(derived, source)
        for name, value in patch.items():
            self.tree[name] = self._merged(self.tree.get(name), value, (name,), source)

    def _drop(self, path: KeyPath, source: Source) -> None:
        *above, name = path
        node: Any = self.tree
        for part in above:
            node = node.get(_matching_key(node, part)) if isinstance(node, dict) else None
        found: list[Any]
        registry = list_of(tuple(above))
        if registry is not None and isinstance(node, list):
            node[:] = self._spread(node, tuple(above), registry)
            found = _places(node, name, registry)
            known = [key for item in node if isinstance(item, dict) for key in item]
        else:
            found = [key for key in node if fold(key) == fold(name)] if isinstance(node, dict) else []
            known = list(node) if isinstance(node, dict) else []
        if not found:
            text = f"drop: nothing called '{'.'.join(path)}' is inherited. {suggest(name, known) if known else ''}"
            raise UserError(f"{source.place(('drop',))}: {text.rstrip()}")
        for key in reversed(found):
            del node[key]
            self._forget((*above, str(key)))
            if isinstance(key, int):
                self._move(tuple(above), key, -1)

    def _forget(self, path: KeyPath) -> None:
        for key in [key for key in self.origins if key[: len(path)] == path]:
            del self.origins[key]

    def _merged(self, base: Any, patch: Any, path: KeyPath, source: Source) -> Any:
        """Return `patch` merged over `base` at `path`, and record the source of what changed."""
        had = base is not None  # its origins are outdated once it is replaced
        one, registry = slot_of(path)
        if registry is not None and (one or not isinstance(patch, list)):
            patch = _canonical(patch, registry)
            if one and not (isinstance(base, dict) and isinstance(patch, dict) and list(base) == list(patch)):
                base = None
        listed = list_of(path)
        if listed is not None and isinstance(base, list | None) and isinstance(patch, dict):
            return self._into_components(base or [], patch, path, source, listed)
        if isinstance(base, list) and isinstance(patch, dict) and patch and all(map(_is_index, patch)):
            return self._into_list(base, patch, path, source)
        if isinstance(patch, dict):
            if not isinstance(base, dict):
                if had:
                    self._forget(path)
                base = {}
            if not patch:
                self.origins.setdefault(path, source)
            return base | {
                name: self._merged(base.get(name), value, (*path, name), source) for name, value in patch.items()
            }
        if had:
            self._forget(path)
        self.origins[path] = source
        if isinstance(patch, str) and is_file_path(path):
            return str((source.folder / patch).resolve())
        return copy.deepcopy(patch)

    def _into_components(
        self, base: list[Any], patch: dict[str, Any], path: KeyPath, source: Source, registry: Registry
    ) -> list[Any]:
        """Merge components, by name or index, into a list of them; those that it lacks are put before it, in order.

        An index is that of the list as it was.
        """
        by_index = {name: value for name, value in patch.items() if _is_index(name)}
        by_name = {name: value for name, value in patch.items() if name not in by_index}
        result = self._into_list(self._spread(base, path, registry), by_index, path, source)
        new = _canonical({name: None for name in by_name if not _places(result, name, registry)}, registry)
        self._move(path, 0, len(new))
        result = [*({name: None} for name in new), *result]
        for name, value in by_name.items():
            place = self._only_place(result, name, path, source, registry)
            named = dataclasses.replace(source, named=True)
            result[place] = self._merged(result[place], {name: value}, (*path, str(place)), named)
        return result

    def _only_place(self, components: list[Any], name: str, path: KeyPath, source: Source, registry: Registry) -> int:
        """Return where a list has a component.

        Raises:
            UserError: it has several of that name.
        """
        place, *more = _places(components, name, registry)
        if more:
            here, example = ".".join((*path, name)), ".".join((*path, str(place), name))
            raise UserError(
                f"{source.place((*path, name))}: {here}: the list has it {len(more) + 1} times. Say which by its "
                f"place, counted from 0, as in {example}."
            )
        return place

    def _spread(self, components: list[Any], path: KeyPath, registry: Registry) -> list[Any]:
        """Return components by their registered names, and record the source of each of their values by itself."""
        components = [_canonical(item, registry) for item in components]
        source = self.origins.pop(path, None)
        if source is not None:
            for place, item in enumerate(components):
                self.origins |= dict.fromkeys(_leaves(item, (*path, str(place))), source)
        return components

    def _move(self, path: KeyPath, first: int, by: int) -> None:
        """Record that the components of a list from `first` on have another place."""
        moved = [key for key in self.origins if len(key) > len(path) and key[: len(path)] == path]
        for key, source in [(key, self.origins.pop(key)) for key in moved if int(key[len(path)]) >= first and by]:
            place = str(int(key[len(path)]) + by)
            self.origins[*path, place, *key[len(path) + 1 :]] = dataclasses.replace(source, moved=source.moved + by)

    def _into_list(self, base: list[Any], patch: dict[str, Any], path: KeyPath, source: Source) -> list[Any]:
        result = list(base)
        for index, value in patch.items():
            if int(index) >= len(result):
                key = ".".join((*path, index))
                raise UserError(
                    f"{source.place((*path, index))}: {key}: the list has {len(result)} items, counted from 0."
                )
            result[int(index)] = self._merged(result[int(index)], value, (*path, index), source)
        return result


def _is_index(name: str) -> bool:
    return re.fullmatch("0|[1-9][0-9]{0,5}", name) is not None


def _leaves(node: Any, path: KeyPath) -> Iterator[KeyPath]:
    """Yield the path of each value in a tree."""
    if isinstance(node, dict) and node:
        for name, value in node.items():
            yield from _leaves(value, (*path, name))
    else:
        yield path


def _matching_key(node: Any, name: str) -> str | None:
    return next((key for key in node if fold(key) == fold(name)), None) if isinstance(node, dict) else None


def _places(components: list[Any], name: str, registry: Registry) -> list[int]:
    """Return where a list has a component."""
    wanted = next(iter(_canonical({name: {}}, registry)))
    items = (_canonical(item, registry) for item in components)
    return [place for place, item in enumerate(items) if isinstance(item, dict) and list(item) == [wanted]]


def _canonical(patch: Any, registry: Registry) -> Any:
    """Return a table of components with their registered names; a bare name becomes a table."""
    if isinstance(patch, str):
        patch = {patch: {}}
    if not isinstance(patch, dict):
        return patch
    return {registry[name].name if name in registry else name: value for name, value in patch.items()}
