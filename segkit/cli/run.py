"""segkit run and segkit report."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from segkit.cli import DONE, INTERRUPTED, TRIAL_FAILED, WRONG_INPUT, app
from segkit.cli.options import Json, Out, Plugins, Recipes, Set, With


@app.command()
def run(
    recipes: Recipes,
    overlays: With = None,
    sets: Set = None,
    plugins: Plugins = None,
    out: Out = Path("runs"),
    name: Annotated[str | None, typer.Option("--name", help="The run folder's name; the recipe's by default.")] = None,
    jobs: Annotated[str, typer.Option("--jobs", metavar="N|auto", help="Trials side by side.")] = "auto",
    fold: Annotated[int | None, typer.Option("--fold", help="Only this fold of split.folds.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train anew what is there but differs.")] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failed trial.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="One batch through everything; nothing is kept.")] = False,
    overfit: Annotated[
        int | None, typer.Option("--overfit", metavar="N", min=1, help="Train and validate on the same N cases.")
    ] = None,
    json_: Json = False,
) -> int:
    """Train every trial of each RECIPE (skip finished, resume interrupted), evaluate, report."""
    from segkit import plugins as loader
    from segkit.cli.progress import watching
    from segkit.errors import UserError
    from segkit.study import runs
    from segkit.training.events import Limit

    if jobs != "auto" and not (jobs.isdigit() and int(jobs) > 0):
        raise UserError(f"--jobs {jobs}: should be a number of 1 or more, or auto.")
    loader.load(plugins or [])
    for failure in loader.failures():
        print(f"warning: plugin not loaded: {failure}", file=sys.stderr)
    sets = [*(sets or []), *([f"split.fold={fold}"] if fold is not None else [])]
    limit = Limit(batches=1 if dry_run else None, overfit=overfit)
    studies, skipped = runs.plan(recipes, overlays or [], sets, out, name=name, limit=limit)
    for path in skipped:
        print(f"{path}: an overlay (for --with), not run", file=sys.stderr)
    status = DONE
    summary: list[dict[str, Any]] = []
    for study in studies:
        with watching(study, quiet=json_) as watch:
            for event in study.execute(jobs=jobs, fresh=fresh, fail_fast=fail_fast):
                watch.show(event)
        outcome = study.finish()
        watch.conclude(outcome)
        summary.append(outcome.as_dict())
        if outcome.interrupted:
            status = INTERRUPTED
            break
        if outcome.failed:
            status = TRIAL_FAILED
            if fail_fast:
                break
    if json_:
        print(json.dumps(summary, indent=2))
    if not studies and not skipped:
        return WRONG_INPUT
    return status


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, e.g. runs/l1l2.")],
    plugins: Plugins = None,
) -> int:
    """Make the tables and figures of RUN again from what is on disk."""
    from segkit import plugins as loader
    from segkit.errors import UserError
    from segkit.study.report import write_report

    if plugins:
        loader.load(plugins)
    if not (folder / "recipe.toml").is_file():
        raise UserError(f"{folder}: no run folder (it has no recipe.toml).")
    write_report(folder)
    print(folder / "report.html")
    return DONE
