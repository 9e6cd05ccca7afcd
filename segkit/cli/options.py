"""Options shared by several commands, and where trials are trained."""

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
On = Annotated[
    str | None, typer.Option("--on", metavar="ADDRESS", help="Train on a Ray cluster: ray, or ray://HOST:PORT.")
]
GpusPerTrial = Annotated[
    float, typer.Option("--gpus-per-trial", min=0.01, max=1.0, help="The share of a GPU that a trial takes.")
]
MemoryPerTrial = Annotated[
    float | None, typer.Option("--memory-per-trial", min=0.01, help="With --on: what a trial reserves, in GB.")
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="End when other processes work on all that is left.")]
