"""segkit new: a plugin that works, to be changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segkit.cli import DONE, app, echo
from segkit.cli.options import parse_path
from segkit.components import REGISTRIES


@app.command()
def new(
    slot: Annotated[str, typer.Argument(metavar="SLOT", help="E.g. loss; `segkit list` shows all ten.")],
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
    registry = next(registry for registry in REGISTRIES if registry.name == component.partition(".")[0])
    echo(f"{plugin}: works as it is; change it\n{test}: its test\n\nTry it:")
    echo(f"  segkit check {plugin}\n  python -m pytest {test}\n\nIn a recipe:")
    echo("\n".join(f"  {line}" for line in snippet(registry[name]).splitlines()))
    return DONE
