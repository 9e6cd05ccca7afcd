from __future__ import annotations

import base64
import csv
import functools
import re
import shutil
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from segkit.report import figures
from segkit.report.render import read_table, write_report
from segkit.study.summary import summarize
from tests.fake_runs import make_run

REFERENCE, ODD, BROKEN = "dice | mix", "a <b> & `c`", "summed"
TITLE = "Is <b> | better?"
FIGURES = ("effect", "distribution", "val_dice", "val_loss", "train_loss", "learning_rate", "cases")


class Tables(HTMLParser):
    """The tables of a page, as rows of texts, and the addresses that it loads."""

    tables: list[list[list[str]]]
    loaded: list[Any]
    tags: set[str]
    cell: Any

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables, self.loaded, self.tags, self.cell = [], [], set(), None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.cell = ""

    def handle_data(self, data: str) -> None:
        if self.cell is not None:
            self.cell += data

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.tables[-1][-1].append(self.cell)
            self.cell = None


def markdown_tables(text: str) -> list[list[list[str]]]:
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()]
        plain = [[re.sub(r"\\(.)", r"\1", cell.strip()) for cell in row] for row in rows]
        found.append([plain[0], *plain[2:]])
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    variants = {REFERENCE: 0.0, ODD: -0.05, BROKEN: -0.3}
    folder = make_run(
        tmp_path_factory.mktemp("runs") / "study",
        variants,
        status={(BROKEN, 2): "failed"},
        recipe={"title": TITLE, "compare_with": REFERENCE},
        cases=4,
        epochs=24,
        metrics=("dice", "hd95"),
    )
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def markdown(run: Path) -> str:
    return (run / "report.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def lines(run: Path) -> list[dict[str, str]]:
    with (run / "summary.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rows_of_cases(run: Path, variant: str, trial: str = "*") -> Iterator[dict[str, str]]:
    for path in sorted((run / variant).glob(f"{trial}/cases.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)


def place(row: dict[str, str]) -> tuple[str, str]:
    return row["case"], row["channel"]


@functools.cache
def marked(run: Path) -> set[tuple[str, str]]:
    """Return the structures that are empty in truth and that a finished trial marked."""
    rows = [
        row
        for path in run.glob("*/*/cases.csv")
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    ]
    return {place(row) for row in rows if row["truth_pixels"] == "0" and row["predicted_pixels"] != "0"}


def dice_of(run: Path, row: dict[str, str]) -> float | None:
    """Return a row's Dice as the tables count it."""
    if row["metric"] != "dice" or not (row["value"] or place(row) in marked(run)):
        return None
    return float(row["value"] or 1)


def test_page_needs_nothing_else(html: str) -> None:
    page = Tables(html)
    assert page.loaded
    assert all(address.startswith("data:image/") for address in page.loaded)
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert not re.search(r"url\(|@import|https?://", html)
    svgs = [base64.b64decode(address.split(",")[1]) for address in page.loaded if address.startswith("data:image/svg")]
    assert len(svgs) == len(FIGURES) - 1
    references = re.findall(rb'href="([^"]*)"', b"".join(svgs))
    assert all(reference.startswith((b"#", b"data:")) for reference in references)


def test_verdict_stands_first(html: str, markdown: str) -> None:
    heading = f"Verdict: each variant against {REFERENCE}"
    assert re.findall("<h2>(.*?)</h2>", html)[0] == heading
    assert Tables(html).tables[0][0][:3] == ["variant", "verdict", "Dice"]
    sections = re.findall("^## (.*)$", markdown, re.MULTILINE)
    assert sections[0].replace("\\", "") == heading
    assert sections[1:] == [
        *("Missing", "Warnings", "Figures", "Cases", "Failures", "All metrics and channels", "First batch"),
        "What was run",
    ]


@pytest.mark.parametrize("kind", ["html", "markdown"])
def test_tables_say_what_the_summary_says(kind: str, html: str, markdown: str, lines: list[dict[str, str]]) -> None:
    tables = Tables(html).tables if kind == "html" else markdown_tables(markdown)
    keys = {
        "variant": "variant", "verdict": "verdict", "Dice": "mean", "mean": "mean", "SD seeds": "sd_seeds",
        "SD patients": "sd_patients", "difference": "difference", "p": "p_holm", "p (Wilcoxon)": "p_wilcoxon_holm",
        "smallest detectable": "smallest_detectable", "metric": "metric", "channel": "channel",
    }  # fmt: skip
    intervals = {"95 % (patients, bootstrap)": "ci", "95 % (patients and seeds)": "t"}
    headline = [line for line in lines if line["metric"] == "dice" and line["channel"] == "all"]
    everything = next(table for table in tables if table[0][:2] == ["variant", "metric"])
    for (head, *rows), wanted in ((tables[0], headline), (everything, lines)):
        assert len(rows) == len(wanted) > 0
        for row, line in zip(rows, wanted, strict=True):
            shown = dict(zip(head, row, strict=True))
            for column, key in keys.items():
                if column in shown:
                    assert shown[column] == line[key]
            for column, key in intervals.items():
                low, high = line[f"{key}_low"], line[f"{key}_high"]
                assert shown[column] == (f"{low} to {high}" if low else "")
    assert [row[-1] for row in tables[0][1:]] == ["3 of 3", "3 of 3", "2 of 3"]


def test_html_and_markdown_have_the_same_sentences(html: str, markdown: str) -> None:
    found = re.findall(r"<(p|li|figcaption)\b[^>]*>(.*?)</\1>", html)
    sentences = [unescape(re.sub("<[^>]+>|`", "", text)) for _, text in found]
    plain = re.sub(r"\\(.)", r"\1", markdown).replace("`", "")
    assert len(sentences) >= 20
    assert [text for text in sentences if text not in plain] == []


def test_failed_trial_is_shown_with_its_reason(html: str, markdown: str) -> None:
    said = "summed, seed 2: failed after 8 of 24 epochs: train_loss is not finite: loss.dice_mix is nan in epoch 20"
    assert f"<li>{said}</li>" in html
    assert f"- {said}" in markdown
    assert "8 of 9 trials finished. This study is not complete" in html


def test_warnings_are_shown_once_with_their_trials(html: str) -> None:
    assert html.count("loss.bce has 99.9 % of the gradient (summed, seed 1; summed, seed 2; summed, seed 3)") == 1


def test_failures_are_counted(run: Path, html: str, lines: list[dict[str, str]]) -> None:
    rows = [row for row in rows_of_cases(run, "summed") if row["metric"] == "dice"]
    truth = np.array([int(row["truth_pixels"]) for row in rows]) > 0
    predicted = np.array([int(row["predicted_pixels"]) for row in rows]) > 0
    undefined = sum(row["value"] == "" and place(row) not in marked(run) for row in rows)
    rightly = sum(row["value"] == "" and place(row) in marked(run) for row in rows)
    counted = [len(rows), (~truth).sum(), (truth & ~predicted).sum(), (~truth & predicted).sum(), rightly, undefined]
    assert min(counted[:-1]) > 0
    table = next(table for table in Tables(html).tables if "missed" in table[0])
    assert [row[2:] for row in table if row[:2] == ["summed", "all"]] == [[str(number) for number in counted]]
    line = next(line for line in lines if (line["variant"], line["channel"]) == ("summed", "all"))
    names = ("structures", "empty_truth", "missed", "false_positive_on_empty", "rightly_empty", "undefined")
    assert [line[name] for name in names] == [str(number) for number in counted]


def test_cases_are_the_same_for_each_variant(run: Path, html: str) -> None:
    values: dict[str, list[float]] = {}
    for row in rows_of_cases(run, "dice_mix"):
        value = dice_of(run, row)
        if value is not None:
            values.setdefault(row["case"], []).append(value)
    means = {case: float(np.mean(found)) for case, found in values.items()}
    wanted: list[tuple[int, str]] = []
    for percentile in (5, 25, 50, 95):
        target = np.percentile(list(means.values()), percentile)
        free = [case for case in means if case not in [name for _, name in wanted]]
        wanted.append((percentile, min(free, key=lambda case: (abs(means[case] - target), case))))
    head, *rows = next(table for table in Tables(html).tables if "percentile" in "".join(table[0]))
    assert head[1:] == [f"{percentile}th percentile{case}" for percentile, case in wanted]
    assert [row[0] for row in rows] == [REFERENCE, ODD, BROKEN]
    alts = re.findall(r'<img alt="(patient[^"]*)"', html)
    assert [alt.split(",")[0] for alt in alts] == [case for _, case in wanted] * 3
    pictured = [row for row in rows_of_cases(run, "summed", "seed-1") if row["case"] == wanted[0][1]]
    shown = [value for row in pictured if (value := dice_of(run, row)) is not None]
    assert rows[2][1] == f"dice {np.mean(shown):.4f} (seed 1)"


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_sharp_and_scale(run: Path, name: str) -> None:
    png: Any = cv2.imread(str(run / "figures" / f"{name}.png"))
    assert png.shape[1] >= 1500
    assert png.std() > 5
    edge = np.concatenate([png[0], png[-1], png[:, 0], png[:, -1]])
    assert edge.min() > 250, "something is cut off"
    assert ElementTree.parse(run / "figures" / f"{name}.svg").getroot().tag.endswith("svg")


def test_labels_are_text_in_html_and_markdown(html: str, markdown: str) -> None:
    assert "<b>" not in html
    assert "a &lt;b&gt; &amp; `c`" in html
    assert "<title>Is &lt;b&gt; | better?</title>" in html
    assert r"| a \<b> & \`c\` |" in markdown
    assert r"| dice \| mix " in markdown
    assert markdown.startswith(r"# Is \<b> \| better?")


def test_report_from_disk_has_the_same_bytes(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from segkit.cli import main

    copy = tmp_path / "study"
    shutil.copytree(run, copy)
    path: str | Path
    for path in ("summary.csv", "report.html", "report.md"):
        (copy / path).unlink()
    shutil.rmtree(copy / "figures")
    monkeypatch.setattr("sys.argv", ["segkit", "report", str(copy)])
    with pytest.raises(SystemExit, match=r"^0$"):
        main()
    assert capsys.readouterr().out.strip() == str(copy / "report.html")
    made = [*run.glob("figures/*"), *(run / name for name in ("summary.csv", "report.html", "report.md"))]
    assert len(made) == 2 * len(FIGURES) + 3
    for path in made:
        assert path.read_bytes() == (copy / path.relative_to(run)).read_bytes(), path.name


def test_a_figure_is_drawn_once_for_each_format(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draws, whole = list[Figure](), Figure.draw

    def draw(figure: Figure, renderer: Any) -> None:
        draws.append(figure)
        whole(figure, renderer)

    monkeypatch.setattr(Figure, "draw", draw)
    drawn = figures.draw(summarize(run))
    assert len(drawn) == len(FIGURES)
    assert len(draws) == 2 * len(FIGURES), "drawing is what takes the time of a report"


def test_a_figure_without_data_any_more_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(
        tmp_path / "study", {"only": 0.0}, recipe={"title": "x", "compare_with": "only"}, cases=2, epochs=2
    )
    monkeypatch.setattr(figures, "FIGURES", {"effect": figures.FIGURES["effect"]})
    (folder / "figures").mkdir()
    for name in ("effect.svg", "own.svg"):
        (folder / "figures" / name).write_text("of before", encoding="utf-8")
    write_report(folder)
    assert [path.name for path in (folder / "figures").iterdir()] == ["own.svg"]


def test_a_report_whose_writing_was_interrupted_does_not_pass_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "FIGURES", {})
    folder = make_run(tmp_path / "study", {"a": 0.0}, recipe={"title": "x", "compare_with": "a"}, cases=2, epochs=2)
    write_report(folder)
    assert read_table(folder)
    (folder / "summary.csv").write_text("of an earlier day\n", encoding="utf-8")

    def stopped(*blocks: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("segkit.report.render.html", stopped)
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        write_report(folder)
    assert read_table(folder) is None
