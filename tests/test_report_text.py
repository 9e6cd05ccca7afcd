from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len

from segkit.leases import Leases
from segkit.report import render, tables
from segkit.report.figures import transient_end
from segkit.report.render import write_report
from segkit.report.style import elide_middle, legible, wrapped
from segkit.study.sharing import LEASES
from segkit.study.summary import summarize
from tests.fake_runs import make_run, write_recipe, write_trial

WIDTH = 100


def text(run: Path) -> str:
    return render.markdown(summarize(run), {})


def terminal(run: Path) -> list[str]:
    return tables.for_terminal(summarize(run))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "study"
    return make_run(folder, {"none": 0.0, "lambda=1": -0.15}, metrics=("dice",), pictures=False, cases=3, epochs=6)


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "study")


def test_terminal_table_fits_and_has_what_matters(whole: Path) -> None:
    head, *rows, foot = terminal(whole)
    assert head.split("  ")[0] == "variant"
    assert head.split() == ["variant", "verdict", "Dice", "SD", "seeds", "difference", "95", "%", "trials"]
    assert len(rows) == 2
    assert foot == "95 %: interval of the difference, from patients and seeds"
    assert max(map(len, [head, *rows, foot])) <= WIDTH
    assert rows[1].split()[0] == "lambda=1"
    assert rows[1].endswith("3 of 3")


def test_one_seed_drops_empty_columns(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "study", {"none": 0.0, "lambda=1": -0.1}, (1,), pictures=False, patients=6)
    table = tables.verdicts(summarize(folder))
    expected = ["variant", "verdict", "Dice", "patients", "SD patients", "difference", "95 % (patients, bootstrap)"]
    assert list(table.head) == [*expected, "p (Wilcoxon)", "trials"]
    assert all(any(column) for column in zip(*table.rows, strict=True))
    said = text(folder)
    for absent in ("SD seeds", "patients and seeds)", "smallest detectable", "Smallest detectable"):
        assert absent not in said
    assert "One seed cannot show training noise" in said
    assert "is called better or worse" not in said
    lines = terminal(folder)
    assert lines[-1] == "95 %: interval of the difference, from patients alone (bootstrap)"
    assert "one seed: cannot be told apart" in lines[2]
    assert max(map(len, lines)) <= WIDTH


def test_one_variant_has_a_result_and_no_verdict(tmp_path: Path) -> None:
    said = text(make_run(tmp_path / "study", {"none": 0.0}, pictures=False))
    assert "## Result" in said
    assert "is called better or worse" not in said


def test_long_texts_take_several_lines_of_the_terminal(tmp_path: Path) -> None:
    label = "BCE summed + mix (as published), train_fraction=0.25"
    folder = make_run(tmp_path / "study", {"none": 0.0, label: -0.1}, (1,), pictures=False, patients=3)
    lines = terminal(folder)
    assert max(map(len, lines)) <= WIDTH
    first = next(i for i, line in enumerate(lines) if line.startswith("BCE"))
    assert " ".join(line[:20].strip() for line in lines[first:-1]) == label
    assert "one seed, fewer than" in lines[first]


def test_unfinished_study_says_what_is_missing(tmp_path: Path) -> None:
    status = {("none", 2): "running", ("late", 1): "interrupted", ("late", 2): None, ("late", 3): "failed"}
    folder = make_run(tmp_path / "study", {"none": 0.0, "late": 0.1}, status=status, pictures=False, epochs=30)
    with Leases(tmp_path / LEASES) as own:
        own.acquire(f"{2:064x}")
        assert "- none, seed 2: running, 10 of 30 epochs done\n" in text(folder)
    said = text(folder)
    assert "2 variants, 2 of 6 trials finished. This study is not complete" in said
    ended = "ended without reporting why (killed, out of memory, or a crash in native code), 10 of 30 epochs done"
    assert f"- none, seed 2: {ended}; `segkit run` resumes it\n" in said
    assert "- late, seed 1: interrupted, 10 of 30 epochs done\n" in said
    assert "- late, seed 2: not started\n" in said
    assert "- late, seed 3: failed after 10 of 30 epochs: train_loss is not finite" in said
    assert said.index("## Verdict") < said.index("## Missing") < said.index("## Failures")
    assert any(line.startswith("late") and "no finished trial" in line for line in terminal(folder))


