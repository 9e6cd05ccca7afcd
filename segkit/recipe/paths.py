"""The paths of a recipe, such as loss.dice_mix.lambda: their syntax, and which components they hold."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

from segkit.components import SEVERAL, SINGLE
from segkit.components.postprocess import postprocessors
from segkit.components.transforms import transforms
from segkit.errors import truncate
from segkit.files import UnreadableError
from segkit.recipe import toml
from segkit.registry.component import Entry
from segkit.registry.registry import Registry
from segkit.registry.signatures import annotation_parts

KeyPath = tuple[str, ...]
POSTPROCESS = ("evaluation", "postprocess")


def slot_of(path: KeyPath) -> tuple[bool, Registry | None]:
    """Return whether `path` holds exactly one component, and the registry of its component or components, if any."""
    if len(path) == 1:
        single = SINGLE.get(path[0])
        return single is not None, single or SEVERAL.get(path[0])
    listed = list_of(path[:2])
    if listed is not None and len(path) >= 3:
        return _nested(listed, path[3:])
    registry = SINGLE.get(path[0]) or SEVERAL.get(path[0])
    return _nested(registry, path[1:]) if registry else (False, None)


def list_of(path: KeyPath) -> Registry | None:
    """Return the registry of the components whose list `path` is, if it is one."""
    if path == POSTPROCESS:
        return postprocessors
    return transforms if len(path) == 2 and path[0] == "transforms" else None


def without_place(path: KeyPath) -> KeyPath:
    """Return a path without the place of a component in its list, which others may move."""
    return (*path[:2], *path[3:]) if len(path) > 3 and list_of(path[:2]) is not None and path[2].isdigit() else path


def _nested(registry: Registry, path: KeyPath) -> tuple[bool, Registry | None]:
    """Follow (name, parameter, name, parameter, ...) to the registry of a nested component."""
    if not path:
        return True, registry
    if len(path) < 2 or path[0] not in registry:
        return False, None
    annotation = _annotation(registry[path[0]], path[1])
    inner = next((part for part in annotation_parts(annotation) if isinstance(part, Registry)), None)
    end = 3 if typing.get_origin(annotation) in (list, tuple) else 2  # after the index of an item, if it is a list
    return _nested(inner, path[end:]) if inner is not None and len(path) >= end else (False, None)


def _annotation(entry: Entry, parameter: str) -> Any:
    info = entry.fields.get(parameter)
    if info is None or not info.metadata:
        return info and info.annotation
    return typing.Annotated[(info.annotation, *info.metadata)]


def is_file_path(path: KeyPath) -> bool:
    """Return whether the parameter at `path` is a file or folder, which is relative to its recipe."""
    if path in (("split", "file"), ("train", "init_from")):
        return True
    registry = SINGLE.get(path[0]) or SEVERAL.get(path[0])
    if registry is None or len(path) != 3 or path[1] not in registry:
        return False
    return any(part is Path for part in annotation_parts(_annotation(registry[path[1]], path[2])))


def tree_at(path: KeyPath, value: Any) -> dict[str, Any]:
    """Return `{"a": {"b": value}}` for the path ("a", "b")."""
    for part in reversed(path):
        value = {part: value}
    return typing.cast(dict[str, Any], value)


def parse_path(text: str) -> KeyPath:
    """Split a dotted path as TOML does, respecting quotes.

    Raises:
        ValueError: it is not a path.
    """
    try:
        node: Any = toml.read(f"{text} = 0") if "\n" not in text else None
    except UnreadableError:
        node = None
    path: list[str] = []
    while isinstance(node, dict) and len(node) == 1:
        ((name, node),) = node.items()
        path.append(name)
    if node != 0 or not path:
        raise ValueError(f"'{truncate(text)}' is not a path such as loss.dice_mix.lambda")
    return tuple(path)
