"""segkit check: find what is wrong with a recipe, a plugin, a dataset folder or a run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segkit.cli import DONE, TRIAL_FAILED, app, echo
from segkit.cli.inspect import load_plugins
from segkit.cli.options import Json, Plugins, Set, With, parse_path

if TYPE_CHECKING:
    from segkit.testing.findings import Finding


@app.command()
def check(
    path: Annotated[
        Path, typer.Argument(parser=parse_path, metavar="PATH", help="A recipe, a plugin, a dataset folder, or a run.")
    ],
    overlays: With = None,
    sets: Set = None,
    plugins: Plugins = None,
    json_: Json = False,
) -> int:
    """Find what is wrong with a recipe, a plugin, a dataset folder or a run, and say what to do."""
    from segkit.checks.run import check_run
    from segkit.errors import UserError
    from segkit.files import unreadable

    try:
        path.stat()
    except (OSError, ValueError) as error:
        raise UserError(unreadable(path, error)) from None
    if path.suffix == ".toml":
        load_plugins(plugins)
        return _recipe(path, overlays or [], sets or [], json_)
    if overlays:
        raise UserError(f"{path}: --with is for recipes (.toml).")
    if path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py"))):
        return _plugin(path, sets or [], plugins, json_)
    if sets:
        raise UserError(f"{path}: --set is for recipes (.toml) and plugins (.py).")
    if path.suffix == ".safetensors":
        raise UserError(f"{path}: is a checkpoint. `segkit info` shows its content; check its run folder instead.")
    load_plugins(plugins)
    if path.is_dir() and any(path.glob("*/*/trial.json")):
        passed = f"{path}: complete; every best checkpoint reproduces its cases.csv"
        return _conclude(check_run(path), json_, passed)
    if path.is_dir():
        return _data(path, json_)
    raise UserError(f"{path}: neither a recipe (.toml), a plugin (.py) nor a folder.")


def _conclude(findings: Iterable[Finding], json_: bool, passed: str, **more: Any) -> int:
    """Print findings, faults first, and return the exit status."""
    from segkit.testing.findings import count_kinds, grouped, in_order

    found = in_order(findings)
    if json_:
        echo(json.dumps({"findings": [vars(finding) for finding in found], **more}, indent=1))
    else:
        for line in grouped(found):
            echo(line)
        echo(count_kinds(found) if found else passed)
    return TRIAL_FAILED if any(finding.kind == "fault" for finding in found) else DONE


def _recipe(path: Path, overlays: list[Path], sets: list[str], json_: bool) -> int:
    from segkit.checks.recipe import check_trials
    from segkit.recipe.merge import compose
    from segkit.recipe.model import validate
    from segkit.study.plan import plan_trials, study_size
    from segkit.testing.findings import Finding

    document = compose(path, overlays=overlays, sets=sets)
    recipe = validate(document)
    planned = plan_trials(recipe, document)
    findings = [Finding("note", text) for text in document.warnings]
    printed: set[str] = set()
    for variant, found, log in check_trials(planned):
        findings += found
        for line in (*log, f"{variant}: built, one batch trained, validated, saved and evaluated"):
            if line not in printed and not json_ and not any(finding.kind == "fault" for finding in found):
                printed.add(line)
                echo(line)
    return _conclude(findings, json_, f"{path}: nothing wrong ({study_size(planned)})")


def _plugin(path: Path, sets: list[str], plugins: list[Path] | None, json_: bool) -> int:
    from segkit.testing.plugin import check_plugin

    if plugins:
        load_plugins(plugins)
    report = check_plugin(path, sets)
    if not json_:
        for name, found in report.checked.items():
            echo(f"{name}: {_verdict(found)}")
    return _conclude(report.findings, json_, f"{path}: nothing wrong", components=list(report.checked))


def _verdict(findings: Iterable[Finding]) -> str:
    from segkit.errors import counted

    faults = sum(finding.kind == "fault" for finding in findings)
    if faults:
        return counted(faults, "fault")
    return "not tried" if any(finding.text.startswith("not tried") for finding in findings) else "fulfils its contract"


def _data(path: Path, json_: bool) -> int:
    from segkit.checks.data import check_data

    report = check_data(path)
    if not json_:
        echo(f"layout: {report.layout}")
        for name, text in report.facts.items():
            echo(f"{name}: {text}")
        if report.recipe:
            echo("\nIn a recipe:\n" + "\n".join(f"  {line}" for line in report.recipe.splitlines()) + "\n")
    return _conclude(report.findings, json_, f"{path}: nothing wrong", facts=report.facts, recipe=report.recipe)
