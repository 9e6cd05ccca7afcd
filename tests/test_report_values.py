"""What the numbers of a report are of, and what it warns of."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segkit import files
from segkit.components.metrics import metrics
from segkit.plugins import isolated
from segkit.recipe.identity import TRAINING_NUMBER
from segkit.report import render
from segkit.report.render import write_report
from segkit.study.reading import read_plan, read_trial
from segkit.study.summary import Summary, summarize, to_csv
from segkit.training.results import HEADER, OLD_HEADER, Keys, read_cases
from tests.fake_runs import make_run, write_recipe, write_trial

Rows = list[list[Any]]
SEEDS = (1, 2, 3)


def text(run: Path) -> str:
    return render.markdown(summarize(run), {}).replace("\\", "")


def page(run: Path) -> str:
    return render.html(summarize(run), {})


def line(summary: Summary, variant: str, metric: str = "dice", channel: str = "all") -> Any:
    (found,) = [
        x for x in summary.lines if (x.result.variant, x.result.metric, x.result.channel) == (variant, metric, channel)
    ]
    return found


def rows_of(
    seed: int,
    marks: Sequence[int],
    *,
    sick: int = 5,
    healthy: int = 5,
    metrics: Mapping[str, float] | None = None,
    channels: Sequence[str] = ("cavity",),
) -> Rows:
    """One case a patient: the first have the structure, the others do not; `marks` are those marked nevertheless."""
    rows: Rows = []
    for patient in range(sick + healthy):
        for channel in channels:
            for metric, worst in (metrics or {"dice": 0.0}).items():
                ill = patient < sick
                good = 0.757 + 0.004 * math.sin(9 * seed + patient) + 0.05 * math.cos(patient)
                value = repr(abs(worst - good) if worst == 0 else 5.0) if ill else repr(worst)
                predicted = 400 if ill else 7 * (patient in marks)
                shown = value if ill or predicted else ""
                names = [f"case{patient}", f"patient{patient:02}", channel, metric, "validation"]
                rows.append([*names, shown, 420 * ill, predicted])
    return rows


def healthy_study(run: Path, marking: Sequence[int] = range(5, 10), **words: Any) -> Path:
    """Two variants that differ in nothing but what they mark in healthy patients."""
    write_recipe(run, ["none", "careless"], SEEDS)
    for variant, marks in (("none", ()), ("careless", marking)):
        for seed in SEEDS:
            write_trial(run, variant, seed, rows=rows_of(seed, marks, **words), pictures=False, epochs=3)
    return run


def test_marking_something_in_healthy_patients_is_worse(tmp_path: Path) -> None:
    run = healthy_study(tmp_path / "study")
    summary = summarize(run)
    none, careless = line(summary, "none"), line(summary, "careless")
    assert none.result.mean == pytest.approx((5 * 0.757 + 5) / 10, abs=0.02)
    assert careless.result.mean == pytest.approx(5 * 0.757 / 10, abs=0.02)
    assert careless.result.verdict == "worse"
    assert careless.result.difference == pytest.approx(-0.5)
    assert (none.result.patients, careless.result.patients, careless.result.patients_compared) == (10, 10, 10)
    assert (none.counts["rightly_empty"], none.counts["undefined"], careless.counts["rightly_empty"]) == (15, 0, 0)
    said = text(run)
    assert (
        "5 structures of 5 patients are empty in truth, and some trials mark something there while others do not: a "
        "trial that rightly leaves one empty gets the metric's best value for it (dice 1), in the means and in the "
        "verdict." in said
    )
    assert re.search(r"\| careless \| worse +\| 0\.37\d+ \| +10 \|", said)


def test_where_nobody_marks_anything_it_stays_undefined(tmp_path: Path) -> None:
    run = healthy_study(tmp_path / "study", marking=())
    summary = summarize(run)
    for variant in ("none", "careless"):
        assert line(summary, variant).result.patients == 5
        assert (line(summary, variant).counts["undefined"], line(summary, variant).counts["rightly_empty"]) == (15, 0)
    assert "best value for it" not in text(run)


def test_one_mark_in_one_trial_counts_for_all_others(tmp_path: Path) -> None:
    run = healthy_study(tmp_path / "study", marking=())
    write_trial(run, "careless", 2, rows=rows_of(2, [7]), pictures=False, epochs=3)
    summary = summarize(run)
    assert line(summary, "none").result.patients == line(summary, "careless").result.patients == 6
    assert (line(summary, "none").counts["rightly_empty"], line(summary, "careless").counts["rightly_empty"]) == (3, 2)
    assert line(summary, "careless").result.patients_compared == 6
    assert "1 structure of 1 patient is empty in truth" in text(run)


def test_the_rule_is_one_for_each_channel_and_metric(tmp_path: Path) -> None:
    words: dict[str, Any] = {"metrics": {"dice": 0.0, "hd95": 300.0}, "channels": ("cavity", "wall")}
    run = healthy_study(tmp_path / "study", **words)
    rows = [row if row[2] == "cavity" or row[6] else [*row[:5], "", 0, 0] for row in rows_of(1, range(5, 10), **words)]
    for seed in SEEDS:
        write_trial(run, "careless", seed, rows=rows, pictures=False, epochs=3)
    summary = summarize(run)
    assert line(summary, "none", "hd95", "cavity").result.mean == pytest.approx((5 * 5.0 + 0) / 10)
    assert line(summary, "careless", "hd95", "cavity").result.mean == pytest.approx((5 * 5.0 + 5 * 300) / 10)
    assert line(summary, "careless", "hd95", "cavity").result.difference == pytest.approx(150)
    assert line(summary, "careless", "hd95", "cavity").result.patients_compared == 10
    for variant in ("none", "careless"):
        assert line(summary, variant, "hd95", "wall").result.patients == 5
        assert line(summary, variant, "dice", "wall").counts["undefined"] == 15
    assert "(dice 1, hd95 0)" in text(run)


def test_figures_and_cases_use_the_same_values(tmp_path: Path) -> None:
    from segkit.report import cases

    run = healthy_study(tmp_path / "study")
    for variant, marks in (("none", ()), ("careless", range(5, 10))):
        for seed in SEEDS:
            write_trial(run, variant, seed, rows=rows_of(seed, marks), epochs=3)
    summary = summarize(run)
    by_case = summary.scores.by_case("dice", summary.scores.rows("none"))
    assert sorted(by_case)[5:] == [1.0] * 5
    shown = {example.name: example for example in cases.choose(summary)}
    best = shown[next(case for case in shown if int(case[-1]) >= 5)]
    assert best.by_variant["none"].caption == "dice 1.0000 (seed 1)"
    assert best.by_variant["careless"].caption == "dice 0.0000 (seed 1)"


@pytest.fixture
def own_metric() -> Iterator[None]:
    def own(prediction: Any, truth: Any, spacing_mm: Any) -> float:
        """A metric that says nothing of its best value."""
        return 0.0

    with isolated():
        metrics.register("own")(own)
        yield


@pytest.mark.usefixtures("own_metric")
def test_a_metric_without_best_value_stays_undefined_and_says_so(tmp_path: Path) -> None:
    run = healthy_study(tmp_path / "study", metrics={"dice": 0.0, "own": 0.0})
    summary = summarize(run)
    none, careless = line(summary, "none", "own"), line(summary, "careless", "own")
    assert (none.counts["undefined"], none.counts["rightly_empty"], none.result.patients) == (15, 0, 5)
    assert (careless.result.patients, careless.result.patients_compared) == (10, 5)
    said = text(run)
    assert "own: no best value is declared" in said
    assert (
        "careless (own): compared with the reference over 5 of 10 patients (5 without a defined value in some of "
        "these trials); the means are over other patients than the difference." in said
    )
    assert re.search(r"\| careless \| own .*\| 10 \(5 compared\) \|", said)


def test_a_metric_that_no_plugin_registers_is_named(tmp_path: Path) -> None:
    run = healthy_study(tmp_path / "study", metrics={"dice": 0.0, "gone": 0.0})
    assert line(summarize(run), "none", "gone").counts["undefined"] == 15
    assert "gone: no metric of this name is loaded (the plugin may be missing)" in text(run)


def test_patients_that_one_variant_did_not_validate_are_not_compared_and_counted(tmp_path: Path) -> None:
    run = healthy_study(tmp_path / "study", marking=())
    for seed in SEEDS:
        write_trial(run, "careless", seed, rows=rows_of(seed, (), sick=5)[2:], pictures=False, epochs=3)
    said = text(run)
    assert "careless (dice): compared with the reference over 3 of 5 patients (2 not validated in every trial" in said
    assert re.search(r"\| none +\| reference [^|]*\| [\d.]+ \| +5 \|", said)


def test_patients_are_compared_over_all_folds(tmp_path: Path) -> None:
    """A case is validated in one fold only: who marks it there counts for the other variant's fold."""
    run = tmp_path / "study"
    write_recipe(run, ["none", "careless"], [1, 2], extra="[split]\nfolds = 2")
    for variant, marks in (("none", ()), ("careless", range(5, 10))):
        for seed in (1, 2):
            for fold in (1, 2):
                write_trial(run, variant, seed, fold=fold, rows=rows_of(seed, marks), pictures=False, epochs=3)
    summary = summarize(run)
    for variant in ("none", "careless"):
        assert (line(summary, variant).result.patients, line(summary, variant).counts["undefined"]) == (10, 0)
    assert line(summary, "careless").result.verdict == "worse"


