"""A world without plugins for one test: whatever it loads is gone afterwards."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import tests.small  # registers its dataset, which no test may lose
from segkit import plugins
from segkit.components import REGISTRIES
from segkit.plugins import loader

assert tests.small, "imported for what it registers"
EXAMPLES = Path(__file__).parents[1] / "plugins"


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Run the block without plugins; afterwards restore registries, modules and the list of loaded plugins."""
    kept, entries = loader.state, [(registry, registry.snapshot()) for registry in REGISTRIES]
    own = {name for plugin in plugins.loaded() for name in plugin.components}
    modules = _take_modules()
    for registry, found in entries:
        registry.restore({key: e for key, e in found.items() if f"{registry.name}.{e.name}" not in own})
    loader.state = loader.State()
    try:
        yield
    finally:
        _take_modules()
        sys.modules.update(modules)
        loader.state = kept
        for registry, found in entries:
            registry.restore(found)


def _take_modules() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.partition(".")[0] == "segkit_plugins"]
    return {name: sys.modules.pop(name) for name in names}


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Give an empty working directory, nothing loaded; put registries, modules and state back."""
    monkeypatch.chdir(tmp_path)
    with isolated():
        yield tmp_path
