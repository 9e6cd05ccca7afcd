"""Load plugin files, folders and entry points: isolated, rolled back, reported, hashed.

Order: `plugins/` of the working directory, each `--plugins DIR` as given, then the entry points of the group
`segkit.plugins` by name; within a folder by file name. Every file becomes a module of the package `segkit_plugins`,
so that worker processes find its objects again. Names that start with `_`, `.` or `test_` are left alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segkit.components import REGISTRIES
from segkit.errors import UserError
from segkit.files import display_path
from segkit.plugins.failures import Failure, explain_failure
from segkit.plugins.sources import module_parts, sources_of, write_sources
from segkit.registry.component import Component, Entry
from segkit.registry.source import PACKAGE

GROUP = "segkit.plugins"


@dataclass(frozen=True)
class Plugin:
    """A loaded plugin: its module, its origin, its sources by module name, and its components."""

    module: str
    origin: str
    sources: dict[str, str]
    components: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """The hash of all its sources."""
        text = "".join(f"{name}\0{source}\0" for name, source in sorted(self.sources.items()))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class State:
    """The plugins that this process has loaded, by module, or failed to load, by origin."""

    loaded: dict[str, Plugin] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)


state = State()


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Run the block without plugins, as tests do; afterwards restore registries, modules and the loaded plugins."""
    global state
    kept, entries = state, [(registry, registry.snapshot()) for registry in REGISTRIES]
    modules = _take_modules()
    for registry, found in entries:
        registry.restore({key: e for key, e in found.items() if not any(_owns(name, e) for name in kept.loaded)})
    state = State()
    try:
        yield
    finally:
        _take_modules()
        sys.modules.update(modules)
        state = kept
        for registry, found in entries:
            registry.restore(found)


def _take_modules() -> dict[str, types.ModuleType]:
    names = [name for name in sys.modules if name.partition(".")[0] == PACKAGE]
    return {name: sys.modules.pop(name) for name in names}


def loaded() -> list[Plugin]:
    """Return the plugins that loaded, in load order."""
    return list(state.loaded.values())


def failures() -> list[Failure]:
    """Return the plugins that failed, in load order."""
    return list(state.failures.values())


def folders() -> list[str]:
    """Return the folders and files that were loaded, for a worker process to pass to `load`."""
    return list(state.folders)


def load(extra: Iterable[str | Path] = (), *, entry_points: bool = True) -> list[Failure]:
    """Load the plugins of `plugins/`, of the `extra` folders or files, and of installed packages; once each.

    A broken plugin affects no other; the failures so far are returned.

    Raises:
        UserError: one of `extra` is not a folder and not a Python file.
    """
    places = [Path("plugins")] if Path("plugins").is_dir() else []
    for name in extra:
        place = Path(name)
        if not place.is_dir() and not (place.is_file() and place.suffix == ".py"):
            raise UserError(f"{place}: no such plugin folder or .py file.")
        places.append(place)
    for place in places:
        for path in _files(place):
            load_one(path, place if place.is_dir() else place.parent)
        where = os.path.abspath(place)  # a link keeps its name, which is also that of the module in worker processes
        if where not in state.folders:
            state.folders.append(where)
    if entry_points:
        for point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda point: point.name):
            _load_module(point.module, f"{point.dist.name if point.dist else point.module} ({point.value})", None)
    return failures()


