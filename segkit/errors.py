"""The errors that are the user's to mend: one clear message, exit status 2, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """What the user gave cannot be used; the message says where, what, and what to do."""


class RegistrationError(UserError):
    """A component cannot be registered; the message names the author's file and line."""


class ContractError(UserError):
    """What a component made is not what its slot asks for; whoever called the component adds its name and line."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Return "Did you mean 'x'? Known: ..." for a name that is not among the known ones."""
    names = sorted(known)
    folded = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)
    hint = f"Did you mean '{folded[close[0]]}'? " if close else ""
    listed = ", ".join(names) if len(names) <= 24 else ", ".join(names[:24]) + f", and {len(names) - 24} more"
    return f"{hint}Known: {listed}." if names else f"{hint}None are known here."
