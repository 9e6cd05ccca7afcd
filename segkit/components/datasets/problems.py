"""Problems with a dataset's files: a reader continues after each, and raises all of them together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from segkit.errors import UserError, join_mistakes


class DatasetError(UserError):
    """Files of a dataset cannot be read; the message lists the first problems, one per line.

    Attributes:
        problems: all of them; each message begins with the file.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(str(join_mistakes(problems)))
        self.problems = tuple(problems)


@contextmanager
def collected(problems: list[str] | None) -> Iterator[None]:
    """Add a UserError of the block to `problems`; without such a list, raise it."""
    try:
        yield
    except UserError as error:
        if problems is None:
            raise
        problems.append(str(error))
