"""A new plugin from a template: a component that works, and its test beside it."""

from __future__ import annotations

import importlib.resources
import importlib.util
import keyword
import re
import string
from pathlib import Path

from segkit import files
from segkit.components import REGISTRIES
from segkit.errors import UserError, suggest
from segkit.registry.registry import Registry

SKIPPED = ("_", "test_")  # files whose names start so are not loaded as plugins
TAKEN = ("conftest", "tests")


def new(slot: str, name: str, folder: Path) -> list[Path]:
    """Write `NAME.py`, a working component, and `test_NAME.py` into a folder; return the two paths.

    Args:
        slot: one of the ten slots, singular or plural, e.g. "loss".
        name: of the component in recipes, and of the file.
        folder: created if missing; segkit loads `plugins`.

    Raises:
        UserError: no such slot, a name that is not valid, or a file that exists; nothing is written.
    """
    registry = _registry(slot)
    _check_name(name, registry)
    kind = "test_data" if registry.name == "data" else "test"
    written = {folder / f"{name}.py": registry.name, folder / f"test_{name}.py": kind}
    for path in written:
        if path.exists():
            raise UserError(f"{path}: already exists. Choose another name, or remove it.")
    values = {"name": name, "Name": _camel(name), "plural": registry.plural}
    files.make_folder(folder)
    for path, template in written.items():
        files.write_text(path, string.Template(_template(template)).substitute(values))
    return list(written)


def _registry(slot: str) -> Registry:
    known = {word: registry for registry in REGISTRIES for word in (registry.name, registry.plural)}
    if slot.lower() not in known:
        raise UserError(f"no slot is called '{slot}'. {suggest(slot, [registry.name for registry in REGISTRIES])}")
    return known[slot.lower()]


def _check_name(name: str, registry: Registry) -> None:
    """Raise unless `name` is valid for a component, a function and a file."""
    better = _better(name)
    hint = f" Did you mean '{better}'?" if better and better != name else ""
    if not name.isascii() or not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        raise UserError(f"'{name}' is not a valid plugin name: use lower-case letters, digits and '_'.{hint}")
    if name.startswith(SKIPPED) or name in TAKEN:
        raise UserError(f"'{name}' is not a valid plugin name: segkit does not load files with that name.{hint}")
    if name in registry:
        raise UserError(f"the {registry.name} '{name}' already exists ({registry[name].origin}). Choose another name.")
    if importlib.util.find_spec(name) is not None:
        raise UserError(f"'{name}' is the name of a Python module, which the test would import instead.{hint}")


def _better(name: str) -> str:
    """Return a valid name close to `name`, or "" if there is none."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    plain = re.sub(r"[^a-z0-9]+", "_", parts.lower()).strip("_")
    plain = re.sub(r"^(test_)+", "", plain)
    if plain and (plain[0].isdigit() or keyword.iskeyword(plain) or plain in TAKEN or plain == name):
        plain = f"my_{plain}"
    return plain


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _template(name: str) -> str:
    return (importlib.resources.files("segkit.plugins") / "templates" / f"{name}.py.txt").read_text(encoding="utf-8")
