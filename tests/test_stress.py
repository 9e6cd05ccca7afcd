"""A training that is killed again and again ends as one that was never touched; the long form: `tests/stress.py`."""

from __future__ import annotations

from pathlib import Path

from tests.stress import torment


def test_killed_at_random_moments_and_while_writing_ends_with_the_same_bytes(tmp_path: Path) -> None:
    tally = torment(tmp_path, kills=6, seed=3)
    assert tally.kills >= 6
    assert tally.differing == 0
