"""The layers of a recipe (files, overlays, flags, variants), merged, with the place where each value was written."""

from __future__ import annotations

import copy
import os
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segkit import files
from segkit.errors import UserError, sentence, suggest, truncate
from segkit.recipe import toml
from segkit.recipe.paths import is_file_path, slot_of
from segkit.registry.registry import Registry
from segkit.registry.slot import fold

KeyPath = tuple[str, ...]
MAX_BYTES = 1_000_000
MAX_CHAIN = 32  # files that extend each other


@dataclass(frozen=True)
class Source:
    """Where values come from: a file, or a flag of the command line.

    Attributes:
        name: the file as shown, or the flag as typed.
        text: the file's text; None for a flag.
        folder: what relative paths are relative to.
        prefix: where in the file the values stand, e.g. ("study", "variants", "1").
        flag: the flag of the command line that laid the values over a recipe; "" for the recipe itself.
    """

    name: str
    text: str | None
    folder: Path
    prefix: KeyPath = ()
    flag: str = ""

    def place(self, path: KeyPath) -> str:
        """Return "file:line" of a path, or the flag."""
        if self.text is None:
            return self.name
        line = toml.line_of(self.text, self.prefix + path)
        return f"{self.name}:{line}" if line else self.name

    def at(self, *prefix: str) -> Source:
        """Return the same source for values that stand under `prefix`."""
        return Source(self.name, self.text, self.folder, prefix, self.flag)


@dataclass
class Document:
    """A merged tree of plain values and the source of each leaf.

    Attributes:
        tree: the values.
        origins: the source of each.
        warnings: about what is valid but seldom meant, for the command line to print; a copy of
            the document shares the list.
    """

    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, Source] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        """Note a warning, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def copy(self) -> Document:
        """Return a copy that can be merged into without changing this one."""
        return Document(copy.deepcopy(self.tree), dict(self.origins), self.warnings)

    def origin(self, path: KeyPath) -> Source | None:
        """Return the source of a path, or of the nearest value above or below it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
            below = [key for key in self.origins if key[:length] == path[:length]]
            if below:
                return self.origins[below[-1]]
        return None

    def place(self, path: KeyPath) -> str:
        """Return where a path was written: "file:line" or the flag; "" for a default."""
        source = self.origin(path)
        return source.place(path) if source else ""

    def merge(self, patch: dict[str, Any], source: Source) -> None:
        """Lay a patch over the document; its `drop` takes away first.

        Raises:
            UserError: `drop` names something that is not there.
        """
        patch = dict(patch)
        dropped = patch.pop("drop", [])
        if not isinstance(dropped, list) or not all(isinstance(name, str) for name in dropped):
            raise UserError(f'{source.place(("drop",))}: drop: should be a list of names, e.g. ["scheduler"].')
        for name in dropped:
            self._drop(tuple(name.split(".")), source)
        for name, value in patch.items():
            self.tree[name] = self._merged(self.tree.get(name), value, (name,), source)

    def _drop(self, path: KeyPath, source: Source) -> None:
        node: Any = self.tree
        for part in path[:-1]:
            node = node.get(_matching_key(node, part)) if isinstance(node, dict) else None
        last = _matching_key(node, path[-1]) if isinstance(node, dict) else None
        if last is None:
            known = suggest(path[-1], node) if isinstance(node, dict) else ""
            raise UserError(f"{source.place(('drop',))}: drop: nothing called '{'.'.join(path)}' is inherited. {known}")
        del node[last]
        self._forget((*path[:-1], last))

    def _forget(self, path: KeyPath) -> None:
        for key in [key for key in self.origins if key[: len(path)] == path]:
            del self.origins[key]

    def _merged(self, base: Any, patch: Any, path: KeyPath, source: Source) -> Any:
        """Return the value of `path` when `patch` lies over `base`, and note the source of what changed."""
        had = base is not None  # something whose origins are to be forgotten
        one, registry = slot_of(path)
        if registry is not None and (one or not isinstance(patch, list)):
            patch = _canonical(patch, registry)
            if one and not (isinstance(base, dict) and isinstance(patch, dict) and list(base) == list(patch)):
                base = None
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

    def _into_list(self, base: list[Any], patch: dict[str, Any], path: KeyPath, source: Source) -> list[Any]:
        result = list(base)
        for index, value in patch.items():
            if int(index) >= len(result):
                shown = ".".join((*path, index))
                raise UserError(f"{source.place(path)}: {shown}: the list has {len(result)} items, counted from 0.")
            result[int(index)] = self._merged(result[int(index)], value, (*path, index), source)
        return result


