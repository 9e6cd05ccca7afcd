"""Each reader, fed for a moment with what is nearly right; ten minutes each: `python -m tests.fuzz`."""

from __future__ import annotations

import pytest

from tests.fuzz.__main__ import READERS, fuzz


@pytest.mark.parametrize("reader", READERS)
def test_nothing_but_messages(reader: str) -> None:
    said = fuzz(reader, seconds=4, seed=7)
    assert "0 crashes" in said
    assert not said.startswith(f"{reader}: 0 inputs")
