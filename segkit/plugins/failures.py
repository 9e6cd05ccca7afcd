"""Why a plugin did not load, on one line with file and line number."""

from __future__ import annotations

import importlib.util
import re
import traceback
from dataclasses import dataclass
from pathlib import Path

from segkit.errors import UserError, message_of
from segkit.files import display_path
from segkit.registry.faults import described
from segkit.registry.source import PACKAGE

PLACED = re.compile(r"(?P<file>[^\n]+?):(?P<line>[0-9]+): (?P<text>.*)", re.DOTALL)


@dataclass(frozen=True)
class Failure:
    """A plugin that did not load; its registrations are undone."""

    origin: str
    line: int | None
    message: str

    def __str__(self) -> str:
        place = f"{self.origin}:{self.line}" if self.line else self.origin
        return f"{place}: {self.message}"


def explain_failure(error: BaseException, name: str, origin: str, file: Path | None) -> Failure:
    """Return the failure for an exception during the import of the module `name`.

    Args:
        origin: the plugin's path or entry point, for the user.
        file: its file, `__init__.py` for a package; None to look it up by its module.
    """
    own, text = file or _file_of(name), _explained(error)
    placed = PLACED.fullmatch(text) if isinstance(error, UserError) else None
    if placed:
        is_own = own is not None and Path(placed["file"]).resolve() == own
        return Failure(origin, int(placed["line"]), placed["text"]) if is_own else Failure(origin, None, text)
    where, line = _place(error, own.parent if own else None)
    if where is None or own is None or where == own:
        return Failure(origin, line, text)
    return Failure(origin, None, f"{display_path(where)}:{line}: {text}")


def _file_of(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(spec.origin).resolve() if spec and spec.origin else None


def _place(error: BaseException, folder: Path | None) -> tuple[Path | None, int | None]:
    """Return the last file and line of the plugin's folder in the traceback."""
    if isinstance(error, SyntaxError):
        return Path(error.filename).resolve() if error.filename else None, error.lineno
    frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    own = [(path.resolve(), line) for path, line in frames if folder and path.resolve().is_relative_to(folder)]
    return own[-1] if own else (None, None)


def _explained(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"it is not valid Python: {error.msg}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        package, _, rest = error.name.partition(".")
        if package == PACKAGE and rest:
            return f"it imports '{rest}', which is not in its folder"
        return f"it needs the package '{package}', which is not installed"
    if isinstance(error, SystemExit):
        return described(error)
    text = " ".join(message_of(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
