"""A training that is killed again and again ends as one that was never touched; the long form: `tests/stress.py`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["small", "everything"])
def test_killed_at_random_moments_and_while_writing_ends_with_the_same_bytes(recipe: str) -> None:
    # in a process of its own: a fork of one whose thread pools have run may wait for them for ever
    command = [sys.executable, "-m", "tests.stress", "--kills", "12", "--seed", "3", "--recipe", recipe]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = re.search(r"^(\d+) kills survived in \d+ trainings, 0 bytes differ$", done.stdout, re.M)
    assert found, done.stdout
    assert int(found[1]) >= 12
