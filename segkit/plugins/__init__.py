"""Plugins: Python files that add components; loaded in isolation, rolled back if they fail, reported, hashed."""

from __future__ import annotations

from segkit.plugins.failures import Failure
from segkit.plugins.loader import (
    Plugin,
    changed_plugins,
    failures,
    folders,
    isolated,
    load,
    load_file,
    load_one,
    load_sources,
    loaded,
    used_by,
)

__all__ = [
    "Failure",
    "Plugin",
    "changed_plugins",
    "failures",
    "folders",
    "isolated",
    "load",
    "load_file",
    "load_one",
    "load_sources",
    "loaded",
    "used_by",
]
