"""The sources of a plugin: collected by following its imports, and written to a folder again from a checkpoint.

A plugin includes everything that it imports from its own folder, at import or later.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from segkit.errors import UserError, counted


def sources_of(name: str) -> dict[str, str]:
    """Return the sources of a loaded module, of all files below it, and of their imports from the same top package.

    The module is first. Modules without Python source (extension modules) are left out.

    Raises:
        SyntaxError, UnicodeDecodeError: a file is not valid Python.
    """
    found: dict[str, str] = {}
    waiting = [name]
    while waiting:
        module = waiting.pop(0)
        path = _file(module)
        if module in found or path is None:
            continue
        found[module] = text = importlib.util.decode_source(path.read_bytes())
        package = path.name == "__init__.py"
        if package and module.startswith(name):
            below = sorted(path.parent.rglob("*.py"))
            waiting += [".".join([module, *module_parts(file, path.parent)]) for file in below]
        scope = module.split(".")[0]
        mentioned = sorted(_imported(module, text, package))
        waiting += [other for other in _with_parents(mentioned) if other.split(".")[0] == scope]
        waiting += _with_parents([module])
    return found


def module_parts(path: Path, folder: Path) -> list[str]:
    """Return the parts of the module name of a file or package below a folder, or of a link there to one elsewhere."""
    real, root = path.resolve(), folder.resolve()
    if not real.is_relative_to(root):
        real, root = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    parts = real.relative_to(root).with_suffix("").parts
    return [part for part in parts if part != "__init__"]


def _with_parents(modules: list[str]) -> list[str]:
    """Return modules, each after its parent packages, which importing it runs."""
    return [".".join(parts[:end]) for parts in (m.split(".") for m in modules) for end in range(1, len(parts) + 1)]


def _file(module: str) -> Path | None:
    """Return the Python file of a module, loaded or not, without importing anything."""
    loaded = getattr(sys.modules.get(module), "__file__", None)
    if loaded:
        return Path(loaded) if loaded.endswith(".py") else None
    top, *parts = module.split(".")
    for root in getattr(sys.modules.get(top), "__path__", []):
        for path in (Path(root, *parts, "__init__.py"), Path(root, *parts[:-1], (parts or ["__init__"])[-1] + ".py")):
            if path.is_file():
                return path
    return None


def _imported(module: str, text: str, package: bool) -> Iterator[str]:
    """Yield the full names of the modules that a source may import."""
    inside = module if package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = inside.split(".")[: len(inside.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def write_sources(sources: Mapping[str, str], package: str, folder: Path) -> dict[str, Path]:
    """Write sources by module name into the folder of a package, none outside it; return the file of each.

    Raises:
        UserError: a name is not a module name; nothing is written then.
    """
    places: dict[str, Path] = {}
    for module in sources:
        parts = module.split(".")
        if parts[0] == package:
            parts = parts[1:]
        if not parts or not all(part.isidentifier() for part in parts):
            raise UserError(f"the checkpoint names a plugin module '{module}', which is not a module name.")
        holds_others = any(other.startswith(module + ".") for other in sources)
        places[module] = (
            folder.joinpath(*parts, "__init__.py") if holds_others else folder.joinpath(*parts[:-1], f"{parts[-1]}.py")
        )
    for module, path in places.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(sources[module], encoding="utf-8")
    return places


def how_to_get(offered: Sequence[Mapping[str, Any]]) -> str:
    """Return what to do about plugins inside a checkpoint that are not loaded; "" if there are none."""
    if not offered:
        return ""
    listed = ""
    for plugin in offered:
        size = sum(len(text.splitlines()) for text in plugin["sources"].values())
        listed += f"    {plugin['origin']} ({counted(size, 'line')}, sha256 {plugin['sha256'][:12]})\n"
    return (
        f"\n  The checkpoint was trained with plugins that are not installed:\n{listed}"
        "  Put them into plugins/, or run the copies inside the checkpoint with --trust-plugins;\n"
        "  `segkit info CHECKPOINT --sources` prints what would run."
    )
