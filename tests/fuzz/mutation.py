"""Byte mutations: what damage, and a hand that does not mean well, do to a file."""

from __future__ import annotations

import random

EDGES = (
    b"\0",
    b"\xff",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x80",
    b"9" * 40,
    b"-1",
    b"1e999",
    b"\xff\xfe",
)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return data with up to four changes: flips, cuts, copies within, edge values, insertions."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(found) + 1)
        kind = chance.randrange(6)
        if kind == 0 and found:
            found[min(place, len(found) - 1)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del found[place:]
        elif kind == 2:
            del found[place : place + chance.randint(1, 64)]
        elif kind == 3:
            start = chance.randrange(len(found) + 1)
            found[place:place] = found[start : start + chance.randint(1, 64)]
        elif kind == 4:
            edge = chance.choice(EDGES)
            found[place : place + len(edge)] = edge
        else:
            found[place:place] = chance.randbytes(chance.randint(1, 16))
    return bytes(found)
