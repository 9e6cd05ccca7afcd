"""New plugins from templates: a working component and its test."""

from __future__ import annotations

import importlib.resources
import importlib.util
import keyword
import re
import string
from pathlib import Path

from segkit import files
from segkit.components import registry_of
from segkit.errors import UserError
from segkit.registry.registry import Registry

SKIPPED = ("_", "test_")  # prefixes of files that are not loaded as plugins
TAKEN = ("conftest", "tests")


def new(slot: str, name: str, folder: Path) -> list[Path]:
    """Write `NAME.py`, a working component, and `test_NAME.py` into a folder; return the two paths.

    Raises:
        UserError: no such slot, an invalid name, or an existing file; nothing is written.
    """
    registry = registry_of(slot)
    _check_name(name, registry)
    kind = "test_data" if registry.name == "data" else "test"
    written = {folder / f"{name}.py": registry.name, folder / f"test_{name}.py": kind}
    for path in written:
        if path.exists():
            raise UserError(f"{path}: already exists. Choose another name, or remove it.")
    camel_case = "".join(part.capitalize() for part in name.split("_"))
    values = {"name": name, "Name": camel_case, "plural": registry.plural}
    templates = importlib.resources.files("segkit.plugins") / "templates"
    files.make_folder(folder)
    for path, template in written.items():
        text = (templates / f"{template}.py.txt").read_text(encoding="utf-8")
        files.write_text(path, string.Template(text).substitute(values))
    return list(written)


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
    """Return a valid name similar to `name`, or ""."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    plain = re.sub(r"[^a-z0-9]+", "_", parts.lower()).strip("_")
    plain = re.sub(r"^(test_)+", "", plain)
    if plain and (plain[0].isdigit() or keyword.iskeyword(plain) or plain in TAKEN or plain == name):
        plain = f"my_{plain}"
    return plain
