"""Write TOML and find the line on which a key stands: what tomllib leaves out."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from segkit.component import fold

_CLOSERS = ("", "]", "}", "}]", "} }", "} }]", "]]", "} } }", "} } }]", "]}", "]}]", "]} }", "]} }]")


def key(name: str) -> str:
    """Return a key as TOML writes it, quoted where it must be."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else text(name)


def text(item: str) -> str:
    """Return a basic string; DEL is the one control character that JSON leaves bare and TOML forbids."""
    return json.dumps(item, ensure_ascii=False).replace("\x7f", "\\u007f")


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


def dumps(document: Mapping[str, Any]) -> str:
    """Return a document as TOML text: plain keys first, then a table each, two levels deep, the rest inline."""
    lines = [f"{key(name)} = {value(item)}" for name, item in document.items() if not isinstance(item, Mapping)]
    for name, table in document.items():
        if not isinstance(table, Mapping):
            continue
        plain = {sub: item for sub, item in table.items() if not isinstance(item, Mapping)}
        tables = {sub: item for sub, item in table.items() if isinstance(item, Mapping)}
        if plain or not tables:
            lines += ["", f"[{key(name)}]", *(f"{key(sub)} = {value(item)}" for sub, item in plain.items())]
        for sub, item in tables.items():
            lines += ["", f"[{key(name)}.{key(sub)}]", *(f"{key(k)} = {value(v)}" for k, v in item.items())]
    return "\n".join(lines).lstrip("\n") + "\n"


def line_of(text: str, path: Sequence[str | int]) -> int | None:
    """Return the line (from 1) on which `path`, or the longest part of it that exists, is first written.

    Ever longer prefixes of the text are parsed until the path exists; it is paid only on error.
    """
    whole = tomllib.loads(text)
    while path and not _exists(whole, path):
        path = path[:-1]
    if not path:
        return None
    lines = text.splitlines()
    for count in range(1, len(lines) + 1):
        prefix = "\n".join(lines[:count])
        for closer in _CLOSERS:
            try:
                document = tomllib.loads(prefix + closer)
            except tomllib.TOMLDecodeError:
                continue
            if _exists(document, path):
                return count
            break
    return None


def _exists(node: Any, path: Sequence[str | int]) -> bool:
    for part in path:
        if isinstance(node, list):
            if not str(part).isdigit() or int(part) >= len(node):
                return False
            node = node[int(part)]
        elif isinstance(node, dict):
            match = next((name for name in node if fold(name) == fold(str(part))), None)
            if match is None:
                return False
            node = node[match]
        else:
            # a bare string stands for a table of one name
            return isinstance(node, str) and fold(node) == fold(str(part))
    return True
