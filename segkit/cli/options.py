"""Options shared by several commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def parse_path(text: str | Path) -> Path:
    """Parse a path; an empty one would silently be the working directory."""
    if not str(text).strip():
        raise typer.BadParameter("must be a path, got an empty string. The working directory is '.'")
    return Path(text)


Recipes = Annotated[list[Path], typer.Argument(parser=parse_path, metavar="RECIPE...", help="Recipe files (TOML).")]
With = Annotated[
    list[Path] | None,
    typer.Option("--with", parser=parse_path, metavar="OVERLAY.toml", help="Merge a file over the recipe."),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Set one value, e.g. train.epochs=10.")
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugins", parser=parse_path, metavar="DIR", help="Load plugins from here too, besides plugins/."),
]
Out = Annotated[Path, typer.Option("--out", parser=parse_path, metavar="DIR", help="Where run folders go.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
