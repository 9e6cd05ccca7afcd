"""Trials with a test set, the epoch that they keep, and the evaluation of any set of a checkpoint."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import segkit
from segkit import UserError
from segkit.checks.run import check_run
from segkit.cli import main
from segkit.components.datasets.case import Dataset
from segkit.evaluation.overlay import picture_name
from segkit.evaluation.rows import Row
from segkit.plugins import isolated
from segkit.recipe import identity
from segkit.recipe.sections import Train
from segkit.training import checkpoint
from segkit.training.results import OLD_HEADER, cases_text
from segkit.training.selection import keeps, score_of
from segkit.types import Mask, Spacing
from tests import small
from tests.small import kinds, train
from tests.test_trial import FOLDER, rows_of, same

BEST = FOLDER / "best.safetensors"


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trial of six patients, of which one is for the test; one is for validation."""
    run = tmp_path_factory.mktemp("tested")
    events = train(run, "split.test=0.17", "split.validation=0.17")
    assert kinds(events)[-1] == "finished"
    assert "; test: dice 0." in events[-1].text
    assert any("2 of 1 patient for validation, 2 of 1 patient for the test;" in event.text for event in events)
    return run


def by_set(rows: list[Row]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row.set, set()).add(row.case)
    return found


def test_a_trial_is_evaluated_on_both_sets(tested: Path) -> None:
    folder = tested / FOLDER
    split = json.loads((folder / "trial.json").read_text())["split"]
    assert checkpoint.read_meta(folder / "best.safetensors")["split"] == split | {"unlabelled": []}
    found: dict[str, list[str]] = {}
    for row in rows_of(folder / "cases.csv"):
        if row["case"] not in found.setdefault(row["set"], []):
            found[row["set"]].append(row["case"])
    assert found == {name: split[name] for name in ("validation", "test")}
    assert all(found.values())
    assert {path.name for path in (folder / "overlays").glob("*.png")} == set(map(picture_name, split["test"]))
    assert not set(split["train"]) & {*split["validation"], *split["test"]}


def test_each_set_of_a_checkpoint_can_be_evaluated_by_name(tested: Path) -> None:
    path = tested / BEST
    written = (tested / FOLDER / "cases.csv").read_text()
    assert cases_text([*segkit.evaluate(path, on="validation"), *segkit.evaluate(path, on="test")]) == written
    assert segkit.evaluate(path) == segkit.evaluate(path, on="test")
    split = {name: cases for name, cases in checkpoint.read_meta(path)["split"].items() if cases}
    for name, cases in split.items():
        assert by_set(segkit.evaluate(path, on=name)) == {name: set(cases)}
    assert by_set(segkit.evaluate(path, on="all")) == {name: set(cases) for name, cases in split.items()}
    with pytest.raises(
        UserError, match=r"it has no tset set\. Did you mean 'test'\? Known: all, test, train, validation"
    ):
        segkit.evaluate(path, on="tset")


