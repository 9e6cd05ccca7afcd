"""When two trainings are the same one, and what a training may change when it goes on."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from segkit import plugins
from segkit.recipe import Recipe

# raised whenever an unchanged recipe gives other numbers: trials of different numbers are never compared
TRAINING_NUMBER = 1

# what a trial's result does not depend on: another value is still the same trial
NOT_IDENTITY = (("title",), ("study",), ("train", "workers"), ("train", "save_every"), ("train", "device"))
# what a trial may change when it goes on
RESUMABLE = {".".join(path) for path in NOT_IDENTITY} | {"train.epochs"}


def identity(recipe: Recipe) -> str:
    """Return the hash that identifies a trial: its filled recipe and the sources of the plugins it uses."""
    tree = recipe.dump()
    for path in NOT_IDENTITY:
        node = tree
        for part in path[:-1]:
            node = node.get(part, {})
        node.pop(path[-1], None)
    hashes = sorted(plugin.sha256 for plugin in plugins.used_by(recipe.components()))
    text = json.dumps([tree, hashes], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """Return the keys in which two filled recipes differ, with both values."""
    before, now = _flat(old), _flat(new)
    return {
        key: f"was {before.get(key, 'not set')}, is now {now.get(key, 'not set')}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    }


def _is_resumable(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in RESUMABLE)


def in_the_way(changed: dict[str, str]) -> dict[str, str]:
    """Return those of `differences` with which a training cannot go on."""
    return {key: text for key, text in changed.items() if not _is_resumable(key)}


def _flat(node: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(node, dict) or not node:
        return {path: node}
    return {
        key: value for name, part in node.items() for key, value in _flat(part, f"{path}.{name}".lstrip(".")).items()
    }
