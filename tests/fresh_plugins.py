"""A world without plugins for one test: whatever it loads is gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import tests.small  # registers its dataset, which no test may lose
from segkit.plugins import isolated

assert tests.small, "imported for what it registers"
EXAMPLES = Path(__file__).parents[1] / "plugins"


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Give an empty working directory, nothing loaded; put registries, modules and state back."""
    monkeypatch.chdir(tmp_path)
    with isolated():
        yield tmp_path
