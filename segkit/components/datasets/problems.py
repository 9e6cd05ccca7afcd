"""Problems of a dataset's files: a reader goes on after each, and raises all of them together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from segkit.errors import UserError, join_mistakes


class DatasetError(UserError):
    """Files of a dataset cannot be read; the message has a line for each, of very many for the first.

    Attributes:
        problems: a message for each, that begins with the file.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(str(join_mistakes(problems)))
        self.problems = tuple(problems)


@contextmanager
def collected(problems: list[str] | None) -> Iterator[None]:
    """Add what the block raises for the user to `problems`; raise it where there is no such list."""
    try:
        yield
    except UserError as error:
        if problems is None:
            raise
        problems.append(str(error))


def raise_collected(problems: Sequence[str]) -> None:
    """Raise the problems that were collected, if any.

    Raises:
        DatasetError: there are some.
    """
    if problems:
        raise DatasetError(problems)
