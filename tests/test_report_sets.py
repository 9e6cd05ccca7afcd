"""The verdict is made on the test set where there is one; folds are then repeated trainings, never more patients."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segkit.report import render, tables
from segkit.report.render import write_report
from segkit.study.summary import Summary, summarize, to_csv
from segkit.study.verdicts import APART, Measure, judge
from tests.fake_runs import make_run, write_recipe, write_trial

EFFECT = {"none": 0.0, "better": 0.15}
WORDS: dict[str, Any] = {"patients": 6, "tested": 8, "pictures": False, "epochs": 3}


def text(summary: Summary) -> str:
    return render.markdown(summary, {}).replace("\\", "")


def first_paragraph(summary: Summary) -> str:
    return text(summary).split("\n\n")[1]


def test_the_verdict_is_made_on_test_rows_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path / "study", EFFECT, **WORDS)
    summary = summarize(run)
    assert summary.scores.set == "test"
    assert set(summary.scores.patients) == {f"test{number:02}" for number in range(8)}
    result = summary.headline[1].result
    assert (result.seeds, result.patients, result.verdict) == (3, 8, "better")
    means: dict[str, list[float]] = {name: [] for name in ("validation", "test")}  # of what is there, in truth
    for path in sorted(run.glob("none/*/cases.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["metric"] == "dice" and row["truth_pixels"] == "500":
                    means[row["set"]].append(float(row["value"]))
    validated, tested = (np.mean(found) for found in means.values())
    assert validated - tested > 0.1
    assert abs(summary.headline[0].result.mean - tested) < 0.04
    assert {row["set"] for row in csv.DictReader(to_csv(summary).splitlines())} == {"test"}
    said = text(summary)
    assert "The verdict is made on the test set, whose patients no trial was trained on" in first_paragraph(summary)
    assert "chosen on the same cases" not in said
    assert "is computed for every test case and channel" in said
    assert "every validation case" not in said.lower()
    assert "| test cases " in said
    assert "Dice of the test set" in tables.for_terminal(summary)


def test_on_the_test_set_folds_are_trainings_and_no_more_patients(tmp_path: Path) -> None:
    run = tmp_path / "study"
    write_recipe(run, EFFECT, [1, 2], extra="[split]\nfolds = 2\ntest = 0.3")
    for variant, delta in EFFECT.items():
        for seed in (1, 2):
            for fold in (1, 2):
                write_trial(run, variant, seed, fold=fold, delta=delta, **(WORDS | {"pictures": fold == 2}))
    summary = summarize(run)
    assert len(summary.scores.trainings) == 8
    for line in summary.headline:
        assert (line.result.seeds, line.result.patients, line.counts["trials"]) == (4, 8, 4)
        assert line.counts["structures"] == 4 * 8 * 6 * 2
    assert "each of the 2 folds of a seed is a training of its own. Those of one fold share" in text(summary)
    assert "Two folds show little of the training noise" in text(summary)
    assert "(seed 1, fold 2)" in render.html(summary, {})
    spread = summary.measures[0].tables["none"].mean(axis=1)
    assert summary.headline[0].result.sd_seeds == pytest.approx(np.std(spread, ddof=1))


def test_trainings_of_one_fold_are_not_independent() -> None:
    """The reference is lucky with one training set: ten trainings on two of them do not show a difference."""
    rng = np.random.default_rng(0)
    folds = [fold for fold in (1, 2) for _ in range(5)]
    base, luck = 0.8 + 0.02 * rng.standard_normal(20), np.where(np.array(folds) == 1, 0.05, 0.01)[:, None]
    noise = [0.002 * rng.standard_normal((10, 20)) for _ in range(2)]
    tables = {"none": base + noise[0], "lucky": base + luck + noise[1]}
    apart, together = (
        judge([Measure("dice", "all", 1, tables, by_variant)], list(tables), "none")[1]
        for by_variant in ({}, dict.fromkeys(tables, folds))
    )
    assert apart.verdict == "better"
    assert together.verdict == APART
    assert together.seeds == 10
    assert together.difference == pytest.approx(apart.difference)


def test_one_seed_and_several_folds_show_training_noise(tmp_path: Path) -> None:
    run = tmp_path / "study"
    write_recipe(run, EFFECT, [1], extra="[split]\nfolds = 2\ntest = 0.3")
    for variant, delta in EFFECT.items():
        for fold in (1, 2):
            write_trial(run, variant, 1, fold=fold, delta=delta, **WORDS)
    result = summarize(run).headline[1].result
    assert "one seed" not in result.verdict
    assert result.p < 1


def test_where_some_trials_have_no_test_set_the_verdict_is_of_the_validation_set(tmp_path: Path) -> None:
    run = make_run(tmp_path / "study", EFFECT, **WORDS)
    write_trial(run, "none", 1, **(WORDS | {"tested": 0}))
    summary = summarize(run)
    assert summary.scores.set == "validation"
    assert set(summary.scores.patients) == {f"patient{number:02}" for number in range(6)}
    said = first_paragraph(summary)
    assert (
        "Only 5 of the 6 compared trials have a test set, so the verdict is made on validation cases: the epoch" in said
    )
    assert "chosen on the same cases" in said
    assert {line.set for line in summary.lines} == {"validation"}


def test_with_the_last_epoch_no_case_chose_one(tmp_path: Path) -> None:
    run = make_run(tmp_path / "study", EFFECT, **(WORDS | {"tested": 0}), info={"select": "last"})
    said = first_paragraph(summarize(run))
    assert "There is no test set: the values are of the validation cases, after the last epoch." in said
    assert "chosen" not in said
    path = run / "none/seed-1/trial.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"select": "best"}))
    assert "There is no test set: the epoch of each checkpoint was chosen" in first_paragraph(summarize(run))


def test_a_report_of_a_test_set_is_written_with_its_pictures(tmp_path: Path) -> None:
    run = make_run(tmp_path / "study", EFFECT, (1, 2), patients=2, tested=2, cases=2, epochs=3)
    assert any("test set" in line for line in write_report(run))
    said = (run / "report.md").read_text()
    assert "Every test case." in said
    assert "test00/P00-000" in said.replace("\\", "")
    assert (run / "figures/cases.png").is_file()
