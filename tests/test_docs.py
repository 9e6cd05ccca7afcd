"""The documentation: links and paths lead somewhere, recipes are valid, plugins keep their contract, options exist."""

from __future__ import annotations

import ast
import re
import subprocess
import textwrap
from pathlib import Path

import pytest
import typer

import segkit
from segkit import plugins
from segkit.components import REGISTRIES
from segkit.recipe.model import Recipe
from segkit.testing import assert_contract
from tests.fresh_plugins import fresh
from tests.test_architecture import FLOORS

__all__ = ["fresh"]

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS, ROOT / "recipes/README.md", ROOT / "plugins/README.md"]
PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
GUIDE = ROOT / "docs/plugins.md"
BY_THE_READER = {"recipes/my_study.toml", "recipes/power_dice.toml"}  # files that a page tells its reader to write


def blocks(page: Path, kind: str) -> list[str]:
    """Return the code blocks of a language, without their common indent."""
    found = re.findall(rf"^( *```{kind}\n.*?)^ *```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block).partition("\n")[2] for block in found]


def test_there_are_pages() -> None:
    assert len(DOCS) >= 5


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_are_merged(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search("^(<{7}|={7}|>{7})", text, re.MULTILINE)
    assert not re.search("[^\\n]\\n## ", text), "a heading needs a blank line before it"


def test_the_front_page_links_every_page() -> None:
    front = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in DOCS if f"](docs/{page.name})" not in front] == []
    assert len(front.splitlines()) <= 90


@PAGE
def test_paths_of_the_repository_exist(page: Path) -> None:
    named = set(re.findall(r"(?<![\w/.])(?:recipes|tests|segkit|docs)/[\w./-]*\w", page.read_text(encoding="utf-8")))
    assert [path for path in sorted(named - BY_THE_READER) if not (ROOT / path).exists()] == []


@PAGE
def test_commands_and_options_exist(page: Path) -> None:
    from segkit.cli import check, checkpoint, inspect, new, predict, run  # each adds its commands

    assert {check, checkpoint, inspect, new, predict, run}
    commands = typer.main.get_command(segkit.cli.app).commands  # type: ignore[attr-defined]
    typed = re.compile(r"(?:^ +|&& |`|bin/)segkit (\w+)\b([^`#\n]*)", re.MULTILINE)
    for name, words in typed.findall(page.read_text(encoding="utf-8")):
        options = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(re.findall(r"(?<=\s)--\w[\w-]*", words)) <= options, f"segkit {name}{words}"


@PAGE
def test_recipes_are_valid(page: Path, fresh: Path) -> None:
    (fresh / "power_dice.py").write_text(blocks(GUIDE, "python")[0], encoding="utf-8")
    plugins.load_file(fresh / "power_dice.py")
    for text in blocks(page, "toml"):
        if "extends = " in text:
            (fresh / "page.toml").write_text(re.sub(r'(?<=^extends = ")', f"{ROOT}/recipes/", text), encoding="utf-8")
            Recipe.load(fresh / "page.toml")


@PAGE
def test_python_is_valid_and_plugins_keep_their_contract(page: Path, fresh: Path) -> None:
    for number, text in enumerate(blocks(page, "python")):
        ast.parse(text)
        if ".register(" not in text or "import" not in text:
            continue
        (fresh / f"page_{number}.py").write_text(text, encoding="utf-8")
        plugin = plugins.load_file(fresh / f"page_{number}.py")
        for component in plugin.components:
            slot, name = component.split(".")
            registry = next(registry for registry in REGISTRIES if registry.name == slot)
            if slot != "data":  # needs files
                assert_contract(registry[name])


def test_the_dataset_of_the_guide_reads_its_files(fresh: Path) -> None:
    import numpy as np

    (fresh / "guide.py").write_text(blocks(GUIDE, "python")[1], encoding="utf-8")
    plugins.load_file(fresh / "guide.py")
    mask = np.zeros((40, 30), np.uint8)
    mask[10:20, 5:15] = 1
    for name in ("p1_a", "p1_b", "p2_a"):
        np.savez(fresh / f"{name}.npz", image=mask * np.uint8(200), mask=mask)
    assert_contract(segkit.datasets["npz_folder"], root=str(fresh))
    cases = segkit.datasets.build("npz_folder", {"root": str(fresh)}).cases
    assert [(case.name, case.patient) for case in cases] == [("p1_a", "p1"), ("p1_b", "p1"), ("p2_a", "p2")]


@pytest.mark.parametrize("status", [0, 1, 130])
def test_the_slurm_script_queues_again_what_was_interrupted(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (script,) = blocks(ROOT / "docs/machines.md", "bash")
    (tmp_path / "study.sbatch").write_text(script, encoding="utf-8")
    for name, code in {"srun": '"$@"', "segkit": f"exit {status}", "scontrol": 'echo "$@" > told'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{code}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert subprocess.run(["bash", "study.sbatch"], cwd=tmp_path, check=False).returncode == status
    told = tmp_path / "told"
    assert (told.read_text(encoding="utf-8") if told.exists() else "") == ("requeue 7_3\n" if status == 130 else "")


def test_the_loss_of_the_guide_takes_its_parameter(fresh: Path) -> None:
    (fresh / "power_dice.py").write_text(blocks(GUIDE, "python")[0], encoding="utf-8")
    plugins.load_file(fresh / "power_dice.py")
    assert_contract(segkit.losses["power_dice"], power=3.0)


@pytest.mark.parametrize("page, files", [(GUIDE, "plugins/*.py"), (ROOT / "recipes/README.md", "recipes/*.toml")])
def test_tables_name_every_file(page: Path, files: str) -> None:
    listed = re.findall(r"^\| `(\w+\.\w+)` \| [^|]+ \| [^|]+ \|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in ROOT.glob(files))


def test_the_parts_stand_in_the_order_of_their_floors() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]+`) \| [^|]+ \|$", text.partition("| part |")[2].partition("\n\n")[0], re.MULTILINE)
    parts = [part for row in rows for part in re.findall(r"`(\w+)(?:/|\.py)`", row)]
    assert parts == [part for part in FLOORS if not part.startswith("__")]


def test_the_changelog_has_the_version() -> None:
    assert f"\n## {segkit.__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
