"""The author's files of a component: which line raised, which line does what it should not."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from segkit.registry.signatures import code_of, where

PACKAGE = "segkit_plugins"  # the parent of all plugin modules
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
CHANGING = {"add", "append", "clear", "extend", "insert", "pop", "popleft", "remove", "setdefault", "update"}


class Source:
    """Where the code of a component stands.

    Args:
        factory: the function or class that was registered.
    """

    def __init__(self, factory: Callable[..., Any]) -> None:
        self.factory = factory = code_of(factory)
        self.definition = where(factory)
        try:
            self.file = inspect.getsourcefile(factory)
        except TypeError:
            self.file = None
        self.folder = _package(factory, self.file)

    def owns(self, filename: str) -> bool:
        """Return whether a file is the author's."""
        if self.folder is not None:
            return Path(filename).is_relative_to(self.folder)
        return filename == self.file

    def of_error(self, error: BaseException) -> str | None:
        """Return the last line of the author that an exception went through."""
        while error.__traceback__ is None and error.__cause__ is not None:
            error = error.__cause__
        own = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if self._owns(frame)]
        return shown(own[-1][0].f_code.co_filename, own[-1][1]) if own else None

    def _owns(self, frame: FrameType) -> bool:
        """Return whether a frame runs the author's code: this file or package, or one beside it that it uses."""
        if self.owns(frame.f_code.co_filename):
            return True
        parts = getattr(self.factory, "__module__", "").split(".")
        used = str(frame.f_globals.get("__name__")).split(".")
        return parts[0] == used[0] == PACKAGE and used[-1].startswith("_")

    def running(self) -> str | None:
        """Return the innermost line of the author that is being run."""
        frame = sys._getframe(1)
        while frame is not None:
            if self.owns(frame.f_code.co_filename):
                return shown(frame.f_code.co_filename, frame.f_lineno)
            frame = frame.f_back  # type: ignore[assignment]
        return None

    @functools.cached_property
    def module(self) -> ast.Module:
        """The parsed file, empty where there is no source."""
        try:
            return ast.parse(Path(self.file or "").read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError):
            return ast.Module([], [])

    @functools.cached_property
    def definitions(self) -> list[Definition]:
        """The component's definition, and those of the same file that it uses."""
        known = {node.name: node for node in self.module.body if isinstance(node, Definition)}
        found: dict[str, Definition] = {}
        open_names = [getattr(self.factory, "__name__", "")]
        while open_names:
            name = open_names.pop()
            if name in known and name not in found:
                found[name] = known[name]
                open_names.extend(node.id for node in ast.walk(known[name]) if isinstance(node, ast.Name))
        return list(found.values())

    def cuda_line(self) -> str | None:
        """Return the line that names a CUDA device, other than to ask whether it is one."""
        for definition in self.definitions:
            nodes = list(ast.walk(definition))
            asked = {id(part) for node in nodes if isinstance(node, ast.Compare) for part in ast.walk(node)}
            for node in nodes:
                if isinstance(node, (ast.Call, ast.Constant)) and id(node) not in asked and _names_cuda(node):
                    return self._at(node)
        return None

    def mentioning(self, names: Collection[str]) -> str | None:
        """Return the first line of the component that uses one of the names, alone or after a dot."""
        nodes = [node for definition in self.definitions for node in ast.walk(definition)]
        used = [node for node in nodes if isinstance(node, ast.Attribute) and node.attr in names]
        alone = [node for node in nodes if isinstance(node, ast.Name) and node.id in names]
        found: list[ast.expr] = [*used, *alone]
        return self._at(min(found, key=lambda node: node.lineno)) if found else None

    def state_line(self) -> str | None:
        """Return the first line that changes something which outlives a call."""
        names = set(_module_names(self.module))
        found = [node for definition in self.definitions for node in _keeping(definition, names)]
        return self._at(min(found, key=lambda node: node.lineno)) if found else None

    def _at(self, node: ast.stmt | ast.expr) -> str:
        return shown(self.file or "?", node.lineno)


def shown(filename: str, line: int | None) -> str:
    """Return "file:line", the file relative to the working directory where it is below it."""
    path = Path(filename)
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{line}"


def _package(factory: Callable[..., Any], file: str | None) -> Path | None:
    """Return the folder of a plugin that is a package."""
    parts = getattr(factory, "__module__", "").split(".")
    top = sys.modules.get(".".join(parts[:2])) if parts[0] == PACKAGE else None
    path = Path(top.__file__) if top is not None and top.__file__ else None
    return path.parent if file and path is not None and path.name == "__init__.py" else None


def _names_cuda(node: ast.Call | ast.Constant) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute) and node.func.attr == "cuda"
    return isinstance(node.value, str) and (node.value == "cuda" or node.value.startswith("cuda:"))


def _module_names(module: ast.Module) -> Iterator[str]:
    for node in module.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def _keeping(definition: Definition, names: set[str]) -> Iterator[ast.stmt | ast.expr]:
    """Yield what changes a module's name, or outside `__init__` an attribute of `self`."""
    if isinstance(definition, ast.ClassDef):
        for method in definition.body:
            if isinstance(method, Definition) and method.name != "__init__":
                yield from _keeping(method, names | {"self"})
        return
    shared = {name for node in ast.walk(definition) if isinstance(node, ast.Global) for name in node.names}
    for node in ast.walk(definition):
        if isinstance(node, (ast.Assign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(_reaches(target, names, shared | {definition.name}) for target in targets):
                yield node
        elif isinstance(node, ast.Call) and _changed(node) in names:
            yield node


def _changed(node: ast.Call) -> str | None:
    """Return the name that `name.append(...)` and the like change."""
    if isinstance(node.func, ast.Attribute) and node.func.attr in CHANGING:
        return _root(node.func.value)
    return None


def _reaches(target: ast.expr, names: set[str], shared: set[str]) -> bool:
    """Return whether an assignment to `target` changes a global name, or what a lasting name holds."""
    if isinstance(target, ast.Name):
        return target.id in shared
    return _root(target) in names | shared


def _root(node: ast.expr) -> str | None:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None
