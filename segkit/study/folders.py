"""What a run folder already holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segkit import files, toml
from segkit.errors import UserError
from segkit.identity import differences
from segkit.recipe import Recipe


def read_status(folder: Path) -> dict[str, Any] | None:
    """Return a trial's `trial.json`; None where there is none that can be read."""
    try:
        found = files.read_json(folder / "trial.json")
    except UserError:
        return None
    return found if isinstance(found, dict) else None


def finished_elsewhere(run: Path) -> dict[str, Path]:
    """Return the finished trials of the run folders beside this one, by identity."""
    index: dict[str, Path] = {}
    for path in sorted(run.parent.glob("*/*/*/trial.json")):
        if path.is_relative_to(run) or any(part.startswith(".") for part in path.relative_to(run.parent).parts):
            continue
        status = read_status(path.parent)
        if status and status.get("status") == "finished" and not status.get("limited"):
            index.setdefault(str(status.get("identity")), path.parent)
    return index


def changed_keys(folder: Path, recipe: Recipe) -> dict[str, str]:
    """Return the keys in which a trial folder's filled recipe differs from `recipe`, with both values."""
    try:
        old = toml.load(folder / "recipe.toml")
    except UserError:
        return {"recipe.toml": "cannot be read"}
    return differences(old, toml.read(recipe.to_toml()))
