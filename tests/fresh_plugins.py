"""A world without plugins for one test: whatever it loads is gone afterwards."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import tests.small  # registers its dataset, which no test may lose
from segkit import plugins

assert tests.small, "imported for what it registers"
EXAMPLES = Path(__file__).parents[1] / "plugins"
BUILT_IN = [(registry, registry.snapshot()) for registry in plugins.registries()]  # no test has run yet


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Give an empty working directory, nothing loaded; put registries, modules and state back."""
    before = [(registry, registry.snapshot()) for registry in plugins.registries()]
    monkeypatch.setattr(plugins, "_state", plugins._State())
    modules = _take_modules()
    for registry, entries in BUILT_IN:
        registry.restore(entries)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    _take_modules()
    sys.modules.update(modules)
    for registry, entries in before:
        registry.restore(entries)


def _take_modules() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.split(".")[0] == plugins.PACKAGE]
    return {name: sys.modules.pop(name) for name in names}
