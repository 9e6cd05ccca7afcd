"""Plugins: Python files that add components; loaded in isolation, rolled back where they fail, reported, hashed."""

from __future__ import annotations

from segkit.plugins.carried import changed_plugins, how_to_get
from segkit.plugins.failures import Failure
from segkit.plugins.loader import (
    PACKAGE,
    Plugin,
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
    "PACKAGE", "Failure", "Plugin", "changed_plugins", "failures", "folders", "how_to_get", "isolated", "load",
    "load_file", "load_one", "load_sources", "loaded", "used_by",
]  # fmt: skip