def test_nothing_trained_yet(tmp_path: Path) -> None:
    status = {("none", 1): None, ("late", 1): None}
    folder = make_run(tmp_path / "study", {"none": 0.0, "late": 0.1}, (1,), status=status)
    said = text(folder)
    assert "0 of 2 trials finished" in said
    assert said.count(": not started") == 2


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "half cases.csv": (lambda t: cut(t / "cases.csv", 0.503), "cases.csv is damaged: it ends within line"),
    "no cases.csv": (lambda t: (t / "cases.csv").unlink(), "cases.csv cannot be read: No such file"),
    "empty cases.csv": (lambda t: cut(t / "cases.csv", 0), "cases.csv is damaged: it is empty"),
    "binary cases.csv": (lambda t: (t / "cases.csv").write_bytes(b"\xff\x00\n"), "cases.csv cannot be read"),
    "other cases.csv": (
        lambda t: (t / "cases.csv").write_text("case,value\na,1\n"),
        "cases.csv is damaged: it has no column patient, channel, metric, truth_pixels, predicted_pixels",
    ),
    "half metrics.csv": (lambda t: cut(t / "metrics.csv", 0.503), "metrics.csv is damaged: it ends within line"),
    "words in metrics.csv": (
        lambda t: (t / "metrics.csv").write_text("epoch,val_dice\n1,0.5\n2,much\n"),
        "metrics.csv is damaged: line 3 has 'much' instead of a number",
    ),
    "short row": (
        lambda t: (t / "metrics.csv").write_text("epoch,val_dice\n1\n"),
        "metrics.csv is damaged: line 2 has 1 of 2 values",
    ),
    "half trial.json": (lambda t: cut(t / "trial.json", 0.5), "trial.json is damaged: not valid JSON"),
    "list in trial.json": (
        lambda t: (t / "trial.json").write_text("[1]"),
        "trial.json is damaged: not a JSON object",
    ),
    "wrong trial.json": (
        lambda t: (t / "trial.json").write_text('{"status": "finished", "split": 3, "first_batch": [1]}'),
        "trial.json is damaged: split, first_batch is not what a training writes",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_said_in_a_sentence(run: Path, damage: str) -> None:
    harm, sentence = DAMAGE[damage]
    harm(run / "lambda=1" / "seed-2")
    said = text(run)
    assert f"- lambda=1, seed 2: {sentence}" in said
    assert "left out of the tables" in said
    assert "5 of 6 trials finished" in said
    assert [line.split()[-3:] for line in terminal(run)[1:3]] == [["3", "of", "3"], ["2", "of", "3"]]


@pytest.mark.parametrize(
    "content", [b"[study\n", b"\xff\xfe", b"nonsense = 1\n", b"train = 3\n", b"train.seed = 'a'\n"]
)
def test_damaged_recipe_leaves_what_is_on_disk(run: Path, content: bytes) -> None:
    (run / "recipe.toml").write_bytes(content)
    said = text(run)
    assert "6 of 6 trials finished" in said
    assert "The recipe of this run cannot be read now, so missing trials are not listed" in said


def test_damaged_picture_is_left_out(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "study", {"none": 0.0}, (1,), patients=1, cases=4)
    for path in folder.glob("*/*/overlays/*.png"):
        cut(path, 0.3)
    page = render.html(summarize(folder), {})
    assert "<img" not in page
    assert "percentile" in page


def make_folds(folder: Path, missing: Collection[tuple[str, int, int]] = (), pictures: bool = True) -> Path:
    write_recipe(folder, ["none", "lambda=1"], [1, 2], extra="[split]\nfolds = 2")
    for variant, delta in {"none": 0.0, "lambda=1": -0.2}.items():
        for seed in (1, 2):
            for fold in (1, 2):
                if (variant, seed, fold) not in missing:
                    words: dict[str, Any] = {"patients": 8, "cases": 3, "epochs": 6, "metrics": ("dice",)}
                    words["pictures"] = pictures
                    write_trial(folder, variant, seed, delta=delta, fold=fold, **words)
    return folder


def means_of_patients(folder: Path) -> dict[str, float]:
    """Return each variant's mean over patients of the means over seeds of the means over cases and channels.

    A structure that one trial rightly left empty and another marked counts as 1.
    """
    rows: dict[tuple[str, str], list[dict[str, str]]] = {}
    for path in sorted(folder.glob("*/fold-*/cases.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            training = path.parts[-3], path.parts[-2].split("-")[-1]
            rows.setdefault(training, []).extend(r for r in csv.DictReader(file) if r["metric"] == "dice")
    every = [row for found in rows.values() for row in found]
    marked = {(r["case"], r["channel"]) for r in every if r["truth_pixels"] == "0" and r["predicted_pixels"] != "0"}
    values: dict[str, dict[str, dict[str, list[float]]]] = {}
    for (variant, seed), found in rows.items():
        for row in found:
            if row["value"] or (row["case"], row["channel"]) in marked:
                patient = values.setdefault(variant, {}).setdefault(row["patient"], {})
                patient.setdefault(seed, []).append(float(row["value"] or 1))
    return {
        variant: float(np.mean([np.mean([np.mean(v) for v in seeds.values()]) for seeds in patients.values()]))
        for variant, patients in values.items()
    }


def test_folds_are_put_together(tmp_path: Path) -> None:
    folder = make_folds(tmp_path / "study")
    summary = summarize(folder)
    means = means_of_patients(folder)
    for line in summary.headline:
        assert line.result.mean == pytest.approx(means[line.result.variant])
        assert (line.result.seeds, line.result.patients, line.counts["trials"]) == (2, 8, 4)
    said = text(folder)
    assert "8 of 8 trials finished" in said
    assert "(seed 1, fold 1)" in render.html(summary, {})


def test_seed_without_all_folds_is_left_out_and_said(tmp_path: Path) -> None:
    folder = make_folds(tmp_path / "study", missing={("lambda=1", 2, 2)})
    summary = summarize(folder)
    assert [(line.result.seeds, line.counts["trials"]) for line in summary.headline] == [(2, 4), (1, 2)]
    assert [trial.name for trial in summary.compared("lambda=1")] == [f"lambda=1, seed 1, fold {k}" for k in (1, 2)]
    said = text(folder)
    assert "- lambda=1, seed 2, fold 2: not started" in said
    assert "- lambda=1, seed 2: only 1 of 2 folds are finished: left out of the tables" in said


def test_smaller_distances_are_better(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "study", {"none": 0.0, "lambda=1": -0.3}, patients=8, pictures=False, epochs=6)
    every = [line.result for line in summarize(folder).lines if line.result.channel == "all"]
    results = {result.metric: result for result in every if result.variant == "lambda=1"}
    assert set(results) == {"dice", "soft_dice", "iou", "precision", "recall", "hd95"}
    assert results["dice"].difference < 0 < results["hd95"].difference
    assert {result.verdict for result in results.values()} == {"worse"}
    said = text(folder)
    assert "Smaller is better for hd95. Distances are in mm; in pixels where the data have no spacing." in said


def test_reused_limited_and_stopped_trainings_are_noted(run: Path) -> None:
    path = run / "none" / "seed-1" / "trial.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"limited": True, "reused_from": "other"}))
    path = run / "none" / "seed-2" / "trial.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"stopped_early": True, "epochs": 9, "epochs_done": 6}))
    assert "Stopped early" in text(run)
    assert "none, seed 2: after epoch 6 of 9." in text(run)
    said = text(run)
    assert "These trainings were cut short on purpose" in said
    assert "Copies of identical trials that were trained before: 1 of 6." in said


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("lambda=0", "lambda=0"),
        ("BCE summed + mix (as published)", "BCE summed + mix (as\npublished)"),
        ("Adam, train_fraction=0.25", "Adam,\ntrain_fraction=0.25"),
        ("a_label_without_any_break_point_in_all_its_great_length", None),
        ("$x$", r"\$x\$"),
        ("", ""),
    ],
)
def test_labels_are_wrapped_and_keep_both_ends(label: str, expected: str | None) -> None:
    found = wrapped(label)
    assert len(found.split("\n")) <= 2
    assert all(len(line.replace("\\", "")) <= 22 for line in found.split("\n"))
    if expected is None:
        assert found[:10] == label[:10]
        assert found[-10:] == label[-10:]
        assert "…" in found
    else:
        assert found == expected


def test_shortened_labels_have_the_length_asked_for() -> None:
    for length in range(3, 30):
        assert len(elide_middle("x" * 30, length)) == length
    assert elide_middle("short", 10) == "short"


def test_second_panel_starts_where_the_transient_ends() -> None:
    epochs = np.arange(100.0)
    fast, slow = np.exp(-epochs / 3), np.exp(-epochs / 12)
    starts = transient_end([fast]), transient_end([slow]), transient_end([fast, slow])
    assert starts[0] == pytest.approx(3 * np.log(10) + 1.5, abs=1.5)
    assert starts[1] == starts[2] == pytest.approx(12 * np.log(10) + 1.5, abs=2)
    assert transient_end([fast[:19]]) is None
    assert transient_end([np.ones(100)]) is None
    assert transient_end([]) is None


def test_names_of_any_script_and_hostile_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = {"学習率 0.1": 0.0, "दर 🙂 0.2": 0.05, "وزن \u202eabc 0.3": -0.1, "a $x_1$ \x1b[31m 0.4": 0.02}
    recipe = {"compare_with": "", "title": "T \x1b[31m \u202e 学習率"}
    run = make_run(tmp_path / "r", labels, seeds=(1,), epochs=3, recipe=recipe)
    shown = write_report(run)  # warnings are errors
    assert not caplog.records
    for text in ((run / name).read_text() for name in ("report.md", "report.html", "summary.csv")):
        assert "学習率 0.1" in text
        assert r"a $x_1$ \x1b[31m 0.4" in text.replace("\\\\", "\\")
        assert not set(text) & {"\x1b", "\u202e", "\x00"}
    assert len({cell_len(line[: line.index("1 of 1")]) for line in shown if "1 of 1" in line}) == 1
    assert (
        len({cell_len(line) for line in (run / "report.md").read_text().splitlines() if line.endswith(" 1 of 1 |")})
        == 1
    )


def test_letters_that_no_font_has_are_boxes() -> None:
    assert legible("weight \U00012000 é") == "weight □ é"
    assert legible("a\x1b\u200db") == "a\\x1bb"
    assert wrapped("x" * 30, 22, 1) == elide_middle("x" * 30, 22)
