"""The merged layers of a recipe: files, overlays, flags, variants."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segkit import files, plugins
from segkit.errors import UserError, sentence, suggest, truncate
from segkit.files import display_path
from segkit.recipe import toml
from segkit.recipe.paths import KeyPath, is_file_path, list_of, parse_path, slot_of, tree_at
from segkit.recipe.source import Source
from segkit.registry.registry import Registry
from segkit.registry.slot import fold

MAX_BYTES = 1_000_000
MAX_CHAIN = 32  # files that extend one another


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
        for name, value in patch.items():
            self.tree[name] = self._merged(self.tree.get(name), value, (name,), source)

    def _drop(self, path: KeyPath, source: Source) -> None:
        node: Any = self.tree
        for part in path[:-1]:
            node = node.get(_matching_key(node, part)) if isinstance(node, dict) else None
        last = _matching_key(node, path[-1])
        if last is None:
            known = suggest(path[-1], node) if isinstance(node, dict) else ""
            raise UserError(f"{source.place(('drop',))}: drop: nothing called '{'.'.join(path)}' is inherited. {known}")
        del node[last]
        self._forget((*path[:-1], last))

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
        if listed is not None and isinstance(base, list | None) and isinstance(patch, dict) and patch:
            return self._into_components(base or [], patch, path, source, listed)
        if isinstance(base, list) and isinstance(patch, dict) and patch and all(key.isdigit() for key in patch):
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
        """Merge components, by name or index, into a list of them; those that it lacks are put before it, in order."""
        new = {name: value for name, value in patch.items() if not name.isdigit() and not _places(base, name, registry)}
        if new:
            self._move(path, len(new))
        result = [*({name: None} for name in _canonical(new, registry)), *base]
        for name, value in patch.items():
            if name.isdigit():
                result = self._into_list(result, {name: value}, path, source)
                continue
            first, *more = _places(result, name, registry)
            if more:
                text = (
                    f"the list has it {len(more) + 1} times: choose one by its place, from 0, as in {path[-1]}.{first}"
                )
                raise UserError(f"{source.place((*path, name))}: {'.'.join((*path, name))}: {text}.")
            named = dataclasses.replace(source, named=True)
            result[first] = self._merged(result[first], {name: value}, (*path, str(first)), named)
        return result

    def _move(self, path: KeyPath, count: int) -> None:
        """Record that components are put before those of a list."""
        for key in [key for key in self.origins if key[: len(path)] == path]:
            source = self.origins.pop(key)
            if len(key) > len(path):
                key = (*path, str(int(key[len(path)]) + count), *key[len(path) + 1 :])
            self.origins[key] = dataclasses.replace(source, before=source.before + count)

    def _into_list(self, base: list[Any], patch: dict[str, Any], path: KeyPath, source: Source) -> list[Any]:
        result = list(base)
        for index, value in patch.items():
            if int(index) >= len(result):
                key = ".".join((*path, index))
                raise UserError(f"{source.place(path)}: {key}: the list has {len(result)} items, counted from 0.")
            result[int(index)] = self._merged(result[int(index)], value, (*path, index), source)
        return result


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


def read_file(path: Path, flag: str = "") -> tuple[dict[str, Any], Source]:
    """Read one TOML file; `flag` is the flag that names it, e.g. "--with laptop.toml".

    Raises:
        UserError: the file is missing, unreadable, too large, empty, or not valid TOML.
    """
    name = display_path(path)
    if not os.path.lexists(path):
        near = suggest(path.name, [p.name for p in path.parent.glob("*.toml")]) if path.parent.is_dir() else ""
        raise UserError(f"{name}: no such recipe. {near}".rstrip())
    text = files.read_text(path, MAX_BYTES)
    try:
        tree = toml.read(text)
    except files.UnreadableError as error:
        place = f"{name}:{error.line}" if error.line else name
        raise UserError(f"{place}: {error}.") from None
    if not tree:
        raise UserError(f"{name}: is empty. A recipe has tables such as [data], [model] and [train].")
    return tree, Source(name, text, path.resolve().parent, flag=flag)


def merge_file(document: Document, path: Path, flag: str = "", chain: tuple[Path, ...] = ()) -> None:
    """Merge a file over the document, after the file that it extends.

    Raises:
        UserError: a file cannot be read, extends itself, or the chain of files is too long.
    """
    patch, source = read_file(path, flag)
    chain = (*chain, path.resolve())
    base = patch.pop("extends", None)
    if base is not None:
        place = source.place(("extends",))
        if not isinstance(base, str) or not base or "\0" in base:
            raise UserError(f'{place}: extends: must be the name of one file, as in extends = "baseline.toml".')
        target = source.folder / base
        if target.resolve() in chain:
            raise UserError(f"{place}: extends: '{base}' extends this file in turn.")
        if len(chain) >= MAX_CHAIN:
            raise UserError(
                f"{place}: extends: a chain of more than {MAX_CHAIN} files, from {display_path(chain[0])} to "
                f"{display_path(target)}: use fewer."
            )
        if not os.path.lexists(target):
            raise UserError(f"{place}: extends: no such file: {display_path(target)}.")
        merge_file(document, target, flag, chain)
    document.merge(patch, source)


def compose(path: str | Path, *, overlays: Iterable[str | Path] = (), sets: Iterable[str] = ()) -> Document:
    """Return the merged layers of a recipe: `extends`, the file, each overlay, each setting."""
    plugins.load()
    document = Document()
    merge_file(document, Path(path))
    for overlay in overlays:
        merge_file(document, Path(overlay), flag=f"--with {overlay}")
    for assignment in sets:
        apply_setting(document, assignment)
    return document


def apply_setting(document: Document, assignment: str) -> None:
    """Apply one `--set path=value`; see `parse_setting`."""
    flag, path, value = parse_setting(assignment)
    document.merge(tree_at(path, value), Source(flag, None, Path.cwd(), flag=flag))


def parse_setting(assignment: str) -> tuple[str, KeyPath, Any]:
    """Parse one `--set path=value` into the flag as typed, the path and the value: TOML, or a bare word.

    Raises:
        UserError: the assignment has no `=`, no path or no value; it names the flag.
    """
    flag = f"--set {truncate(assignment, 200)}"
    name, equals, text = assignment.partition("=")
    if not equals or not name.strip():
        raise UserError(f"{flag}: must be path=value, as in --set loss.dice_mix.lambda=0.6.")
    if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in assignment):  # bytes that are not UTF-8
        raise UserError(f"{flag}: not text in UTF-8.")
    try:
        path = parse_path(name.strip())
    except ValueError as error:
        raise UserError(f"{flag}: {sentence(error)}") from None
    return flag, path, _parse_value(flag, text.strip())


def _parse_value(flag: str, text: str) -> Any:
    if not text:
        raise UserError(f"{flag}: has no value. Write an empty string as '\"\"'.")
    try:
        tree = toml.read(f"value = {text}")
        if len(tree) == 1:
            return tree["value"]
    except files.UnreadableError as error:
        if "TOML" not in str(error):
            raise UserError(f"{flag}: {sentence(error)}") from None
    if text[0] in "[{\"'" or "\n" in text:
        raise UserError(f"{flag}: the value is not valid TOML: {truncate(text)}")
    return text