def test_the_first_paragraph_says_that_the_cases_chose_the_epoch(tmp_path: Path) -> None:
    run = healthy_study(tmp_path / "study")
    sentence = "the epoch of each checkpoint was chosen on the same cases that are reported here"
    assert sentence in text(run).split("\n\n")[1]
    assert sentence in page(run).split("<p>")[1]


def test_the_first_paragraph_says_what_is_evaluated(tmp_path: Path) -> None:
    run = tmp_path / "study"
    write_recipe(run, ["none", "flipped"], [1])
    for variant in ("none", "flipped"):
        info = {"evaluated_with": "mean over 4 flips, largest_part"} if variant == "flipped" else {}
        write_trial(run, variant, 1, rows=rows_of(1, ()), pictures=False, epochs=3, info=info)
    assert "Evaluated with mean over 4 flips, largest_part: flipped." in text(run).split("\n\n")[1]
    assert "Evaluated with mean over 4 flips, largest_part: flipped." in page(run).split("<p>")[1]


def test_unknown_patients_are_a_loud_warning(tmp_path: Path) -> None:
    run = tmp_path / "study"
    write_recipe(run, ["none", "careless"], SEEDS)
    for variant in ("none", "careless"):
        for seed in SEEDS:
            rows = [[row[0], "", *row[2:]] for row in rows_of(seed, ())]
            write_trial(run, variant, seed, rows=rows, pictures=False, epochs=3)
    sentence = "The data do not say which patient any case belongs to. They were split case by case"
    assert text(run).split("\n\n")[2].startswith(f"> **Warning:** {sentence}")
    found = page(run)
    assert f'<p class="alarm" role="alert"><strong>Warning</strong><br>{sentence}' in found
    assert found.index('class="alarm"') < found.index("<h2>")
    assert write_report(run)[-1].startswith(f"WARNING: {sentence}")


