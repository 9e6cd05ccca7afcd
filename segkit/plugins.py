"""Load plugin files, folders and entry points: isolated, rolled back, reported, hashed.

Order: `plugins/` of the working directory, each `--plugins DIR` as given, then the entry points of the group
`segkit.plugins` by name; within a folder by file name. Every file becomes a module of the package `segkit_plugins`,
so that worker processes find its objects again. Names that start with `_`, `.` or `test_` are left alone.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
import traceback
import types
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segkit.component import Component, Entry
from segkit.errors import UserError
from segkit.registry import Registry

PACKAGE = "segkit_plugins"
GROUP = "segkit.plugins"


@dataclass(frozen=True)
class Plugin:
    """A plugin that loaded: its module, where it came from, its sources by module name, what it registered."""

    module: str
    origin: str
    sources: dict[str, str]
    components: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """The hash of all its sources."""
        digest = hashlib.sha256()
        for name, source in sorted(self.sources.items()):
            digest.update(f"{name}\0{source}\0".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Failure:
    """A plugin that did not load: nothing that it registered stays."""

    origin: str
    line: int | None
    message: str

    def __str__(self) -> str:
        place = f"{self.origin}:{self.line}" if self.line else self.origin
        return f"{place}: {self.message}"


class _State:
    """What this process has loaded so far."""

    loaded: dict[str, Plugin]
    failures: dict[str, Failure]
    folders: list[str]

    def __init__(self) -> None:
        self.loaded, self.failures, self.folders = {}, {}, []


_state = _State()


def registries() -> list[Registry]:
    """Return the ten registries in the order of `segkit list`."""
    import segkit

    return [
        segkit.datasets,
        segkit.models,
        segkit.losses,
        segkit.regularizers,
        segkit.optimizers,
        segkit.schedulers,
        segkit.upsamplers,
        segkit.initializers,
        segkit.transforms,
        segkit.metrics,
    ]


def loaded() -> list[Plugin]:
    """Return the plugins that loaded, in load order."""
    return list(_state.loaded.values())


def failures() -> list[Failure]:
    """Return the plugins that failed, in load order."""
    return list(_state.failures.values())


def folders() -> list[str]:
    """Return the folders that were searched: what a worker process passes to `load` to find the same."""
    return list(_state.folders)


def load(extra: Iterable[str | Path] = (), *, entry_points: bool = True) -> list[Failure]:
    """Load the plugins of `plugins/`, of the `extra` folders or files, and of installed packages; once each.

    Returns:
        The failures so far; a broken plugin costs only itself.

    Raises:
        UserError: a folder named on purpose does not exist.
    """
    places = [Path("plugins")] if Path("plugins").is_dir() else []
    for name in extra:
        place = Path(name)
        if not place.exists():
            raise UserError(f"{place}: no such plugin folder or file.")
        places.append(place)
    for place in places:
        for path in _files(place):
            _load_file(path, place if place.is_dir() else place.parent)
        if place.is_dir() and str(place.resolve()) not in _state.folders:
            _state.folders.append(str(place.resolve()))
    if entry_points:
        for point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda point: point.name):
            _load_module(point.module, f"{point.dist.name if point.dist else point.module} ({point.value})")
    return failures()


def load_sources(sources: Sequence[dict[str, str]], folder: Path) -> list[Failure]:
    """Write plugin sources (module name to text, from a checkpoint that is trusted) into `folder` and load them."""
    for source in sources:
        for module, text in source.items():
            parts = module.split(".")
            if parts[0] == PACKAGE:
                parts = parts[1:]
            if not parts or not all(part.isidentifier() for part in parts):
                raise UserError(f"the checkpoint names a plugin module '{module}', which is no module name.")
            package = any(other.startswith(module + ".") for other in source)
            path = folder.joinpath(*parts, "__init__.py") if package else folder.joinpath(*parts).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for path in _files(folder):
        _load_file(path, folder)
    return failures()


def _skipped(path: Path) -> bool:
    return path.name.startswith(("_", ".", "test_")) or path.name in ("conftest.py", "tests")


def _files(place: Path) -> list[Path]:
    """Return the plugin files and packages of a folder: files, packages, and files of plain sub-folders."""
    if place.is_file():
        return [place]
    found: list[Path] = []
    for path in sorted(place.iterdir(), key=lambda path: path.name):
        if _skipped(path):
            continue
        if path.is_dir() and (path / "__init__.py").exists():
            found.append(path)
        elif path.is_dir():
            found.extend(file for file in sorted(path.glob("*.py")) if not _skipped(file))
        elif path.suffix == ".py":
            found.append(path)
    return found


def _load_file(path: Path, folder: Path) -> None:
    """Import one file or package of a plugin folder under a real module name."""
    package = sys.modules.get(PACKAGE)
    if package is None:
        package = types.ModuleType(PACKAGE, "Plugins, each under a module name that worker processes find again.")
        package.__path__ = []
        sys.modules[PACKAGE] = package
    if str(folder.resolve()) not in package.__path__:
        package.__path__.append(str(folder.resolve()))
        importlib.invalidate_caches()
    shown = path if not path.is_absolute() or not path.is_relative_to(Path.cwd()) else path.relative_to(Path.cwd())
    name = ".".join([PACKAGE, *path.resolve().relative_to(folder.resolve()).with_suffix("").parts])
    known = sys.modules.get(name)
    place = str((path / "__init__.py" if path.is_dir() else path).resolve())
    if known is not None and known.__file__ != place:
        text = f"another plugin file has the same name: {known.__file__}. Rename one of them."
        _state.failures[str(shown)] = Failure(str(shown), None, text)
        return
    _load_module(name, str(shown))


def _load_module(name: str, origin: str) -> None:
    """Import a module; on any failure, exit included, take back what it registered and remember why."""
    if name in _state.loaded or origin in _state.failures:
        return
    before = [(registry, registry.snapshot()) for registry in registries()]
    modules = set(sys.modules)
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        for registry, entries in before:
            registry.restore(entries)
        for key in set(sys.modules) - modules:
            if key == name or key.startswith(name + "."):
                del sys.modules[key]
        _state.failures[origin] = Failure(origin, _line(error, name), _explain(error))
        return
    finally:
        sys.dont_write_bytecode = bytecode
    new = [
        f"{registry.slot}.{entry.name}"
        for registry, entries in before
        for key, entry in registry.snapshot().items()
        if key not in entries and _owns(name, entry)
    ]
    _state.loaded[name] = Plugin(name, origin, _sources(name), tuple(new))


def _owns(module: str, entry: Entry) -> bool:
    return entry.factory.__module__ == module or entry.factory.__module__.startswith(module + ".")


def _sources(name: str) -> dict[str, str]:
    """Return the sources of a module and, for a package, of all its files."""
    module = sys.modules[name]
    if module.__file__ is None:
        return {}
    path = Path(module.__file__)
    if path.name != "__init__.py":
        return {name: path.read_text(encoding="utf-8")}
    found = {}
    for file in sorted(path.parent.rglob("*.py")):
        parts = file.relative_to(path.parent).with_suffix("").parts
        found[".".join([name, *(part for part in parts if part != "__init__")])] = file.read_text(encoding="utf-8")
    return found


def _line(error: BaseException, name: str) -> int | None:
    """Return the line of the plugin at which loading broke."""
    if isinstance(error, SyntaxError):
        return error.lineno
    spec = importlib.util.find_spec(name) if name.startswith(PACKAGE) else None
    origin = spec.origin if spec else None
    folder = str(Path(origin).parent) if origin and origin.endswith("__init__.py") else origin
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if folder and folder in frame.filename]
    return frames[-1].lineno if frames else None


def _explain(error: BaseException) -> str:
    """Say in one line why a plugin did not load."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({error.code!r}) when imported"
    if isinstance(error, SyntaxError):
        return f"it is not valid Python: {error.msg}"
    if isinstance(error, ModuleNotFoundError):
        return f"it needs the package '{error.name}', which is not installed"
    return f"{type(error).__name__} when imported: {error}"


def used_by(components: Iterable[Component]) -> list[Plugin]:
    """Return the plugins from which the given components come."""
    entries = [component.entry for component in components]
    return [plugin for plugin in loaded() if any(_owns(plugin.module, entry) for entry in entries)]
