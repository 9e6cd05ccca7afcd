"""Where a component's code stands, and which line of a traceback or of the running program is in it."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from segkit.registry.signatures import code_of, where

PACKAGE = "segkit_plugins"  # the parent of all plugin modules


class Source:
    """The code of a component: its file, or the folder of a plugin that is a package.

    Args:
        factory: the function or class that was registered.

    Attributes:
        definition: "file:line" of the function or class.
    """

    def __init__(self, factory: Callable[..., Any]) -> None:
        code = code_of(factory)
        self.definition = where(factory)
        self.module = str(getattr(code, "__module__", ""))
        try:
            self.file = inspect.getsourcefile(code)
        except TypeError:
            self.file = None
        package = sys.modules.get(".".join(self.module.split(".")[:2])) if self.module.startswith(PACKAGE) else None
        top = Path(package.__file__) if package is not None and package.__file__ else None
        self.folder = top.parent if top is not None and top.name == "__init__.py" else None

    def owns(self, frame: FrameType) -> bool:
        """Return whether a frame runs the component's code, or a private module of the plugin folder that it uses."""
        name = frame.f_code.co_filename
        if Path(name).is_relative_to(self.folder) if self.folder is not None else name == self.file:
            return True
        used = str(frame.f_globals.get("__name__")).split(".")
        return self.module.split(".")[0] == used[0] == PACKAGE and used[-1].startswith("_")

    def of_error(self, error: BaseException) -> str | None:
        """Return the last line of the component's code that an exception went through."""
        while error.__traceback__ is None and error.__cause__ is not None:
            error = error.__cause__
        own = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if self.owns(frame)]
        return shown(own[-1][0].f_code.co_filename, own[-1][1]) if own else None

    def running(self, frame: FrameType | None = None) -> str | None:
        """Return the line of the component's code that is being run, in `frame` or the nearest of its callers."""
        frame = frame or sys._getframe(1)
        while frame is not None:
            if self.owns(frame):
                return shown(frame.f_code.co_filename, frame.f_lineno)
            frame = frame.f_back
        return None


def shown(filename: str, line: int | None) -> str:
    """Return "file:line", the file relative to the working directory where it is below it."""
    path = Path(filename)
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{line}"
