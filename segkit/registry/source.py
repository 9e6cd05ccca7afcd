"""Where a component's code is, and which line of a traceback or of the running program belongs to it."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from segkit.files import display_path

PACKAGE = "segkit_plugins"  # the parent of all plugin modules


def code_of(factory: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function or class that holds a component's code: that of a partial, or the class of an object."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    return factory if hasattr(factory, "__qualname__") else type(factory)


def location(factory: Callable[..., Any]) -> str:
    """Return "file:line" of a function or class, or its module if there is no source."""
    code = code_of(factory)
    try:
        path = inspect.getsourcefile(code)
        line = code.__code__.co_firstlineno if inspect.isfunction(code) else inspect.getsourcelines(code)[1]
    except (OSError, TypeError):
        return getattr(code, "__module__", None) or "unknown"
    return file_and_line(path or "?", line)


def file_and_line(filename: str, line: int | None) -> str:
    """Return "file:line", the file relative to the working directory if it is below it."""
    return f"{display_path(Path(filename))}:{line}"


def frames_of(error: BaseException) -> list[tuple[FrameType, int]]:
    """Return the frames of an exception's traceback with their lines; those of its cause if it has none."""
    while error.__traceback__ is None and error.__cause__ is not None:
        error = error.__cause__
    return list(traceback.walk_tb(error.__traceback__))


class ComponentCode:
    """The code of a component.

    Attributes:
        definition: "file:line" of the function or class.
        plugin: the plugin file, or the folder of the package, that it is in; None outside plugin folders.
    """

    def __init__(self, factory: Callable[..., Any]) -> None:
        code = code_of(factory)
        self.definition = location(factory)
        try:
            self.file = inspect.getsourcefile(code)
        except TypeError:
            self.file = None
        self.plugin = _plugin_path(str(getattr(code, "__module__", "")))

    def owns(self, frame: FrameType) -> bool:
        """Return whether a frame runs the component's code, or a private module of its plugin folder."""
        name = frame.f_code.co_filename
        if self.plugin is None or name == self.file:
            return name == self.file
        used = str(frame.f_globals.get("__name__")).split(".")
        return name.startswith(f"{self.plugin}{os.sep}") or (used[0] == PACKAGE and used[-1].startswith("_"))

    def of_error(self, error: BaseException) -> str | None:
        """Return the last line of the component's code in an exception's traceback, as "file:line"."""
        own = [(frame.f_code.co_filename, line) for frame, line in frames_of(error) if self.owns(frame)]
        return file_and_line(*own[-1]) if own else None

    def running(self, frame: FrameType | None = None) -> str | None:
        """Return the line of the component's code that runs now, in `frame` or the nearest of its callers."""
        frame = frame or sys._getframe(1)
        while frame is not None:
            if self.owns(frame):
                return file_and_line(frame.f_code.co_filename, frame.f_lineno)
            frame = frame.f_back
        return None


def _plugin_path(module: str) -> Path | None:
    parts = module.split(".")
    if parts[0] == PACKAGE:
        for length in range(2, len(parts) + 1):
            name = getattr(sys.modules.get(".".join(parts[:length])), "__file__", None)
            if name:
                return Path(name).parent if Path(name).name == "__init__.py" else Path(name)
    return None
