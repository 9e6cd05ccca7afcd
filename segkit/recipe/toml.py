"""What tomllib lacks: writing TOML, the line of each key, and limits on what is read."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from segkit import files
from segkit.errors import UserError, sentence
from segkit.files import MAX_DEPTH, UnreadableError, check_limits
from segkit.registry.slot import fold
from segkit.registry.values import format_key as format_key
from segkit.registry.values import format_value as format_value

_TOKEN = re.compile(
    r'''(?P<string>"""(?:[^"\\]++|\\.|"(?!""))*+"{3,5}|\'\'\'(?:[^\']++|\'(?!\'\'))*+\'{3,5}'''
    r"""|"(?:[^"\\\n]++|\\.)*+"|'[^'\n]*+')|(?P<comment>\#[^\n]*+)|(?P<mark>[][{},=.\n])"""
    r"""|(?P<word>[^\s\[\]{},=.\#"']++)""",
    re.DOTALL,
)


def dumps(document: Mapping[str, Any]) -> str:
    """Return a document as TOML text: plain keys first, then a table each, two levels deep, the rest inline."""
    plain, tables = _divided(document)
    lines = _assignments(plain)
    for name, table in tables.items():
        plain, inner = _divided(table)
        if plain or not inner:
            lines += ["", f"[{format_key(name)}]", *_assignments(plain)]
        for sub, values in inner.items():
            lines += ["", f"[{format_key(name)}.{format_key(sub)}]", *_assignments(values)]
    return "\n".join(lines).lstrip("\n") + "\n"


def _divided(table: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    inner = {name: item for name, item in table.items() if isinstance(item, Mapping)}
    return {name: item for name, item in table.items() if name not in inner}, inner


def _assignments(table: Mapping[str, Any]) -> list[str]:
    return [f"{format_key(name)} = {format_value(item)}" for name, item in table.items()]


def load(path: Path) -> dict[str, Any]:
    """Return the values of a TOML file that segkit wrote.

    Raises:
        UserError: it cannot be read, or is damaged.
    """
    try:
        return read(files.read_text(path))
    except UnreadableError as error:
        place = f"{path}:{error.line}" if error.line else str(path)
        raise UserError(f"{place}: damaged: {sentence(error)}") from None


def read(source: str) -> dict[str, Any]:
    """Return the values of a TOML text.

    Raises:
        UnreadableError: it is not valid TOML, nested too deeply, or has too large integers.
    """
    _check_keys(source)
    try:
        found = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r" \(at line (\d+), column \d+\)", str(error))
        reason = str(error).split(" (at ")[0]
        line = int(at[1]) if at else source.count("\n") + 1
        raise UnreadableError(f"not valid TOML: {reason[0].lower()}{reason[1:]}", line) from None
    except RecursionError:
        raise UnreadableError("nested too deeply") from None
    except ValueError:  # Python refuses integers of thousands of digits
        digits = re.search(r"\d[\d_]{1000,}", source)
        raise UnreadableError(
            "an integer of thousands of digits", source.count("\n", 0, digits.start()) + 1 if digits else None
        ) from None
    check_limits(found)
    return found


def _check_keys(source: str) -> None:
    """Raise if a key has very many parts: tomllib needs quadratic time for them."""
    if source.count(".") <= MAX_DEPTH:
        return
    dots, line = 0, 1
    for match in _TOKEN.finditer(source):
        if match.lastgroup == "mark":
            dots = dots + 1 if match[0] == "." else 0
            if dots > MAX_DEPTH:
                raise UnreadableError("nested too deeply", line)
        line += match[0].count("\n")


def line_of(source: str, path: Sequence[str | int]) -> int | None:
    """Return the line (from 1) of `path`, or of its longest prefix that exists."""
    lines, folded = _lines(source), tuple(fold(str(part)) for part in path)
    return next((lines[folded[:end]] for end in range(len(folded), 0, -1) if folded[:end] in lines), None)


@functools.lru_cache(maxsize=16)
def _lines(source: str) -> dict[tuple[str, ...], int]:
    """Return the first line of each path of a valid TOML text, names folded."""
    found: dict[tuple[str, ...], int] = {}
    for path, line in _written(source):
        folded = tuple(fold(part) for part in path)
        while folded and folded not in found:
            found[folded] = line
            folded = folded[:-1]
    return found


def _written(source: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield (path, line) of each header, key and list item of a valid TOML text, in one pass over its tokens."""
    line, table = 1, ()  # type: tuple[int, tuple[str, ...]]
    counts: dict[tuple[str, ...], int] = {}  # of the tables of each [[list]]
    open_: list[tuple[tuple[str, ...], int | None]] = []  # values not closed yet: path, and the item if it is a list
    key: list[str] = []
    header, value = 0, False  # brackets of a header; after the "="
    path: tuple[str, ...] = ()
    for match in _TOKEN.finditer(source):
        token, kind = match[0], match.lastgroup
        if kind in ("string", "word"):
            if not value:
                key.append(_unquoted(token))
            elif open_ and open_[-1][1] is not None:
                yield path, line
        elif token == "=":
            path = (*(open_[-1][0] if open_ else table), *key)
            key, value = [], True
            yield path, line
        elif token == "[" and not value and not open_:
            header += 1
        elif token == "]" and header:
            if key:
                table, key = _header(key, counts, several=header == 2), []
                yield table, line
        elif token in ("[", "{"):
            yield path, line
            open_.append((path, 0 if token == "[" else None))
            path, value = ((*path, "0"), True) if token == "[" else (path, False)
        elif token in ("]", "}"):
            path, _ = open_.pop()
            key, value = [], True
        elif token == "," and open_:
            outer, item = open_[-1]
            if item is None:
                value = False
            else:
                open_[-1] = outer, item + 1
                path = (*outer, str(item + 1))
        elif token == "\n" and not open_:
            header, key, value = 0, [], False
        line += token.count("\n")


def _header(key: Sequence[str], counts: dict[tuple[str, ...], int], *, several: bool) -> tuple[str, ...]:
    """Return the path of a header, with the number of the table in each list of tables that it goes through."""
    path: tuple[str, ...] = ()
    for number, part in enumerate(key, 1):
        path = (*path, part)
        if several and number == len(key):
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, str(counts[path]))
    return path


def _unquoted(token: str) -> str:
    if token[0] not in "\"'":
        return token
    return token[1:-1] if "\\" not in token else str(tomllib.loads(f"key = {token}")["key"])
