"""Plain values as a recipe, and a message about it, writes them: on one line of TOML."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from segkit.errors import unprintable


def key(name: str) -> str:
    """Return a key as TOML writes it, quoted where it must be."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else text(name)


def text(item: str) -> str:
    """Return a basic string; what TOML forbids or would move or reverse a terminal's text is an escape."""
    plain = json.dumps(item, ensure_ascii=False)
    if not unprintable(plain):
        return plain
    return "".join(f"\\U{ord(char):08x}" if unprintable(char) else char for char in plain)


def value(item: Any) -> str:
    """Return a value as TOML writes it on one line."""
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, float):
        if not math.isfinite(item):
            return "nan" if math.isnan(item) else ("inf" if item > 0 else "-inf")
        shown = repr(item)
        return shown if any(mark in shown for mark in ".en") else shown + ".0"
    if isinstance(item, int):
        return str(item)
    if isinstance(item, Mapping):
        inner = ", ".join(f"{key(str(name))} = {value(part)}" for name, part in item.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(item, Sequence) and not isinstance(item, str):
        return "[" + ", ".join(value(part) for part in item) + "]"
    return text(str(item))
