"""What segkit 0.1.0 left behind: read, evaluated and shown, but never gone on with, reused or compared."""

from __future__ import annotations

import csv
import importlib
import shutil
from pathlib import Path

import numpy as np
import pytest

import segkit
from segkit import UserError, plugins
from segkit.checks.run import check_run
from segkit.report import figures
from segkit.report.render import write_report
from segkit.study import runs
from segkit.training import checkpoint
from tests.fresh_plugins import fresh

__all__ = ["fresh"]

FORMER_NAMES = {  # what plugins of 0.1.0 and the guide of then imported
    "segkit": "Component UserError datasets losses metrics models regularizers upsamplers",
    "segkit.datasets": "Case Dataset fill read_contour read_dicom",
    "segkit.datasets.case": "Case Dataset",
    "segkit.datasets.contours": "Contour fill outside outside_notes read_contour",
    "segkit.datasets.dicom": "read_dicom",
    "segkit.datasets.reading": "MOST_TEXT decode entries inside is_folder once open_root read_bytes shortened",
    "segkit.errors": "counted",
    "segkit.metrics": "Mask Probability Spacing hard",
    "segkit.types": "Fraction Positive Tensor",
}
FIXTURES = Path(__file__).parent / "fixtures/segkit-0.1.0"
SENTENCE = (
    r"it was trained by an older version of segkit, in which the same recipe gives other numbers \(training number 1, "
    r"now 2\)\. It can be evaluated and shown, but not resumed, reused or compared with current trials"
)


@pytest.fixture
def here(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the plugins and run folders of then; no figures are drawn."""
    tmp_path = fresh
    shutil.copytree(FIXTURES, tmp_path / "runs")
    shutil.move(tmp_path / "runs/recipe.toml", tmp_path / "old.toml")
    (tmp_path / "plugins").mkdir()
    shutil.copy(Path(__file__).parents[1] / "plugins/log_cosh_dice.py", tmp_path / "plugins")
    monkeypatch.setattr(figures, "FIGURES", {})
    return tmp_path


def study(name: str, *sets: str) -> runs.StudyRun:
    (found,) = runs.plan_studies([Path("old.toml")], [], ["study.seeds=[1]", *sets], Path("runs"), name=name)
    return found


@pytest.mark.parametrize("module", FORMER_NAMES)
def test_former_names_can_be_imported(module: str) -> None:
    for name in FORMER_NAMES[module].split():
        assert getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("file", sorted(FIXTURES.rglob("*.safetensors")), ids=lambda path: str(path.parent.name))
def test_checkpoints_of_then_are_read(fresh: Path, file: Path) -> None:
    meta = checkpoint.read_meta(file)
    assert (meta["format"], meta["training_number"], meta["threads"], meta["compile"]) == (3, 1, 1, False)
    assert checkpoint.load(file, with_state=True).weights
    assert segkit.load(file).predict(np.zeros((9, 7), np.uint8)).shape == (2, 9, 7)


@pytest.mark.parametrize("variant", ["none", "plugin_loss"])
def test_checkpoints_of_then_give_their_rows(fresh: Path, variant: str) -> None:
    folder = FIXTURES / "old" / variant / "seed-1"
    with open(folder / "cases.csv", encoding="utf-8", newline="") as file:
        then = list(csv.DictReader(file))
    now = segkit.evaluate(folder / "best.safetensors")
    names = ("case", "channel", "metric")
    assert [[getattr(row, name) for name in names] for row in now] == [[row[name] for name in names] for row in then]
    wanted = [float(row["value"]) if row["value"] else np.nan for row in then]
    np.testing.assert_allclose([row.value for row in now], wanted, atol=1e-4)


def test_a_study_of_then_is_not_mixed_with_trials_of_today(here: Path) -> None:
    before = {path: path.read_bytes() for path in Path("runs/old").rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=rf"runs/old/none/seed-1 and 1 more: {SENTENCE}\. Use --fresh"):
        list(study("old").execute(jobs=1))
    assert all(path.read_bytes() == data for path, data in before.items())
    ends = [event.kind for event in study("old").execute(jobs=1, fresh=True)]
    assert ends.count("finished") == 2


def test_a_training_of_then_is_not_gone_on_with(here: Path) -> None:
    with pytest.raises(UserError, match=SENTENCE):
        list(study("stopped", "train.epochs=6", "study.seeds=[3]").execute(jobs=1))
    for path in Path("runs/stopped").rglob("trial.json"):
        path.unlink()
    events = list(study("stopped", "train.epochs=6", "study.seeds=[3]").execute(jobs=1))
    assert any(event.kind == "failed" and "Train it again with --fresh" in event.text for event in events)


def test_a_trial_of_then_is_not_copied_into_a_study_of_today(here: Path) -> None:
    ends = {event.trial: event.kind for event in study("new").execute(jobs=1)}
    assert ends == {"none/seed-1": "finished", "plugin_loss/seed-1": "finished"}


def test_a_study_of_then_is_shown(here: Path) -> None:
    table = write_report(Path("runs/old"))
    assert any("plugin loss" in line for line in table)
    assert "cannot be told apart" in Path("runs/old/report.md").read_text(encoding="utf-8")


def test_check_does_not_call_it_a_fault_that_they_are_of_then(here: Path) -> None:
    plugins.load()
    for name in ("report.md", "report.html"):
        Path("runs/old", name).touch()
    told = {(finding.kind, finding.where): finding.text for finding in check_run(Path("runs/old"))}
    assert {kind for kind, _ in told} == {"note"}, told
    assert told["note", "runs/old/summary.csv"].startswith("has the columns of another version of segkit.")
    write_report(Path("runs/old"))
    assert not [finding for finding in check_run(Path("runs/old")) if "summary.csv" in finding.where]
