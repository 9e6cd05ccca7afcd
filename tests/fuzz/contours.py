"""The contour reader and its lists, fed with damaged and hostile text."""

from __future__ import annotations

import random

from segkit import UserError
from segkit.components.datasets.contours import fill, parse_contour, parse_list
from tests.fuzz.mutation import mutated

SEEDS = (
    b"10.5 10.5\n20 10\n20 20.25\n10 20\n",
    b"\xef\xbb\xbf10,5;10,5\r\n20;10\r\n20;20,25\r\n",
    b"1.0e1, 2.0\n3.5e0, 8\n-0.5, 4\n7 7\n",
    "10 10\n20 10\n20 20\n".encode("utf-16"),
    b".\\P01\\P01contours-manual\\P01-0059-icontour-manual.txt\r\n.\\P01\\P01contours-manual\\P01-0059-ocontour-manual.txt\r\n",
)


def mutate(chance: random.Random) -> bytes:
    """Return text that is nearly right."""
    return mutated(chance.choice(SEEDS) * chance.choice([1, 1, 1, 50]), chance)


def one(data: bytes) -> bool:
    """Read it as a contour and as a list; return whether both were refused. Anything but a message is a crash."""
    refused = 0
    try:
        mask = fill(parse_contour(data, "c.txt"), (64, 48))
        assert mask.shape == (64, 48)
    except UserError as error:
        assert "c.txt" in str(error)
        refused += 1
    try:
        for _, name in parse_list(data, "list.txt"):
            assert "/" not in name
            assert "\\" not in name
            assert name not in ("..", ".", "")
    except UserError as error:
        assert "list.txt" in str(error)
        refused += 1
    return refused == 2
