"""Errors that the user can correct (one clear message, exit status 2, no traceback), and the wording of messages."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

from rich.cells import cell_len

MAX_LISTED = 20  # mistakes in one message
KEPT_CONTROLS = "\n\t\u200c\u200d"  # line feed, tab, and the zero-width joiners of some scripts


class UserError(Exception):
    """The user's input cannot be used; the message says where, what is wrong, and what to do."""


class RegistrationError(UserError):
    """A component cannot be registered; the message names the author's file and line."""


class ContractError(UserError):
    """A component's result breaks its slot's contract; the caller adds the component's name and line."""


def message_of(error: BaseException) -> str:
    """Return an exception's message; "" if its own `__str__` raises."""
    try:
        return str(error)
    except Exception:
        return ""


def join_mistakes(mistakes: Iterable[str], unread: int = 0) -> UserError:
    """Return one error that lists mistakes, one per line: `MAX_LISTED`, and how many more, `unread` ones included."""
    lines = list(dict.fromkeys(mistakes))
    more = max(0, len(lines) - MAX_LISTED) + max(0, unread)
    return UserError("\n".join([*lines[:MAX_LISTED], *([f"... and {counted(more, 'more mistake')}"] if more else [])]))


def printable(text: str) -> str:
    """Return a text that is safe to print on a terminal.

    Control characters and overrides of the writing direction become escapes such as `\\x1b`; line feeds, tabs and
    letters of any script stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(char) if _is_control(char) else char for char in text)


def first_unprintable(name: str) -> str:
    """Return the first control character of a one-line name, as an escape such as `\\x1b`; "" if it has none."""
    return next((_escaped(char) for char in name if char in "\n\t" or _is_control(char)), "")


def _is_control(char: str) -> bool:
    return char not in KEPT_CONTROLS and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 128 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: "1 trial", "2 trials"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def sentence(text: object) -> str:
    """Return a text that ends like a sentence: with a full stop, unless it ends with "?", "!" or "..."."""
    line = str(text).rstrip()
    return line if line.endswith(("?", "!", "...")) else f"{line.rstrip('.')}."


def pad(text: str, width: int, right: bool = False) -> str:
    """Return a text padded to `width` terminal cells, aligned to the left or to the `right`."""
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def truncate(text: str, limit: int = 60) -> str:
    """Return a text on one line of at most `limit` characters, cut between words if possible."""
    line = text if "\n" not in text else " ".join(text.split())
    if len(line) <= limit:
        return line
    cut = line[: limit - 3]
    words = cut.rpartition(" ")[0]
    return (words if len(words) > limit / 2 else cut).rstrip(" ,;") + "..."


def first_few(names: Iterable[str], most: int = 5) -> str:
    """Return names as a list in a message: the first few, and how many more."""
    every = list(names)
    more = f" and {len(every) - most:,} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def suggest(name: str, known: Iterable[str]) -> str:
    """Return "Did you mean 'x'? Known: ..." for a name that is not among the known ones."""
    names = sorted(known)
    folded = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name[:100].lower(), folded, n=1, cutoff=0.5)
    hint = f"Did you mean '{folded[close[0]]}'? " if close else ""
    return f"{hint}Known: {first_few(names, 24)}." if names else "None are known."
