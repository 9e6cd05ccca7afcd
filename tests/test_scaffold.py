"""`segkit new`: for every slot a component that keeps its contract, and a test that passes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from segkit import plugins
from segkit.components import REGISTRIES
from segkit.errors import UserError
from segkit.plugins import scaffold
from segkit.testing import check
from tests.fresh_plugins import fresh

__all__ = ["fresh"]

SLOTS = [registry.name for registry in REGISTRIES]


def test_every_slot_has_a_template_and_none_is_left_over() -> None:
    folder = Path(scaffold.__file__).parent / "templates"
    assert {path.name for path in folder.iterdir()} == {f"{name}.py.txt" for name in (*SLOTS, "test", "test_data")}


@pytest.mark.parametrize("slot", SLOTS)
def test_what_is_written_loads_and_keeps_its_contract(fresh: Path, slot: str) -> None:
    paths = scaffold.new(slot, f"my_{slot}", Path("plugins"))
    assert paths == [Path(f"plugins/my_{slot}.py"), Path(f"plugins/test_my_{slot}.py")]
    plugin = plugins.load_file(paths[0])
    assert plugin.components == (f"{slot}.my_{slot}",)
    registry = next(registry for registry in REGISTRIES if registry.name == slot)
    entry = registry[f"my_{slot}"]
    assert entry.summary.endswith((".", "npz."))
    assert "Args:" in entry.doc
    assert entry.fields, "a template shows how a parameter is written"
    asked = f"not tried: needs root. Pass root: `segkit check plugins/my_{slot}.py --set root=...`."
    wanted = [asked] if slot == "data" else []
    assert [finding.text for finding in check(entry)] == wanted


@pytest.mark.slow
def test_the_tests_beside_them_pass(fresh: Path) -> None:
    for slot in ("loss", "data", "transform", "metric"):
        scaffold.new(slot, f"my_{slot}", Path("plugins"))
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", "plugins"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=fresh)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


@pytest.mark.slow
def test_a_component_that_is_changed_for_the_worse_fails_its_test(fresh: Path) -> None:
    plugin, test = scaffold.new("loss", "my_loss", Path("plugins"))
    plugin.write_text(plugin.read_text().replace(".mean()", ".sum()"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=fresh)
    assert done.returncode == 1
    assert "loss 'my_loss' breaks its contract" in done.stdout


def test_slots_are_known_by_both_names_and_case_does_not_count(fresh: Path) -> None:
    scaffold.new("losses", "one", fresh)
    scaffold.new("Loss", "two", fresh)
    scaffold.new("datasets", "three", fresh)
    assert sorted(path.name for path in fresh.glob("*.py")) == [
        "one.py", "test_one.py", "test_three.py", "test_two.py", "three.py", "two.py",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "slot, name, message",
    [
        ("los", "fine", "no slot is called 'los'. Did you mean 'loss'?"),
        ("loss", "my-loss", "use lower-case letters, digits and '_'. Did you mean 'my_loss'?"),
        ("loss", "MyLoss", "Did you mean 'my_loss'?"),
        ("loss", "2d loss", "Did you mean 'my_2d_loss'?"),
        ("loss", "lambda", "Did you mean 'my_lambda'?"),
        ("loss", "../evil", "Did you mean 'evil'?"),
        ("loss", "plugins/evil", "Did you mean 'plugins_evil'?"),
        ("loss", "verlüst", "Did you mean 'verl_st'?"),
        ("loss", "", "use lower-case letters, digits and '_'."),
        ("loss", "_mine", "segkit does not load files with that name. Did you mean 'mine'?"),
        ("loss", "test_mine", "Did you mean 'mine'?"),
        ("loss", "conftest", "Did you mean 'my_conftest'?"),
        ("loss", "dice", "the loss 'dice' already exists (segkit)"),
        ("optimizer", "adam", "the optimizer 'adam' already exists (torch.optim)"),
        (
            "loss",
            "random",
            "the name of a Python module, which the test would import instead. Did you mean 'my_random'?",
        ),
    ],
)
def test_names_that_cannot_be_used_are_refused_with_a_better_one(
    fresh: Path, slot: str, name: str, message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        scaffold.new(slot, name, fresh / "plugins")
    assert list(fresh.iterdir()) == []


@pytest.mark.parametrize("name", ["mine.py", "test_mine.py"])
def test_files_that_are_there_are_kept(fresh: Path, name: str) -> None:
    (fresh / name).write_text("precious")
    with pytest.raises(UserError, match=f"{name}: already exists"):
        scaffold.new("loss", "mine", fresh)
    assert [path.name for path in fresh.iterdir()] == [name]
    assert (fresh / name).read_text() == "precious"


def test_the_command_prints_what_to_do_next(fresh: Path) -> None:
    command = [sys.executable, "-m", "segkit", "new", "loss", "my_loss"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=fresh)
    assert done.stdout.splitlines() == [
        "plugins/my_loss.py: works as it is; change it",
        "plugins/test_my_loss.py: its test",
        "",
        "Try it:",
        "  segkit check plugins/my_loss.py",
        "  python -m pytest plugins/test_my_loss.py",
        "",
        "In a recipe:",
        "  [loss.my_loss]",
        "  epsilon = 1.0",
        "  weight = 1.0",
    ]
    again = subprocess.run(command, capture_output=True, text=True, check=False, cwd=fresh)
    assert again.returncode == 2
    assert again.stderr.startswith("error: ")
