"""segkit run and segkit report."""

from __future__ import annotations

import faulthandler
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segkit import interrupts
from segkit.cli import DONE, INTERRUPTED, TRIAL_FAILED, app, echo, warn
from segkit.cli.inspect import load_plugins
from segkit.cli.options import (
    GpusPerTrial,
    Json,
    MemoryPerTrial,
    NoWait,
    On,
    Out,
    Plugins,
    Recipes,
    Set,
    With,
    parse_path,
)

if TYPE_CHECKING:
    from segkit.study.runs import Outcome, StudyRun

MAX_JOBS = 1024


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
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again what is there but differs.")] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failed trial.")] = False,
    mix_hardware: Annotated[
        bool,
        typer.Option("--mix-hardware", help="Allow trials of different devices, threads and the like."),
    ] = False,
    on: On = None,
    gpus_per_trial: GpusPerTrial = 1.0,
    memory_per_trial: MemoryPerTrial = None,
    no_wait: NoWait = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="One batch through everything; nothing is kept.")] = False,
    overfit: Annotated[
        int | None, typer.Option("--overfit", metavar="N", min=1, help="Train and validate on the same N cases.")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache", parser=parse_path, metavar="DIR", help="Where decoded data are kept; .cache in --out by default."
        ),
    ] = None,
    json_: Json = False,
) -> int:
    """Train every trial of each RECIPE (skip finished, resume interrupted), evaluate, report."""
    interrupts.exit_immediately()  # nothing has started yet

    from segkit import files
    from segkit.errors import UserError
    from segkit.study import runs
    from segkit.study.executor import place_of
    from segkit.training.trial import Limit

    if not faulthandler.is_enabled():
        faulthandler.enable(2)  # crashes in native code show the calling line
    _check_options(recipes, name, jobs, dry_run=dry_run, overfit=overfit, fresh=fresh)
    load_plugins(plugins)
    sets = [*(sets or []), *([f"split.fold={fold}"] if fold is not None else [])]
    limit = Limit(batches=1 if dry_run else None, overfit=overfit)
    try:
        studies = runs.plan_studies(recipes, overlays or [], sets, out, name=name, limit=limit, cache=cache)
    except UserError as error:  # name the flag as typed
        raise UserError(str(error).replace(f"--set split.fold={fold}:", f"--fold {fold}:")) from None
    if not dry_run:
        for study in studies:
            files.check_writable(study.folder)
    warn(text for study in studies for text in study.warnings)
    memory = int(memory_per_trial * 1e9) if memory_per_trial else None
    options = {
        **{"jobs": jobs, "fresh": fresh, "fail_fast": fail_fast, "mix_hardware": mix_hardware, "wait": not no_wait},
        "place": place_of(on, gpus_per_trial=gpus_per_trial, memory=memory),
    }
    status = DONE
    summary: list[dict[str, Any]] = []
    interrupts.raise_interrupt()  # trials install their own handler
    for study in studies:
        try:
            outcome = _run_study(study, json_, **options)
        except KeyboardInterrupt:
            echo(study.after_interrupt(), err=True)
            status = INTERRUPTED
            break
        summary.append(outcome.as_dict())
        if outcome.interrupted:
            status = INTERRUPTED
            break
        if outcome.failed:
            status = TRIAL_FAILED
            if fail_fast:
                break
    if json_:
        echo(json.dumps(summary, indent=2))
    return status


def _run_study(study: StudyRun, quiet: bool, **options: Any) -> Outcome:
    """Run a study with the `options` of its `execute`, show its progress, and write its report."""
    from segkit.api import conclude
    from segkit.cli.progress import show_progress

    with show_progress(study, quiet=quiet) as watch:
        for event in study.execute(progress=watch.read, **options):
            watch.show(event)
    if not study.limit.batches:
        interrupts.exit_immediately(study.after_interrupt())
    outcome = conclude(study)
    watch.conclude(outcome)
    interrupts.raise_interrupt()
    return outcome


def _check_options(
    recipes: list[Path], name: str | None, jobs: str, *, dry_run: bool, overfit: int | None, fresh: bool
) -> None:
    """Raise UserError for options that are wrong or exclude each other."""
    from segkit.errors import UserError

    if jobs != "auto" and not (jobs.isascii() and jobs.isdigit() and 0 < int(jobs[:9]) <= MAX_JOBS):
        raise UserError(f"--jobs {jobs}: must be a number from 1 to {MAX_JOBS:,}, or auto.")
    if name is not None and (not name.strip() or name.strip() in (".", "..") or "/" in name or "\\" in name):
        raise UserError(f"--name {name!r}: must be the name of one folder. Use --out for another place.")
    if name is not None and len(recipes) > 1:
        raise UserError(
            f"--name {name}: names one run folder, but {len(recipes)} recipes are given. Run one at a time."
        )
    if dry_run and (overfit is not None or fresh):
        other = "--overfit" if overfit is not None else "--fresh"
        raise UserError(f"--dry-run {other}: a dry run keeps nothing. Use one or the other.")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(parser=parse_path, metavar="RUN", help="A run folder, e.g. runs/l1l2.")],
    plugins: Plugins = None,
) -> int:
    """Write the tables and figures of RUN again from its files."""
    from segkit import plugins as loader
    from segkit.errors import UserError
    from segkit.report.render import write_report

    if not folder.is_dir():
        raise UserError(f"{folder}: {'a file, ' if folder.exists() else ''}not a run folder. `segkit run` creates one.")
    if plugins:
        loader.load(plugins)
    if not (folder / "recipe.toml").is_file():
        raise UserError(
            f"{folder}: not a run folder: it has no recipe.toml. Give the folder of a study, such as runs/l1l2."
        )
    interrupts.exit_immediately()
    write_report(folder)
    echo(folder / "report.html")
    return DONE
