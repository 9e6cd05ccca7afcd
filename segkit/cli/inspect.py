"""segkit list, show and schema: what a recipe can contain, and what one contains."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.cells import cell_len

from segkit.cli import DONE, app, echo, warn
from segkit.cli.options import Json, Plugins, Set, With, parse_path
from segkit.errors import pad, printable

if TYPE_CHECKING:
    from segkit.registry.component import Entry


def load_plugins(extra: list[Path] | None) -> None:
    """Load plugins and warn of those that failed."""
    from segkit import plugins

    warn(f"plugin not loaded: {failure}" for failure in plugins.load(extra or []))


@app.command("list")
def list_(
    slot: Annotated[str | None, typer.Argument(metavar="[SLOT]", help="E.g. losses; all slots by default.")] = None,
    plugins: Plugins = None,
    json_: Json = False,
) -> int:
    """List all components, or those of SLOT: name, summary and origin."""
    from segkit.components import REGISTRIES, registry_of
    from segkit.errors import truncate

    load_plugins(plugins)
    chosen = [registry_of(slot)] if slot else REGISTRIES
    if json_:
        echo(json.dumps([_entry_as_dict(entry) for registry in chosen for entry in registry], indent=1))
        return DONE
    columns = shutil.get_terminal_size((100, 24)).columns
    for number, registry in enumerate(chosen):
        entries = list(registry)
        echo(("\n" if number else "") + registry.plural)
        width = max((len(entry.name) for entry in entries), default=0)
        for entry in entries:
            origin = "" if entry.origin == "segkit" else f"  ({entry.origin})"
            room = columns - width - 4
            if room - len(origin) < 24:
                origin = ""  # `segkit show` has it
            room = max(room - len(origin), 24)
            summary = (
                entry.summary
                if len(entry.summary) <= room
                else truncate(re.split(r"\. (?=[A-Z])", entry.summary)[0], room)
            )
            echo(f"  {entry.name:<{width}}  {summary}{origin}")
    return DONE


def _entry_as_dict(entry: Entry) -> dict[str, Any]:
    return {"slot": entry.slot.name, "name": entry.name, "summary": entry.summary, "origin": entry.origin}


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME|RECIPE", help="A component, e.g. dice or loss.dice; a recipe.")],
    overlays: With = None,
    sets: Set = None,
    plugins: Plugins = None,
    weights: Annotated[
        bool, typer.Option("--weights", help="Name the weights of a RECIPE's model, as train.freeze matches them.")
    ] = False,
    json_: Json = False,
) -> int:
    """Show a component with its parameters; or a RECIPE, filled, with the origin of each value."""
    load_plugins(plugins)
    if name.endswith(".toml") or Path(name).is_file():
        if weights:
            return _show_weights(Path(name), overlays or [], sets or [], json_)
        return _show_recipe(Path(name), overlays or [], sets or [], json_)
    from segkit.errors import UserError
    from segkit.recipe.describe import describe, parameters, snippet

    if overlays or sets or weights:
        flags = "--set, --with and --weights"
        raise UserError(f"{name}: {flags} are for recipes (.toml), and this is a component's name.")
    entries = _find(name)
    if json_:
        found = [
            _entry_as_dict(e)
            | {"documentation": e.doc, "parameters": [vars(p) for p in parameters(e)], "snippet": snippet(e)}
            for e in entries
        ]
        echo(json.dumps(found, indent=1))
    else:
        echo("\n\n".join("\n".join(describe(entry)) for entry in entries))
    return DONE


def _find(name: str) -> list[Entry]:
    """Return the components of a name, in any slot, or in the one before a dot."""
    from segkit.components import REGISTRIES, registry_of
    from segkit.errors import UserError, suggest

    slot, dot, rest = name.rpartition(".")
    searched = [registry_of(slot)] if dot else REGISTRIES
    found = [registry[rest] for registry in searched if rest in registry]
    if not found:
        known = [known for registry in searched for known in registry.names()]
        raise UserError(f"no component or recipe is called '{name}'. {suggest(rest, known)}")
    return found


def _show_weights(path: Path, overlays: list[Path], sets: list[str], json_: bool) -> int:
    from segkit.recipe.model import Recipe
    from segkit.training.setup import build_model

    model = build_model(Recipe.load(path, overlays=overlays, sets=sets), inputs=1, channels=1, filled=True)
    found = {name: list(weight.shape) for name, weight in model.named_parameters()}
    if json_:
        echo(json.dumps(found, indent=1))
        return DONE
    width = max(map(len, found), default=0)
    echo(printable("\n".join(f"{name:<{width}}  {' x '.join(map(str, shape))}" for name, shape in found.items())))
    warn(["The shapes are for one input and one channel; names do not depend on the data."])
    return DONE


def _show_recipe(path: Path, overlays: list[Path], sets: list[str], json_: bool) -> int:
    from segkit.recipe import toml
    from segkit.recipe.describe import value_origins
    from segkit.recipe.merge import compose
    from segkit.recipe.model import validate
    from segkit.study.plan import plan_trials, study_size

    document = compose(path, overlays=overlays, sets=sets)
    recipe = validate(document)
    planned = plan_trials(recipe, document)
    rows = value_origins(recipe, document)
    warn(document.warnings)
    if json_:
        found = [{"path": ".".join(path), "value": value, "origin": origin} for path, value, origin in rows]
        echo(json.dumps(found, indent=1))
        return DONE
    lines: list[tuple[str, str]] = []
    heading: tuple[str, ...] = ()
    for where, value, origin in rows:
        bare = value == {} and len(where) == 2  # a component without parameters
        table = where if bare else where[: min(2, len(where) - 1)]
        if table != heading:
            lines += [("", ""), (f"[{'.'.join(toml.format_key(part) for part in table)}]", origin if bare else "")]
            heading = table
        if not bare:
            name = ".".join(toml.format_key(part) for part in where[len(table) :])
            lines.append((f"{name} = {toml.format_value(value)}", origin))
    lines = [(printable(text), origin) for text, origin in lines]
    width = min(max(cell_len(text) for text, _ in lines), 60)
    for text, origin in lines:
        echo(f"{pad(text, width)}  # {origin}" if origin else text)
    echo(f"\n# {study_size(planned)}: {'; '.join(dict.fromkeys(trial.variant for trial in planned))}")
    return DONE


@app.command()
def schema(
    plugins: Plugins = None,
    out: Annotated[Path | None, typer.Option("--out", parser=parse_path, metavar="FILE", help="Write it here.")] = None,
) -> int:
    """Print the JSON Schema of recipes, plugins included, for editors."""
    from segkit import files
    from segkit.recipe.schema import recipe_schema

    if out is not None:
        files.check_replaceable(out, begins="{")
    load_plugins(plugins)
    text = json.dumps(recipe_schema(), indent=1)
    if out is None:
        echo(text)
    else:
        files.make_folder(out.parent)
        files.write_text(out, text + "\n")
        echo(f'{out}: put "#:schema {out}" on the first line of a recipe')
    return DONE