def test_some_unknown_patients_and_no_finished_trial_warn_too(tmp_path: Path) -> None:
    run = healthy_study(tmp_path / "study")
    assert "**Warning:**" not in text(run)
    rows = rows_of(1, ())
    rows[3][1] = ""
    write_trial(run, "none", 1, rows=rows, pictures=False, epochs=3)
    for variant, seed in (("none", 2), ("none", 3), ("careless", 1), ("careless", 2), ("careless", 3)):
        write_trial(run, variant, seed, rows=rows, pictures=False, epochs=3)
    assert "do not say which patient 1 case of 10 belongs to" in text(run)
    nothing = make_run(tmp_path / "other", {"none": 0.0}, (1,), status={("none", 1): "interrupted"}, pictures=False)
    path = nothing / "none" / "seed-1" / "trial.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps(info | {"data": info["data"] | {"patients": 0}}))
    assert "**Warning:** The data do not say which patient any case belongs to" in text(nothing)


def test_trials_of_different_training_numbers_are_never_compared(tmp_path: Path) -> None:
    run = healthy_study(tmp_path / "study")
    for seed in (1, 2):
        for variant in ("none", "careless"):
            info = {"training_number": 2}
            write_trial(run, variant, seed, rows=rows_of(seed, ()), pictures=False, epochs=3, info=info)
    summary = summarize(run)
    assert [(x.result.seeds, x.counts["trials"]) for x in summary.headline] == [(2, 2), (2, 2)]
    said = text(run)
    assert (
        "- none, seed 3; careless, seed 3: trained by an older version of segkit (training number 1, the tables show "
        "2), whose results cannot be compared with these: left out of the tables." in said
    )
    assert f"training number 2, this one has {TRAINING_NUMBER}" in said or TRAINING_NUMBER == 2