def _matching_key(node: dict[str, Any], name: str) -> str | None:
    return next((key for key in node if fold(key) == fold(name)), None)


def _canonical(patch: Any, registry: Registry) -> Any:
    """Return a component's table under registered names; a bare name becomes a table."""
    if isinstance(patch, str):
        patch = {patch: {}}
    if not isinstance(patch, dict):
        return patch
    return {registry[name].name if name in registry else name: value for name, value in patch.items()}


def shown(path: Path) -> str:
    """Return a path as messages show it: relative to the working directory where it lies below."""
    try:
        resolved, here = path.resolve(), Path.cwd()
    except (OSError, RuntimeError, ValueError):  # a link in a circle, a folder that is gone, a zero byte
        return str(path)
    return str(resolved.relative_to(here)) if resolved.is_relative_to(here) else str(path)


def read_file(path: Path, flag: str = "") -> tuple[dict[str, Any], Source]:
    """Read one TOML file.

    Args:
        path: the file.
        flag: the flag that it was given with, e.g. "--with laptop.toml".

    Raises:
        UserError: the file is missing, unreadable, too long, empty, or no TOML; with its line.
    """
    name = shown(path)
    if not os.path.lexists(path):
        near = suggest(path.name, [p.name for p in path.parent.glob("*.toml")]) if path.parent.is_dir() else ""
        raise UserError(f"{name}: no such recipe. {near}".rstrip())
    text = files.read_text(path, MAX_BYTES)
    try:
        tree = toml.read(text)
    except files.UnreadableError as error:
        place = f"{name}:{error.line}" if error.line else name
        raise UserError(f"{place}: {error}{'' if 'TOML' in str(error) else ', which no recipe needs'}.") from None
    if not tree:
        raise UserError(
            f"{name}: holds nothing: an empty file is no recipe. One has tables such as [data], [model] and [train]."
        )
    return tree, Source(name, text, path.resolve().parent, flag=flag)


def merge_file(document: Document, path: Path, flag: str = "", chain: tuple[Path, ...] = ()) -> None:
    """Lay a file over the document, what it extends first.

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
                f"{place}: extends: a chain of more than {MAX_CHAIN} files, from {shown(chain[0])} to "
                f"{shown(target)}: lay fewer files over each other."
            )
        if not os.path.lexists(target):
            raise UserError(f"{place}: extends: no such file: {shown(target)}.")
        merge_file(document, target, flag, chain)
    document.merge(patch, source)


def nested(path: KeyPath, value: Any) -> dict[str, Any]:
    """Return `{a: {b: value}}` for the path (a, b)."""
    for part in reversed(path):
        value = {part: value}
    return typing.cast(dict[str, Any], value)


def parse_path(text: str) -> KeyPath:
    """Split a dotted path as TOML does, quotes respected.

    Raises:
        ValueError: it is no path.
    """
    try:
        node: Any = toml.read(f"{text} = 0") if "\n" not in text else None
    except files.UnreadableError:
        node = None
    path: list[str] = []
    while isinstance(node, dict) and len(node) == 1:
        ((name, node),) = node.items()
        path.append(name)
    if node != 0 or not path:
        raise ValueError(f"'{truncate(text)}' is no path such as loss.dice_mix.lambda")
    return tuple(path)


def apply_setting(document: Document, assignment: str) -> None:
    """Apply one `--set path=value`; see `assigned`."""
    flag, path, value = parse_setting(assignment)
    document.merge(nested(path, value), Source(flag, None, Path.cwd(), flag=flag))


def parse_setting(assignment: str) -> tuple[str, KeyPath, Any]:
    """Return the flag as typed, the path, and the value of one `--set path=value`: TOML, or a bare word.

    Raises:
        UserError: the assignment has no `=`, no path or no value; it names the flag.
    """
    flag = f"--set {truncate(assignment, 200)}"
    name, equals, text = assignment.partition("=")
    if not equals or not name.strip():
        raise UserError(f"{flag}: should be path=value, as in --set loss.dice_mix.lambda=0.6.")
    if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in assignment):  # bytes that are no UTF-8
        raise UserError(f"{flag}: not text in UTF-8.")
    try:
        path = parse_path(name.strip())
    except ValueError as error:
        raise UserError(f"{flag}: {sentence(error)}") from None
    return flag, path, _parse_value(flag, text.strip())


def _parse_value(flag: str, text: str) -> Any:
    """Return what stands behind the "=" of a flag."""
    if not text:
        raise UserError(f"{flag}: has no value; an empty text is written '\"\"'.")
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