def load_file(path: str | Path) -> Plugin:
    """Load one plugin, a file or the folder of a package, and return it, e.g. in a plugin's test.

    Raises:
        UserError: there is no such file, or it does not load.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such plugin.")
    load_one(path, path.parent)
    for plugin in loaded():
        if sys.modules[plugin.module].__file__ == str(_own_file(path)):
            return plugin
    raise UserError(str(state.failures[display_path(path)]))


def load_sources(carried: Sequence[Mapping[str, Any]], folder: Path) -> list[Failure]:
    """Load the plugins of a trusted checkpoint, each with its `module` and `sources`; return those that failed.

    Their sources are written into `folder`, never outside it; it may be removed afterwards.

    Raises:
        UserError: a module name is invalid, or a plugin's own source is missing.
    """
    places = [write_sources(plugin["sources"], PACKAGE, folder) for plugin in carried]
    before = set(state.failures)
    for plugin, files in zip(carried, places, strict=True):
        if plugin["module"] not in files:
            raise UserError(f"the checkpoint lacks the source of its plugin '{plugin['module']}'.")
        path = files[plugin["module"]]
        load_one(path.parent if path.name == "__init__.py" else path, folder)
    for file in (file for files in places for file in files.values() if not file.name.startswith("test_")):
        with contextlib.suppress(Exception, SystemExit):  # functions may import it later, when the folder is gone
            importlib.import_module(".".join([PACKAGE, *module_parts(file, folder)]))
    return [found for origin, found in state.failures.items() if origin not in before]


def _skipped(path: Path) -> bool:
    return path.name.startswith(("_", ".", "test_")) or path.name in ("conftest.py", "tests")


def _files(place: Path) -> list[Path]:
    """Return the plugin files and packages of a folder, and the files of sub-folders that are not packages."""
    if place.is_file():
        return [place]
    found: list[Path] = []
    for path in sorted(place.iterdir(), key=lambda path: path.name):
        if _skipped(path):
            continue
        if path.is_dir() and not (path / "__init__.py").exists():
            found += [file for file in sorted(path.glob("*.py")) if not _skipped(file)]
        elif path.is_dir() or path.suffix == ".py":
            found.append(path)
    return found


def _own_file(path: Path) -> Path:
    return (path / "__init__.py" if path.is_dir() else path).resolve()


def load_one(path: Path, folder: Path) -> None:
    """Import one file or package of a plugin folder under its own module name; failures are recorded, not raised."""
    package = sys.modules.get(PACKAGE)
    if package is None:
        package = types.ModuleType(PACKAGE, "Plugins, each under a module name that worker processes find again.")
        package.__path__ = []
        sys.modules[PACKAGE] = package
    if str(folder.resolve()) not in package.__path__:
        package.__path__.append(str(folder.resolve()))
    importlib.invalidate_caches()
    origin = display_path(path)
    try:
        file = _own_file(path)
    except (OSError, RuntimeError):
        state.failures[origin] = Failure(origin, None, "it is a link that leads to itself")
        return
    if any(getattr(sys.modules.get(name), "__file__", None) == str(file) for name in state.loaded):
        return
    parts = module_parts(path, folder)
    name = ".".join([PACKAGE, *parts])
    odd = next((part for part in parts if not part.isidentifier()), None)
    known = getattr(sys.modules.get(name), "__file__", None) or str(file)
    if odd is not None:
        better = re.sub(r"\W", "_", f"plugin_{odd}" if odd[0].isdigit() else odd)
        state.failures[origin] = Failure(origin, None, f"'{odd}' is not a Python name; rename it, e.g. to {better}")
    elif known != str(file):
        text = f"another plugin file has the same name: {known}. Rename one of them."
        state.failures[origin] = Failure(origin, None, text)
    else:
        _load_module(name, origin, file)


def _load_module(name: str, origin: str, file: Path | None) -> None:
    """Import a module; on any failure, `sys.exit` included, undo its registrations and record the reason."""
    if name in state.loaded or origin in state.failures:
        return
    before = [(registry, registry.snapshot()) for registry in REGISTRIES]
    modules = set(sys.modules)
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        _import(name, file)
        sources = sources_of(name)
    except BaseException as error:
        for registry, entries in before:
            registry.restore(entries)
        # other modules of its package have lost their registrations too, and must be imported again
        for key in set(sys.modules) - modules:
            if key.split(".")[0] == name.split(".")[0]:
                del sys.modules[key]
        if isinstance(error, KeyboardInterrupt):
            raise
        state.failures[origin] = explain_failure(error, name, origin, file)
        return
    finally:
        sys.dont_write_bytecode = bytecode
    own = [entry for registry in REGISTRIES for entry in registry.snapshot().values() if _owns(name, entry)]
    state.loaded[name] = Plugin(name, origin, sources, tuple(f"{entry.slot.name}.{entry.name}" for entry in own))


def _import(name: str, file: Path | None) -> None:
    """Import a module once, from the given file even if others have its name."""
    if file is None or name in sys.modules:
        importlib.import_module(name)
        return
    above, _, last = name.rpartition(".")
    parent = importlib.import_module(above)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None, "a .py file has a spec"
    assert spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    setattr(parent, last, module)


def _owns(module: str, entry: Entry) -> bool:
    """Return whether a component is from a plugin's file or package, or anywhere in an installed package."""
    own = entry.factory.__module__
    if module.startswith(PACKAGE + "."):
        return own == module or own.startswith(module + ".")
    return own.split(".")[0] == module.split(".")[0]


def used_by(components: Iterable[Component]) -> list[Plugin]:
    """Return the plugins from which the given components come."""
    entries = [component.entry for component in components]
    return [plugin for plugin in loaded() if any(_owns(plugin.module, entry) for entry in entries)]


def changed_plugins(meta: Mapping[str, Any]) -> list[str]:
    """Return a line for each loaded plugin whose source differs from the one the checkpoint was trained with."""
    here = {plugin.module: plugin for plugin in loaded()}
    return [
        f"plugin {here[plugin['module']].origin} differs from the one this checkpoint was trained with "
        f"(sha256 {here[plugin['module']].sha256[:12]}, was {plugin['sha256'][:12]})"
        for plugin in meta["plugins"]
        if plugin["module"] in here and here[plugin["module"]].sha256 != plugin["sha256"]
    ]