def test_a_run_of_an_older_version_is_shown_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segkit.report.facts.TRAINING_NUMBER", 7)
    run = healthy_study(tmp_path / "study")
    assert line(summarize(run), "careless").result.verdict == "worse"
    assert "This run was trained by an older version of segkit (training number 1, this one has 7)" in text(run)


@pytest.mark.parametrize("number", [0, -1, "2", [1], 1.5, True])
def test_a_damaged_training_number_is_said(tmp_path: Path, number: object) -> None:
    run = healthy_study(tmp_path / "study")
    rows = rows_of(1, ())
    write_trial(run, "none", 1, rows=rows, pictures=False, epochs=3, info={"training_number": number})
    assert "none, seed 1: trial.json is damaged: training_number is not what a training writes" in text(run)


def test_mixed_hardware_is_a_warning_and_the_number_of_a_gpu_is_none(tmp_path: Path) -> None:
    run = healthy_study(tmp_path / "study")
    devices = {1: "cuda:0", 2: "cuda:1", 3: "cuda"}
    for variant in ("none", "careless"):
        for seed in SEEDS:
            info = {"device": devices[seed], "compile": False}
            write_trial(run, variant, seed, rows=rows_of(seed, ()), pictures=False, epochs=3, info=info)
    assert "**Warning:**" not in text(run)
    info = {"device": "cpu", "threads": 8, "compile": True, "resident": True}
    write_trial(run, "careless", 3, rows=rows_of(3, ()), pictures=False, epochs=3, info=info)
    assert (
        "> **Warning:** The trials were not trained under the same conditions: device cuda (5 trials), cpu (1 trial); "
        "threads 1 (5 trials), 8 (1 trial); compile false (5 trials), true (1 trial); "
        "resident false (5 trials), true (1 trial)." in text(run)
    )


NAMES = [
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-x",
    "@SUM(A1)",
    "\tx",
    "'=quoted",
    "''@",
    "-1",
    "a, b",
    'say "x"',
    "plain",
    "'",
]


def test_names_that_a_spreadsheet_would_run_are_quoted_and_read_back(tmp_path: Path) -> None:
    rows = [[f"{name}/1", name, name, "dice", "test", repr(-0.5), 3, 4] for name in NAMES]
    files.write_text(tmp_path / "cases.csv", files.to_csv(HEADER, rows))
    content = (tmp_path / "cases.csv").read_text(encoding="utf-8")
    cells = [cell for row in csv.reader(content.splitlines()) for cell in row]
    assert not [cell for cell in cells if cell[0] in "=+-@\t\r" and not re.fullmatch(r"-[\d.]+", cell)]
    assert cells.count("-0.5") == len(NAMES)
    found = read_cases(tmp_path / "cases.csv", {})
    assert found.keys.names[1] == found.keys.names[2] == NAMES
    assert found.keys.names[0] == [f"{name}/1" for name in NAMES]
    assert list(found.values) == [-0.5] * len(NAMES)


def test_summary_keeps_names_and_numbers(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "study", {"=1+1": 0.0, "worse": -0.2}, pictures=False, epochs=3, recipe={"compare_with": "=1+1"}
    )
    rows = list(csv.DictReader(to_csv(summarize(run)).splitlines()))
    assert {files.from_cell(row["variant"]) for row in rows} == {"=1+1", "worse"}
    assert {row["variant"] for row in rows} == {"'=1+1", "worse"}
    assert float(next(row["difference"] for row in rows if row["difference"])) < 0


