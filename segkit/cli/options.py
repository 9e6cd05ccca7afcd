"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Recipes = Annotated[list[Path], typer.Argument(metavar="RECIPE...", help="Recipe files (TOML).")]
With = Annotated[list[Path] | None, typer.Option("--with", metavar="OVERLAY.toml", help="Lay a file over the recipe.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Set one value, e.g. train.epochs=10.")
]
Plugins = Annotated[
    list[Path] | None, typer.Option("--plugins", metavar="DIR", help="Load plugins from here too, besides plugins/.")
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where run folders go.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
