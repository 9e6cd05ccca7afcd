"""Patterns of paths with named fields, such as "{patient}/{patient}_frame{frame}.nii.gz"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segkit.errors import UserError, sentence

PIECE = re.compile(r"\{([^{}]*)\}|(\*)|([^{}*]+)|(.)")
FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Pattern:
    """A pattern that was parsed.

    Attributes:
        text: as in the recipe.
        what: what its files are, for messages, e.g. "masks".
        fields: names, in the order in which they first stand.
        literal: the number of characters that are neither field nor `*`.
        expression: matches a whole path, with "/".
    """

    text: str
    what: str
    fields: tuple[str, ...]
    literal: int
    expression: re.Pattern[str]

    @property
    def depth(self) -> int:
        """The number of levels of folders and file."""
        return self.text.count("/") + 1

    def match(self, path: str) -> dict[str, str] | None:
        """Return the text of each field; None if a path, relative and with "/", does not match."""
        found = self.expression.fullmatch(path)
        return found.groupdict() if found else None


def parse_pattern(text: str, what: str) -> Pattern:
    """Return a pattern of paths below a folder.

    `{name}` stands for one or more characters of a file's or folder's name, the same ones if it stands there again, `*`
    for any number of characters of a name, all else for itself.

    Raises:
        UserError: it has no field, a brace is alone, a field's name is no word, or nothing stands between two fields.
    """
    fields: list[str] = []
    literal, expression, is_open = 0, "", False
    for piece in PIECE.finditer(text):
        name, star, plain, brace = piece.groups()
        if brace or (name is not None and not FIELD.fullmatch(name)):
            raise UserError(f"{what}: {text!r}: {piece[0]!r} is not a field. Write fields like {{patient}}.")
        literal += len(plain or "")
        opens = bool(star) or (name is not None and name not in fields)
        if opens and is_open:
            raise UserError(f"{what}: {text!r}: no text stands before {piece[0]!r}, to end what precedes it.")
        is_open = opens
        if plain:
            expression += re.escape(plain)
        elif star:
            expression += "[^/]*?"
        elif opens:
            fields.append(name)
            expression += f"(?P<{name}>[^/]+?)"
        else:
            expression += f"(?P={name})"
    parts = text.split("/")
    if not fields or "" in parts or ".." in parts or "." in parts:
        raise UserError(
            f"{what}: {text!r} must be a path below `root` with at least one field, e.g. {{patient}}.nii.gz."
        )
    return Pattern(text, what, tuple(fields), literal, re.compile(expression))


def best_matches(path: str, patterns: Sequence[Pattern], *, end: bool = False) -> list[tuple[Pattern, dict[str, str]]]:
    """Return the patterns that a path, or its `end`, matches, with its fields: those that spell most of it out.

    "{name}_gt.nii.gz" comes before "{name}.nii.gz".
    """
    parts, found = path.split("/"), []
    for pattern in patterns:
        fields = pattern.match("/".join(parts[-pattern.depth :]) if end else path)
        found += [(pattern, fields)] if fields is not None else []
    most = max((pattern.literal for pattern, _ in found), default=0)
    return [match for match in found if match[0].literal == most]


def patient_expression(text: str | None) -> re.Pattern[str] | None:
    """Return the regular expression that a recipe's `patient` gives.

    Raises:
        UserError: it is none.
    """
    try:
        return re.compile(text) if text is not None else None
    except re.error as error:
        raise UserError(f"patient: {text!r} is not a regular expression: {sentence(error)}") from None


def find_patient(expression: re.Pattern[str], name: str, path: Path) -> str:
    """Return the patient in a name: what the first group of an expression matches, or all of it.

    Raises:
        UserError: it finds none; the message names the file.
    """
    match = expression.search(name)
    found = (match[1] if expression.groups else match[0]) if match else None
    if not found:
        raise UserError(f"{path}: patient = {expression.pattern!r} finds no patient in {name!r}.")
    return found
