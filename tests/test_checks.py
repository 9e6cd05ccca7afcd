"""What `segkit check` finds: recipes that cannot run, run folders that do not tell the truth."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segkit.api import conclude
from segkit.checks.recipe import check_trials
from segkit.checks.run import check_run
from segkit.recipe import merge, toml
from segkit.recipe.model import validate
from segkit.recipe.source import Source
from segkit.report import figures
from segkit.study import runs
from segkit.study.plan import plan_trials
from tests.small import BASE


def composed(tree: dict[str, Any]) -> merge.Document:
    document = merge.Document()
    document.merge(tree, Source("small.toml", None, Path.cwd()))
    return document


def test_a_recipe_is_built_and_run_for_each_variant(tmp_path: Path) -> None:
    too_large = {"label": "large", "transforms": {"train": [{"RandomCrop": {"height": 4096, "width": 24}}]}}
    document = composed(BASE | {"study": {"variants": [{"label": "fine"}, too_large]}})
    fine, large = check_trials(plan_trials(validate(document), document))
    assert fine[:2] == ("fine", [])
    assert large[0] == "large"
    (finding,) = large[1]
    assert finding.kind == "fault"
    assert "RandomCrop" in finding.text


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of two trials."""
    folder = tmp_path_factory.mktemp("trained")
    tree = BASE | {
        "train": BASE["train"] | {"epochs": 2},
        "study": {"variants": [{"label": "a"}, {"label": "b", "train": {"seed": 2}}]},
    }
    (folder / "two.toml").write_text(toml.dumps(tree), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "FIGURES", {})
        (study,) = runs.plan_studies([folder / "two.toml"], [], [], folder)
        for _ in study.execute(jobs=1):
            pass
        conclude(study)
    return folder / "two"


def replaced(name: str, old: str, new: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        path = run / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return damage


def flip(run: Path) -> None:
    path = run / "a/seed-1/best.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 16
    path.write_bytes(bytes(data))


def cell(name: str, column: str, value: str) -> Callable[[Path], None]:
    """Write another value into the first row of a table."""

    def damage(run: Path) -> None:
        path = run / name
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        rows[0][column] = value
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    return damage


def swap(run: Path) -> None:
    shutil.copy(run / "b/seed-2/best.safetensors", run / "a/seed-1/best.safetensors")


def remove(run: Path) -> None:
    (run / "a/seed-1/cases.csv").unlink()


def shorten(run: Path) -> None:
    path = run / "a/seed-1/metrics.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def test_a_sound_run_folder_gives_no_finding(trained: Path) -> None:
    assert list(check_run(trained)) == []


@pytest.mark.parametrize(
    ("damage", "place", "text"),
    [
        (flip, "a/seed-1", "damaged"),
        (swap, "a/seed-1/best.safetensors", "comes from another trial"),
        (remove, "a/seed-1", "finished, but without cases.csv"),
        (shorten, "a/seed-1/metrics.csv", "has 1 epoch, trial.json says 2"),
        (cell("a/seed-1/cases.csv", "value", "0.123"), "a/seed-1/cases.csv", "1 of "),
        (cell("a/seed-1/metrics.csv", "epoch", "3"), "a/seed-1/metrics.csv", "its epochs are not 1, 2, 3"),
        (cell("summary.csv", "mean", "0.999"), "summary.csv", "does not agree with the trials"),
        (replaced("a/seed-1/recipe.toml", "lr = 0.01", "lr = 0.02"), "a/seed-1/recipe.toml", "differs from the recipe"),
        (replaced("a/seed-1/recipe.toml", "lr = 0.01", "lr = = 0.01"), "a/seed-1", "damaged"),
        (replaced("a/seed-1/trial.json", "{", "["), "a/seed-1", "damaged: not valid JSON"),
    ],
    ids=[
        "flipped bit",
        "swapped",
        "missing",
        "short metrics",
        "case",
        "epochs",
        "summary",
        "recipe",
        "no TOML",
        "not valid JSON",
    ],
)
def test_what_is_wrong_with_a_run_folder_is_found_at_its_place(
    damage: Callable[[Path], None], place: str, text: str, trained: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "two"))
    damage(run)
    faults: list[Any] = [finding for finding in check_run(run) if finding.kind == "fault"]
    assert any(finding.place.endswith(place) and text in finding.text for finding in faults), faults


def test_metrics_that_the_checkpoint_denies_are_found(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "two"))
    best = json.loads((run / "a/seed-1/trial.json").read_text())["best_epoch"]
    path = run / "a/seed-1/metrics.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rows[best - 1]["val_loss"] = "0.5"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    assert any("says val_loss = " in finding.text for finding in check_run(run))


@pytest.mark.parametrize("state", ["running", "failed"])
def test_a_trial_that_is_trained_or_was_killed_has_no_faults(state: str, trained: Path, tmp_path: Path) -> None:
    """Its table may be ahead of trial.json, and behind the best weights."""
    run = Path(shutil.copytree(trained, tmp_path / "two"))
    status, table = run / "a/seed-1/trial.json", run / "a/seed-1/metrics.csv"
    status.write_text(json.dumps(json.loads(status.read_text()) | {"status": state, "epochs_done": 0}))
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:2]))
    found = [finding for finding in check_run(run) if "a/seed-1" in str(finding.place)]
    assert [finding.kind for finding in found] == ["note"]


def test_what_is_no_run_folder_and_what_is_unfinished(trained: Path, tmp_path: Path) -> None:
    (finding,) = check_run(tmp_path)
    assert "holds no trial" in finding.text
    run = Path(shutil.copytree(trained, tmp_path / "two"))
    status = run / "a/seed-1/trial.json"
    status.write_text(json.dumps(json.loads(status.read_text()) | {"status": "failed", "error": "it was hot"}))
    found = [finding for finding in check_run(run) if finding.kind == "note"]
    assert any("is failed: it was hot" in finding.text for finding in found)