def test_patients_that_a_checkpoint_was_trained_on_are_labelled_in_other_data(
    tested: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meta = checkpoint.read_meta(tested / BEST)
    rows = segkit.evaluate(tested / BEST, sets=["data.discs.patients=8"])
    patients = {row.patient for row in rows if row.set == "train"}
    assert patients == {*meta["trained_patients"]} == {case.split("/")[0] for case in meta["split"]["train"]}
    assert {row.patient for row in rows if row.set == "new"} == {"p6", "p7"}
    monkeypatch.chdir(tmp_path)
    command = ["segkit", "eval", str(tested / BEST), "--set", "data.discs.patients=8", "--csv", "x.csv"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit, match="0"):
        main()
    out, err = capsys.readouterr()
    assert "set: train (8 cases), validation (2 cases), test (2 cases), new (4 cases)" in out
    assert re.search(r"^p6/12 +wall +new ", out, re.M)
    assert re.search(r"^mean +wall +test ", out, re.M)
    assert "warning: 8 of 16 cases are of patients that this checkpoint was trained on (set train)" in err
    with Path("x.csv").open(encoding="utf-8", newline="") as file:
        assert {row["patient"] for row in csv.DictReader(file) if row["set"] == "train"} == patients


def test_cases_without_masks_are_not_compared_with_empty_ones(tested: Path) -> None:
    meta = checkpoint.read_meta(tested / BEST)
    gone: set[str] = set()

    @segkit.datasets.register("unlabelled")
    def unlabelled() -> Dataset:
        """The same cases, some without masks."""
        made = small.discs()
        cases = (replace(case, masks=None) if case.name in gone else case for case in made.cases)
        return replace(made, cases=tuple(cases))

    sets = ["data.unlabelled={}"]
    gone = {meta["split"]["test"][0]}
    with pytest.raises(UserError, match=rf"the data lack masks of 1 of its 2 test cases, e\.g\. {min(gone)}"):
        segkit.evaluate(tested / BEST, on="test", sets=sets)
    assert not gone & {row.case for row in segkit.evaluate(tested / BEST, on="all", sets=sets)}
    gone = {case.name for case in small.discs().cases}
    with pytest.raises(UserError, match=r"no case of discs has masks, so there is nothing to compare with"):
        segkit.evaluate(tested / BEST, on="all", sets=sets)


def test_the_command_line_says_which_set_it_was(
    tested: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for options, status, said in (
        ([], 0, "\nset: test (2 cases)\n"),
        (["--on", "validation"], 0, "\nset: validation (2 cases)\n"),
        (["--on", "validatio"], 2, "it has no validatio set. Did you mean 'validation'?"),
    ):
        monkeypatch.setattr("sys.argv", ["segkit", "eval", str(tested / BEST), *options])
        with pytest.raises(SystemExit, match=str(status)):
            main()
        assert said in "".join(capsys.readouterr())
    monkeypatch.setattr("sys.argv", ["segkit", "info", str(tested / BEST)])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert "8 for training, 2 for validation, 2 for the test" in capsys.readouterr().out


def test_a_run_with_a_test_set_is_checked_and_one_without_sets_in_its_rows_too(tested: Path, tmp_path: Path) -> None:
    def faults(run: Path) -> list[str]:
        return [finding.text for finding in check_run(run) if finding.kind == "fault"]

    assert faults(tested) == []
    cases = tested / FOLDER / "cases.csv"
    whole = cases.read_text()
    cases.write_text(whole.replace(",test,0.", ",test,1."))
    assert re.search(r"[1-9]\d* of \d+ rows differ", " ".join(faults(tested)))
    cases.write_text(whole)
    train(tmp_path)
    rows = segkit.evaluate(tmp_path / BEST)
    (tmp_path / FOLDER / "cases.csv").write_text(cases_text(rows, OLD_HEADER))
    assert faults(tmp_path) == []


# which epoch is kept


def test_the_last_epoch_can_be_kept_and_a_killed_training_ends_alike(tmp_path: Path) -> None:
    train(tmp_path / "one", "train.select=last")
    status = json.loads((tmp_path / "one" / FOLDER / "trial.json").read_text())
    assert (status["best_epoch"], status["select"]) == (3, "last")
    best, last = (checkpoint.load(tmp_path / "one" / FOLDER / f"{name}.safetensors") for name in ("best", "last"))
    assert (best.meta["kind"], best.meta["epoch"]) == ("best", 3)
    assert all(torch.equal(best.weights[name], last.weights[name]) for name in last.weights)
    for stop_after in (2, 5, 7):
        run = tmp_path / f"stopped-{stop_after}"
        events = train(run, "train.select=last", stop_after=stop_after)
        assert kinds(events)[-1] == "interrupted"
        assert not (run / BEST).exists()
        assert kinds(train(run, "train.select=last"))[-1] == "finished"
        same(tmp_path / "one", run)
    assert [finding.text for finding in check_run(tmp_path / "one") if finding.kind == "fault"] == []


def test_more_epochs_replace_the_last_one(tmp_path: Path) -> None:
    train(tmp_path / "one", "train.select=last", "train.epochs=2")
    assert kinds(train(tmp_path / "one", "train.select=last"))[-1] == "finished"
    train(tmp_path / "two", "train.select=last")
    same(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize(("name", "best"), [("val_loss", min), ("iou", max), ("hd95", min)])
def test_another_number_can_choose_the_epoch(tmp_path: Path, name: str, best: Any) -> None:
    train(tmp_path, f"train.select_by={name}", "metrics={ dice = {}, iou = {}, hd95 = {} }", "train.epochs=4")
    rows = rows_of(tmp_path / FOLDER / "metrics.csv")
    column = [float(row[name if name == "val_loss" else f"val_{name}"]) for row in rows]
    epoch = json.loads((tmp_path / FOLDER / "trial.json").read_text())["best_epoch"]
    assert column.index(best(column)) == epoch - 1


def test_scores_are_larger_where_an_epoch_is_better() -> None:
    assert score_of("dice", {"dice": 0.5}, 9.0) == 0.5
    assert score_of("dice", {"dice": math.nan}, 2.0) == -2.0
    assert score_of("val_loss", {"dice": 0.5}, 2.0) == -2.0
    assert score_of("hd95", {"hd95": 3.0}, 2.0) == -3.0
    assert score_of("hd95", {"hd95": math.nan}, 2.0) < score_of("hd95", {"hd95": 1e9}, 2.0)
    assert math.isfinite(score_of("hd95", {"hd95": math.inf}, 2.0))
    assert keeps(Train(), 0.5, None, 1, 3)
    assert not keeps(Train(), 0.5, (0.5, 1), 2, 3)
    assert [keeps(Train(select="last"), 0.9, None, epoch, 3) for epoch in (1, 2, 3)] == [False, False, True]


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["train.select_by=dise"], "train.select_by: 'dise' is no metric of this recipe. Did you mean 'dice'"),
        (["train.select_by=iou", "metrics=dice"], "train.select_by: 'iou' is no metric of this recipe"),
        (
            ["train.select_by=volume_ml", "metrics={ dice = {}, volume_ml = {} }"],
            "train.select_by: no value of volume_ml is better than another: choose another metric",
        ),
        (["train.select=first"], 'train.select: must be "best" or "last", got "first"'),
    ],
)
def test_a_selection_that_cannot_be(sets: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small.recipe(*sets)


# identities


GOLDEN = {  # computed before there were test sets and selections
    "e41ce55ea512c9254463d52f3d68f4b15524a6485e52dbb441d7bc1cd005c38c": {},
    "a2fca062e8062660885eab50d9720643969540871713730a3852915a82fd36cd": {
        "split": {"folds": 4, "fold": 2},
        "data": {"phantom": {"patients": 4}},
        "optimizer": {"Adam": {"lr": 0.01}},
    },
}


@pytest.mark.parametrize("golden", GOLDEN)
def test_recipes_of_before_are_the_trainings_that_they_were(golden: str) -> None:
    tree = {"train": {"device": "cpu", "threads": 1, "precision": "float32"}} | GOLDEN[golden]
    assert identity.training_identity(segkit.Recipe.from_dict(tree), []) == golden
    filled = segkit.Recipe.from_dict(tree).dump()
    assert identity.training_identity(segkit.Recipe.from_dict(filled), []) == golden


@pytest.mark.parametrize(
    ("one", "other", "same_training"),
    [
        ([], ["train.select=best", "train.select_by=dice"], True),
        ([], ["train.select=last"], False),
        ([], ["train.select_by=iou"], False),
        ([], ["split.test=0.2"], False),
        (['split.test=["p1", "p0"]'], ['split.test=["p0", "p1"]'], True),
        (['split.test=["p1", "p0"]'], ['split.test=["p0", "p2"]'], False),
        (["train.select_by=iou", "metrics={ iou = {}, recall = {} }"], ["train.select_by=iou", "metrics=iou"], True),
    ],
)
def test_what_chooses_the_epoch_belongs_to_a_training(one: list[str], other: list[str], same_training: bool) -> None:
    first, second = (identity.training_identity(small.recipe(*sets)) for sets in (one, other))
    assert (first == second) is same_training


def test_the_parameters_of_the_metric_that_chooses_belong_to_a_training() -> None:
    with isolated():

        @segkit.metrics.register("tolerant")
        def tolerant(prediction: Mask, truth: Mask, spacing_mm: Spacing, *, pixels: float = 1.0) -> float:
            """A metric with a parameter."""
            return pixels

        def made(pixels: float, by: str) -> segkit.Recipe:
            return small.recipe(f"metrics={{ tolerant = {{ pixels = {pixels} }} }}", f"train.select_by={by}")

        one, two = (identity.training_identity(made(pixels, "tolerant")) for pixels in (1.0, 2.0))
        assert one != two
        assert len({identity.training_identity(made(pixels, "dice")) for pixels in (1.0, 2.0)}) == 1
        changed = identity.differences(made(1.0, "tolerant").dump(), made(2.0, "tolerant").dump())
        assert list(identity.not_resumable(changed)) == ["train.select_by.tolerant.pixels"]
