"""Values formatted as TOML on one line, for recipes and messages."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from segkit.errors import first_unprintable


def format_key(name: str) -> str:
    """Return a TOML key, quoted if necessary."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else format_string(name)


def format_string(item: str) -> str:
    """Return a TOML basic string; control characters and overrides of the writing direction are escaped."""
    plain = json.dumps(item, ensure_ascii=False)
    if not first_unprintable(plain):
        return plain
    return "".join(f"\\U{ord(char):08x}" if first_unprintable(char) else char for char in plain)


def format_value(item: Any) -> str:
    """Return a value as TOML on one line."""
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, (int, float)):
        return repr(item)
    if isinstance(item, Mapping):
        inner = ", ".join(f"{format_key(str(name))} = {format_value(part)}" for name, part in item.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(item, Sequence) and not isinstance(item, str):
        return "[" + ", ".join(format_value(part) for part in item) + "]"
    return format_string(str(item))
