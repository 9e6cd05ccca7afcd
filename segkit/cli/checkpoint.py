"""segkit eval and info: commands on a checkpoint."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.cells import cell_len

from segkit.cli import DONE, app, echo, warn
from segkit.cli.options import Json, Plugins, parse_path
from segkit.errors import counted, pad, printable

if TYPE_CHECKING:
    from segkit.evaluation.rows import Row

Checkpoint = Annotated[
    Path, typer.Argument(parser=parse_path, metavar="CHECKPOINT", help="A best or last .safetensors file.")
]
CheckpointOrFolder = Annotated[
    Path,
    typer.Argument(
        parser=parse_path,
        metavar="CHECKPOINT",
        help="A best or last .safetensors file, or a variant's folder: the best ones of all its seeds and folds.",
    ),
]
WithCheckpoints = Annotated[
    list[Path] | None,
    typer.Option(
        "--with-checkpoint",
        parser=parse_path,
        metavar="FILE-OR-FOLDER",
        help="Average the probabilities of these too; may be repeated.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Set one value of its recipe, e.g. evaluation.tta=flips."),
]
Trust = Annotated[
    bool, typer.Option("--trust-plugins", help="Run the plugin code inside the checkpoint if it is not here.")
]
Device = Annotated[str | None, typer.Option("--device", help="Compute here instead of where the recipe says.")]


def prepare(path: Path, others: list[Path] | None, plugins: list[Path] | None) -> Path | list[Path]:
    """Load plugins, and warn of those that have changed since the training; return the checkpoint, or all of them."""
    from segkit import plugins as loader
    from segkit.study.checkpoints import find_checkpoints
    from segkit.training.checkpoint import read_meta

    loader.load(plugins or [])
    found = find_checkpoints([path, *(others or [])])
    metas = [read_meta(file) for file in found]
    warn(dict.fromkeys(line for meta in metas for line in loader.changed_plugins(meta)))
    sources = {(plugin["module"], plugin["sha256"]): plugin["origin"] for meta in metas for plugin in meta["plugins"]}
    several = {name for (module, _), name in sources.items() if sum(other == module for other, _ in sources) > 1}
    warn(f"the checkpoints hold different versions of {name}: one of them runs for all." for name in sorted(several))
    return found if len(found) > 1 else found[0]


@app.command("eval")
def evaluate(
    path: CheckpointOrFolder,
    others: WithCheckpoints = None,
    sets: Settings = None,
    plugins: Plugins = None,
    trust_plugins: Trust = False,
    device: Device = None,
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", parser=parse_path, metavar="FILE", help="Write the rows here, as in cases.csv."),
    ] = None,
    json_: Json = False,
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            metavar="SET",
            help="train, validation, test or all; by default test, or validation where there is no test set.",
        ),
    ] = None,
) -> int:
    """Compute per-case metrics from CHECKPOINT alone; on other data with --set data....

    Of several checkpoints, those are averaged that were neither trained on a case's patient nor chosen by it.
    """
    from segkit import api, files
    from segkit.training.results import OLD_HEADER, cases_text

    if csv_file:
        files.check_replaceable(csv_file, begins=",".join(OLD_HEADER[:4]))
    notes: list[str] = []
    chosen = prepare(path, others, plugins)
    rows = api.evaluate(
        chosen, on=on, sets=sets or [], trust_plugins=trust_plugins, device=device, on_note=notes.append
    )
    if csv_file:
        files.make_folder(csv_file.parent)
        files.write_text(csv_file, cases_text(rows))
    if json_:
        found = [vars(row) | {"value": None if math.isnan(row.value) else row.value} for row in rows]
        echo(json.dumps(found, indent=1))
        for note in notes:
            echo(note, err=True)
    else:
        echo("\n".join([*_table(rows), *notes]))
    cases = {row.case: row.set for row in rows}
    trained = sum(name == "train" for name in cases.values())
    if trained:
        warn(
            [
                f"{trained} of {counted(len(cases), 'case')} {'is' if trained == 1 else 'are'} of patients that this "
                "checkpoint was trained on (set train): their values say nothing about new patients."
            ]
        )
    return DONE


def _table(rows: list[Row]) -> list[str]:
    """Return a line per case and channel, then the means of each set and the counts, in columns."""
    from segkit.evaluation.rows import means

    metrics = list(dict.fromkeys(row.metric for row in rows))
    sets = Counter({row.case: row.set for row in rows}.values())
    cells: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in rows:
        cells.setdefault((row.case, row.channel, row.set), {})[row.metric] = row.value
    found = list(cells.items())
    for name, channel in dict.fromkeys((row.set, row.channel) for row in rows):
        own = [row for row in rows if (row.set, row.channel) == (name, channel)]
        found.append((("mean", channel, name), means(own)))
    kept = 3 if len(sets) > 1 else 2  # the set is said once, below, if all are of one
    lines = [["case", "channel", "set"][:kept] + metrics]
    lines += [[*key[:kept], *(_number(values[metric]) for metric in metrics)] for key, values in found]
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    first = [row for row in rows if row.metric == metrics[0]] if metrics else []
    empty = [row for row in first if not row.truth_pixels]
    false = sum(row.predicted_pixels > 0 for row in empty)
    missed = sum(row.truth_pixels > 0 and not row.predicted_pixels for row in first)
    return [
        *("  ".join(map(pad, line, widths)).rstrip() for line in lines),
        f"{counted(len(first), 'case channel')}: {len(empty)} with empty truth ({false} with a false positive), "
        f"{missed} missed",
        "set: " + ", ".join(f"{name} ({counted(count, 'case')})" for name, count in sets.items()),
    ]


def _number(value: float | None) -> str:
    return "undefined" if value is None or math.isnan(value) else f"{value:.4f}"


@app.command()
def info(
    path: Checkpoint,
    sources: Annotated[bool, typer.Option("--sources", help="Print the plugin sources inside.")] = False,
    json_: Json = False,
) -> int:
    """Show what CHECKPOINT holds: recipe, channels, metrics, plugins, versions. None of its code is run."""
    from segkit.recipe import toml
    from segkit.recipe.identity import TRAINING_NUMBER, incomparable_note
    from segkit.training.checkpoint import read_meta

    meta = read_meta(path)
    if json_:
        echo(json.dumps(meta, indent=1))
        return DONE
    if sources:
        for plugin in meta["plugins"]:
            for module, text in plugin["sources"].items():
                echo(f"# {module} ({plugin['origin']}, sha256 {plugin['sha256']})\n{text}")
        return DONE
    split = meta["split"]
    done = meta["epoch"] - (meta["kind"] == "last")  # whose number is that of the epoch to come, or under way
    echo(f"{path}: the {meta['kind']} checkpoint after epoch {done}, step {meta['step']}")
    echo(f"variant:    {meta['variant']}")
    echo(f"channels:   {', '.join(meta['channels'])} ({'exclusive' if meta['exclusive'] else 'independent'})")
    bare = f" and {len(split['unlabelled'])} without masks" if split["unlabelled"] else ""
    test = f", {len(split['test'])} for the test" if split["test"] else ""
    echo(f"cases:      {len(split['train'])}{bare} for training, {len(split['validation'])} for validation{test}")
    echo("metrics:    " + ", ".join(f"{name} {_number(value)}" for name, value in meta["metrics"].items()))
    compiled = ", compiled" if meta["compile"] else ""
    threads = counted(meta["threads"], "CPU thread")
    echo(f"trained on: {meta['device']}, {meta['precision']}, {threads}{compiled}")
    if meta["training_number"] != TRAINING_NUMBER:
        echo(f"warning:    {incomparable_note(meta['training_number'])}")
    echo("versions:   " + ", ".join(f"{name} {number}" for name, number in meta["versions"].items()))
    echo("plugins:    " + (", ".join(f"{p['origin']} ({p['sha256'][:12]})" for p in meta["plugins"]) or "none"))
    echo("recipe:\n")
    echo(toml.dumps(meta["recipe"]).rstrip("\n"))
    return DONE
