"""The layers of a recipe (files, overlays, flags, variants), merged, with the place where each value was written."""

from __future__ import annotations

import copy
import re
import tomllib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segkit import toml
from segkit.component import fold
from segkit.errors import UserError, suggest
from segkit.registry import Registry
from segkit.slots import is_file_path, slot_of

Path_ = tuple[str, ...]
MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Source:
    """Where values come from: a file, or a flag of the command line.

    Attributes:
        name: the file as shown, or the flag as typed.
        text: the file's text; None for a flag.
        folder: what relative paths are relative to.
        prefix: where in the file the values stand, e.g. ("study", "variants", "1").
    """

    name: str
    text: str | None
    folder: Path
    prefix: Path_ = ()

    def place(self, path: Path_) -> str:
        """Return "file:line" of a path, or the flag."""
        if self.text is None:
            return self.name
        line = toml.line_of(self.text, self.prefix + path)
        return f"{self.name}:{line}" if line else self.name

    def at(self, *prefix: str) -> Source:
        """Return the same source for values that stand under `prefix`."""
        return Source(self.name, self.text, self.folder, prefix)


@dataclass
class Document:
    """A merged tree of plain values and the source of each leaf."""

    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[Path_, Source] = field(default_factory=dict)

    def copy(self) -> Document:
        """Return a copy that can be merged into without changing this one."""
        return Document(copy.deepcopy(self.tree), dict(self.origins))

    def origin(self, path: Path_) -> Source | None:
        """Return the source of a path, or of the nearest value above or below it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
            below = [key for key in self.origins if key[:length] == path[:length]]
            if below:
                return self.origins[below[-1]]
        return None

    def place(self, path: Path_) -> str:
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

    def _drop(self, path: Path_, source: Source) -> None:
        node: Any = self.tree
        for part in path[:-1]:
            node = node.get(_match(node, part)) if isinstance(node, dict) else None
        last = _match(node, path[-1]) if isinstance(node, dict) else None
        if last is None:
            known = suggest(path[-1], node) if isinstance(node, dict) else ""
            raise UserError(f"{source.place(('drop',))}: drop: nothing called '{'.'.join(path)}' is inherited. {known}")
        del node[last]
        self._forget((*path[:-1], last))

    def _forget(self, path: Path_) -> None:
        for key in [key for key in self.origins if key[: len(path)] == path]:
            del self.origins[key]

    def _merged(self, base: Any, patch: Any, path: Path_, source: Source) -> Any:
        """Return the value of `path` when `patch` lies over `base`, and note the source of what changed."""
        one, registry = slot_of(path)
        if registry is not None and (one or not isinstance(patch, list)):
            patch = _canonical(patch, registry)
            if one and not (isinstance(base, dict) and isinstance(patch, dict) and list(base) == list(patch)):
                base = None
        if isinstance(base, list) and isinstance(patch, dict) and patch and all(key.isdigit() for key in patch):
            return self._into_list(base, patch, path, source)
        if isinstance(patch, dict):
            if not isinstance(base, dict):
                self._forget(path)
                base = {}
            if not patch:
                self.origins.setdefault(path, source)
            return base | {
                name: self._merged(base.get(name), value, (*path, name), source) for name, value in patch.items()
            }
        self._forget(path)
        self.origins[path] = source
        if isinstance(patch, str) and is_file_path(path):
            return str((source.folder / patch).resolve())
        return copy.deepcopy(patch)

    def _into_list(self, base: list[Any], patch: dict[str, Any], path: Path_, source: Source) -> list[Any]:
        result = list(base)
        for index, value in patch.items():
            if int(index) >= len(result):
                shown = ".".join((*path, index))
                raise UserError(f"{source.place(path)}: {shown}: the list has {len(result)} items, counted from 0.")
            result[int(index)] = self._merged(result[int(index)], value, (*path, index), source)
        return result


def _match(node: dict[str, Any], name: str) -> str | None:
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
    resolved = path.resolve()
    return str(resolved.relative_to(Path.cwd())) if resolved.is_relative_to(Path.cwd()) else str(path)


def read(path: Path) -> tuple[dict[str, Any], Source]:
    """Read one TOML file.

    Raises:
        UserError: the file is missing, unreadable, too long, or no TOML; with its line.
    """
    name = shown(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{name}: too large for a recipe (over {MAX_BYTES:,} bytes).")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        near = suggest(path.name, [p.name for p in path.parent.glob("*.toml")]) if path.parent.is_dir() else ""
        raise UserError(f"{name}: no such recipe. {near}".rstrip()) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not a text file in UTF-8 (byte {error.start}).") from None
    except OSError as error:
        raise UserError(f"{name}: cannot be read: {error.strerror}.") from None
    try:
        return tomllib.loads(text), Source(name, text, path.resolve().parent)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        line = found.group(1) if found else str(text.count("\n") + 1)
        reason = str(error).split(" (at ")[0]
        raise UserError(f"{name}:{line}: not valid TOML: {reason[0].lower()}{reason[1:]}.") from None
    except RecursionError:
        raise UserError(f"{name}: nested too deeply for a recipe.") from None


def lay(document: Document, path: Path, chain: tuple[Path, ...] = ()) -> None:
    """Lay a file over the document, what it extends first.

    Raises:
        UserError: a file cannot be read, or extends itself.
    """
    patch, source = read(path)
    chain = (*chain, path.resolve())
    base = patch.pop("extends", None)
    if base is not None:
        place = source.place(("extends",))
        if not isinstance(base, str):
            raise UserError(f"{place}: extends: should be one file name.")
        target = source.folder / base
        if target.resolve() in chain:
            raise UserError(f"{place}: extends: '{base}' extends this file in turn.")
        if not target.is_file():
            raise UserError(f"{place}: extends: no such file: {shown(target)}.")
        lay(document, target, chain)
    document.merge(patch, source)


def nest(path: Path_, value: Any) -> dict[str, Any]:
    """Return `{a: {b: value}}` for the path (a, b)."""
    for part in reversed(path):
        value = {part: value}
    return typing.cast(dict[str, Any], value)


def dotted(text: str) -> Path_:
    """Split a dotted path as TOML does, quotes respected.

    Raises:
        ValueError: it is no path.
    """
    try:
        node: Any = tomllib.loads(f"{text} = 0")
    except tomllib.TOMLDecodeError:
        raise ValueError(f"'{text}' is no path such as loss.dice_mix.lambda") from None
    path: list[str] = []
    while isinstance(node, dict) and len(node) == 1:
        ((name, node),) = node.items()
        path.append(name)
    if node != 0:
        raise ValueError(f"'{text}' is no path such as loss.dice_mix.lambda")
    return tuple(path)


def set_value(document: Document, assignment: str) -> None:
    """Apply one `--set path=value`; the value is TOML, and a bare word a string.

    Raises:
        UserError: the assignment has no `=` or no path; it names the flag.
    """
    flag, path, value = assigned(assignment)
    document.merge(nest(path, value), Source(flag, None, Path.cwd()))


def assigned(assignment: str) -> tuple[str, Path_, Any]:
    """Return the flag as typed, the path and the value of one `--set path=value`.

    Raises:
        UserError: the assignment has no `=` or no path; it names the flag.
    """
    flag = f"--set {assignment}"
    name, equals, text = assignment.partition("=")
    if not equals or not name.strip():
        raise UserError(f"{flag}: should be path=value, as in --set loss.dice_mix.lambda=0.6.")
    try:
        path = dotted(name.strip())
    except ValueError as error:
        raise UserError(f"{flag}: {error}.") from None
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        if text.strip()[:1] in ("[", "{", '"', "'"):
            raise UserError(f"{flag}: the value is not valid TOML: {text.strip()}") from None
        value = text.strip()
    return flag, path, value