def test_both_ways_of_reading_cases_agree(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows: Rows = [
        [f"c{i // 4}", f"p{i // 8}" if i % 3 else "", f"ch{i % 2}", "dice", "validation" if i < 200 else "test",
         "" if i % 5 == 0 else repr(rng.normal()), i % 7, i % 3] for i in range(400)
    ]  # fmt: skip
    files.write_text(tmp_path / "plain.csv", files.to_csv(HEADER, rows))
    (tmp_path / "windows.csv").write_bytes((tmp_path / "plain.csv").read_bytes().replace(b"\n", b"\r\n"))
    with (tmp_path / "quoted.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([HEADER, *rows])
    with (tmp_path / "turned.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([row[::-1] for row in [list(HEADER), *rows]])
    first, *others = [read_cases(tmp_path / f"{name}.csv", {}) for name in ("plain", "windows", "quoted", "turned")]
    for other in others:
        assert other.keys.names == first.keys.names
        for one, two in zip(
            (first.keys.codes, first.values, first.truth, first.predicted),
            (other.keys.codes, other.values, other.truth, other.predicted),
            strict=True,
        ):
            np.testing.assert_array_equal(one, two)
    assert [first.keys.names[0][n] for n in first.keys.codes[0]] == [row[0] for row in rows]
    assert [first.keys.names[1][n] for n in first.keys.codes[1]] == [row[1] for row in rows]
    assert list(first.keys.of_set("test")) == [False] * 200 + [True] * 200
    assert not first.keys.of_set("train").any()


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_rows_without_a_set_are_of_the_validation_set(tmp_path: Path, quoting: Any) -> None:
    rows = [["c", "p", "ch", "dice", "0.5", "1", "1"], ["d", "p", "ch", "dice", "", "0", "0"]]
    for name, header, content in (
        ("old", OLD_HEADER, rows), ("new", HEADER, [[*row[:4], "validation", *row[4:]] for row in rows]),
    ):  # fmt: skip
        with (tmp_path / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, quoting=quoting, lineterminator="\n").writerows([header, *content])
    known: dict[bytes, Keys] = {}
    old, new = (read_cases(tmp_path / f"{name}.csv", known) for name in ("old", "new"))
    assert old.keys.names == new.keys.names
    assert old.keys.of_set("validation").all()
    np.testing.assert_array_equal(old.keys.codes, new.keys.codes)
    np.testing.assert_array_equal(old.values, new.values)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("a,p,ch,dice,test,much,1,1", "line 3 has 'much' instead of a number"),
        ("a,p,ch,dice,test,0.5,,1", "line 3 has a pixel count that is not a finite number"),
        ("a,p,ch,dice,test,0.5,1,inf", "line 3 has a pixel count that is not a finite number"),
        ("a,p,ch,dice,0.5,1,1", "line 3 has 7 of 8 values"),
        ("a,p,ch,dice,test,0.5,1,1,1\na,p,ch,dice,test,0.5,1", "line 3 has 9 of 8 values"),
        ("", "line 3 has 0 of 8 values"),
        ("a,p,ch,dice,test,0x5,1,1", "line 3 has '0x5' instead of a number"),
    ],
)
def test_damaged_rows_are_named_by_their_line(tmp_path: Path, row: str, sentence: str) -> None:
    path = tmp_path / "cases.csv"
    path.write_text(f"{','.join(HEADER)}\nb,p,ch,dice,test,0.5,1,1\n{row}\nc,p,ch,dice,test,0.5,1,1\n")
    with pytest.raises(ValueError, match=re.escape(f"cases.csv is damaged: {sentence}")):
        read_cases(path, {})


def test_a_pipe_and_a_deep_tree_in_a_run_folder_are_said(tmp_path: Path) -> None:
    run = healthy_study(tmp_path / "study")
    (run / "none" / "seed-1" / "trial.json").write_text("[" * 200_000)
    (run / "none" / "seed-2" / "cases.csv").unlink()
    os.mkfifo(run / "none" / "seed-2" / "cases.csv")
    said = text(run)
    assert "none, seed 1: trial.json is damaged: nested too deeply" in said
    assert "none, seed 2: cases.csv cannot be read: not a regular file: left out" in said


def report_process(run: Path) -> tuple[float, float]:
    """Return the CPU seconds and the most MiB of memory that `segkit report` takes."""
    code = (
        "import sys, time; from segkit.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "assert 'torch' not in sys.modules\n"
        "status = open('/proc/self/status').read()\n"  # the peak of getrusage is also that of the process before exec
        "print(time.process_time(), int(status.split('VmHWM:')[1].split()[0]) / 1024)"
    )
    command = [sys.executable, "-c", code, "report", str(run.resolve())]
    found = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert found.returncode == 0, found.stderr
    seconds, memory = found.stdout.split()[-2:]
    return float(seconds), float(memory)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's memory from /proc")
def test_a_report_needs_no_torch_and_little_memory(tmp_path: Path) -> None:
    run = make_run(tmp_path / "study", seeds=(1, 2), pictures=False, epochs=3)
    assert report_process(run)[1] < 300


def test_cases_are_read_by_the_million(tmp_path: Path) -> None:
    """A report of 10 trials of 10,000 cases has a second or so for 1.2 million rows: one as long as here is nothing."""
    run = make_run(tmp_path / "study", {"none": 0.0}, (1, 2), patients=400, cases=10, pictures=False, epochs=3)
    paths = sorted(run.glob("*/*/cases.csv"))
    rows = sum(path.read_bytes().count(b"\n") for path in paths)
    known: dict[bytes, Any] = {}
    started = time.process_time()
    read = [read_cases(path, known) for path in paths]
    per_row = (time.process_time() - started) / rows
    assert rows > 90_000
    assert per_row < 5e-6, "python's own csv and float take ten times as long as the budget"
    assert len(known) == 1, "trials of the same cases share their names"
    tracemalloc.start()
    read_cases(paths[1], known)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300 * rows
    assert len(read) == 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's memory from /proc")
def test_a_report_of_ten_trials_of_ten_thousand_cases(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "study", {"none": 0.0, "other": -0.01}, (1, 2, 3, 4, 5), patients=1000, cases=10, pictures=False
    )
    seconds, memory = report_process(run)
    assert seconds < 10, "five seconds on a machine that does nothing else"
    assert memory < 300


def test_nothing_is_folded_on_paper(tmp_path: Path) -> None:
    found = page(healthy_study(tmp_path / "study", metrics={"dice": 0.0, "hd95": 300.0}))
    assert "<details" not in found, "no browser prints a closed one, and no style makes all of them"
    assert found.count('<div class="folded"><input type="checkbox"') == 2
    rules = found.split("<style>")[1].split("</style>")[0]
    hiding = [line for line in rules.splitlines() if "display: none" in line]
    assert [line.strip().split(" {")[0] for line in hiding] == ["@media screen", ".folded input"]
    assert "overflow: visible" in rules.split("@media print")[1]
    ids = re.findall(r'<input type="checkbox" id="([^"]+)"', found)
    assert ids == re.findall(r'<label for="([^"]+)"', found)
    assert len(set(ids)) == 2


def test_one_is_no_plural(tmp_path: Path) -> None:
    said = text(make_run(tmp_path / "study", {"none": 0.0}, (1,), pictures=False, epochs=3))
    assert "1 variant, 1 of 1 trial finished." in said
    assert not re.search(r"\b1 (variants|trials|cases|patients|structures|rows)\b", said)


def test_a_study_without_variants_or_compared_with_nothing_is_reported(tmp_path: Path) -> None:
    run = healthy_study(tmp_path / "study")
    recipe = run / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('compare_with = "none"', 'compare_with = "gone"'))
    assert "study.compare_with is gone, which is not the label of any variant: none is the reference." in text(run)


