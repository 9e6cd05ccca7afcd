"""The errors that are the user's to mend: one clear message, exit status 2, no traceback."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence

MOST = 20  # mistakes that are told at once
KEPT = "\n\t\u200c\u200d"  # lines, columns, and the joiners that some scripts are written with


class UserError(Exception):
    """What the user gave cannot be used; the message says where, what, and what to do."""


class RegistrationError(UserError):
    """A component cannot be registered; the message names the author's file and line."""


class ContractError(UserError):
    """What a component made is not what its slot asks for; whoever called the component adds its name and line."""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where it should be: "1 case", "2 cases"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def several(mistakes: Sequence[str]) -> UserError:
    """Return mistakes, one a line, as one error; of very many the first and their number."""
    lines = list(dict.fromkeys(mistakes))
    more = [f"... and {len(lines) - MOST:,} more mistakes"] if len(lines) > MOST else []
    return UserError("\n".join([*lines[:MOST], *more]))


def printable(text: str) -> str:
    """Return a text as a terminal may be given it: what would move, colour or reverse it is spelled out.

    Control characters and overrides of the writing direction become escapes such as `\\x1b`; lines, tabs, and letters
    of any script stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelled(char) if _is_unseen(char) else char for char in text)


def _is_unseen(char: str) -> bool:
    return char not in KEPT and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _spelled(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 128 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def shortened(text: str, limit: int = 60) -> str:
    """Return a text on one line of at most `limit` characters, cut between words where it can be."""
    line = text if "\n" not in text else " ".join(text.split())
    if len(line) <= limit:
        return line
    cut = line[: limit - 3]
    words = cut.rpartition(" ")[0]
    return (words if len(words) > limit / 2 else cut).rstrip(" ,;") + "..."


def suggest(name: str, known: Iterable[str]) -> str:
    """Return "Did you mean 'x'? Known: ..." for a name that is not among the known ones."""
    names = sorted(known)
    folded = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name[:100].lower(), folded, n=1, cutoff=0.5)
    hint = f"Did you mean '{folded[close[0]]}'? " if close else ""
    listed = ", ".join(names) if len(names) <= 24 else ", ".join(names[:24]) + f", and {len(names) - 24} more"
    return f"{hint}Known: {listed}." if names else f"{hint}None are known here."
