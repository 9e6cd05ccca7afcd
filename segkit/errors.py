"""The errors that are the user's to mend: one clear message, exit status 2, no traceback."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence

from rich.cells import cell_len

MOST = 20  # mistakes that are listed at once
KEPT = "\n\t\u200c\u200d"  # lines, columns, and the joiners that some scripts are written with


class UserError(Exception):
    """The user's input cannot be used; the message says where, what is wrong, and what to do."""


class RegistrationError(UserError):
    """A component cannot be registered; the message names the author's file and line."""


class ContractError(UserError):
    """What a component made is not what its slot asks for; whoever called the component adds its name and line."""


def message_of(error: BaseException) -> str:
    """Return what an exception says; "" where it cannot even say that, since its own `__str__` raises."""
    try:
        return str(error)
    except Exception:
        return ""


def several(mistakes: Sequence[str]) -> UserError:
    """Return mistakes, one a line, as one error; of very many the first and their number."""
    lines = list(dict.fromkeys(mistakes))
    more = [f"... and {counted(len(lines) - MOST, 'more mistake')}"] if len(lines) > MOST else []
    return UserError("\n".join([*lines[:MOST], *more]))


def printable(text: str) -> str:
    """Return a text as a terminal may be given it: what would move, colour or reverse it is spelled out.

    Control characters and overrides of the writing direction become escapes such as `\\x1b`; lines, tabs, and letters
    of any script stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelled(char) if _is_unseen(char) else char for char in text)


def unprintable(name: str) -> str:
    """Return the first character that no name on one line may hold, as an escape such as `\\x1b`; "" for none."""
    return next((_spelled(char) for char in name if char in "\n\t" or _is_unseen(char)), "")


def _is_unseen(char: str) -> bool:
    return char not in KEPT and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _spelled(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 128 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: "1 trial", "2 trials"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def sentence(text: object) -> str:
    """Return a text as a sentence, with a full stop where it has no mark of its own."""
    line = str(text).rstrip()
    return line if line.endswith(("?", "!", "...")) else f"{line.rstrip('.')}."


def padded(text: str, width: int, right: bool = False) -> str:
    """Return a text with spaces to so many cells of a terminal, after it or, to the `right`, before it."""
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


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
