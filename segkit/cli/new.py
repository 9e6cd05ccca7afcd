"""segkit new: a working plugin to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segkit.cli import DONE, app, echo
from segkit.cli.options import parse_path
from segkit.components import registry_of


@app.command()
def new(
    slot: Annotated[str, typer.Argument(metavar="SLOT", help="E.g. loss; `segkit list` shows all of them.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="What recipes will call it.")],
    folder: Annotated[Path, typer.Option("--folder", parser=parse_path, metavar="DIR", help="Where to write.")] = Path(
        "plugins"
    ),
) -> int:
    """Write a working plugin for SLOT called NAME, and its test."""
    from segkit import plugins
    from segkit.plugins import scaffold
    from segkit.recipe.describe import snippet

    plugins.load()
    plugin, test = scaffold.new(slot, name, folder)
    (component,) = plugins.load_file(plugin).components
    echo(f"{plugin}: works as it is; change it\n{test}: its test\n\nTry it:")
    echo(f"  segkit check {plugin}\n  python -m pytest {test}\n\nIn a recipe:")
    echo("\n".join(f"  {line}" for line in snippet(registry_of(component.partition(".")[0])[name]).splitlines()))
    return DONE