@pytest.mark.parametrize("recipe", sorted(Path("recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_the_plan_is_read_as_it_is_made(recipe: Path, tmp_path: Path) -> None:
    """The report knows a study's trials without loading its components."""
    from segkit.recipe.merge import compose
    from segkit.recipe.model import validate
    from segkit.study.plan import plan_trials

    document = compose(recipe)
    made = validate(document)
    extra = {"split.seed": [1, 2], "optimizer.Adam.lr": [1e-3, 1e-2]} if recipe.stem == "baseline" else {}
    if extra:
        document.tree["study"] = {**document.tree.get("study", {}), "grid": extra}
        made = validate(document)
    (tmp_path / "recipe.toml").write_text(made.to_toml(), encoding="utf-8")
    again = compose(tmp_path / "recipe.toml")
    wanted = [(t.variant, t.seed, t.fold, t.folder) for t in plan_trials(validate(again), again)]
    found = read_plan(tmp_path)
    assert found.problem == ""
    assert found.trials == wanted
    assert [read_trial(tmp_path, *trial, {}).status for trial in found.trials] == ["missing"] * len(wanted)


def test_without_a_recipe_variants_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("lr=10/seed-1", "lr=2/seed-10", "lr=2/seed-9", "a/seed-1", "3/seed-1"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "trial.json").write_text("{}")
    found = read_plan(tmp_path)
    assert "cannot be read now" in found.problem
    assert [str(trial[3]) for trial in found.trials] == [
        "3/seed-1", "a/seed-1", "lr=2/seed-9", "lr=2/seed-10", "lr=10/seed-1",
    ]  # fmt: skip
