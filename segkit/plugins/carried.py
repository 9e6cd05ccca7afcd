"""Plugins inside a checkpoint, compared with those that are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segkit.errors import counted
from segkit.plugins.loader import loaded


def how_to_get(offered: Sequence[Mapping[str, Any]]) -> str:
    """Return what to do about plugins inside a checkpoint that are not loaded; "" if there are none."""
    if not offered:
        return ""
    listed = ""
    for plugin in offered:
        size = sum(len(text.splitlines()) for text in plugin["sources"].values())
        listed += f"    {plugin['origin']} ({counted(size, 'line')}, sha256 {plugin['sha256'][:12]})\n"
    return (
        f"\n  The checkpoint was trained with plugins that are not installed:\n{listed}"
        "  Put them into plugins/, or run the copies inside the checkpoint with --trust-plugins;\n"
        "  `segkit info CHECKPOINT --sources` prints what would run."
    )


def changed_plugins(meta: Mapping[str, Any]) -> list[str]:
    """Return a line for each loaded plugin whose source differs from the one the checkpoint was trained with."""
    here = {plugin.module: plugin for plugin in loaded()}
    return [
        f"plugin {here[plugin['module']].origin} differs from the one this checkpoint was trained with "
        f"(sha256 {here[plugin['module']].sha256[:12]}, was {plugin['sha256'][:12]})"
        for plugin in meta["plugins"]
        if plugin["module"] in here and here[plugin["module"]].sha256 != plugin["sha256"]
    ]
