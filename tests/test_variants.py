"""Variants: labels and their folders, flags that change nothing, studies that are too large."""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segkit import UserError
from segkit.recipe.merge import compose
from segkit.recipe.model import validate
from segkit.recipe.variants import assign_folders, folder_name, normalize_label
from segkit.study import reading, runs
from segkit.study.plan import folder_owner, plan_trials


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("l1=1e-3 l2=1e-2", "l1=1e-3_l2=1e-2"),
        ("rec ipé", "rec_ipé"),
        ("e\u0301", "é"),
        ("学習率 0.1", "学習率_0.1"),
        ("हिन्दी", "हिन्दी"),
        ("../x", "x"),
        (".", "variant"),
        ("", "variant"),
        ("🙂", "variant"),
        ("a. ", "a"),
        ("CON", "variant_CON"),
        ("nul.txt", "variant_nul.txt"),
        ("figures", "variant_figures"),
        ("recipe.toml", "variant_recipe.toml"),
        ("a\u202eb\x1b[31m", "a_b_31m"),
    ],
)
def test_a_folder_is_readable_and_lies_where_it_should(label: str, name: str) -> None:
    assert folder_name(label) == name


def test_no_two_labels_share_a_folder() -> None:
    labels = ["a, b", "a b", "A b", "é", "e\u0301", "É", "🙂", "🙃", "x" * 300, "x" * 299 + "y", "ß", "ss", "学" * 300]
    found = assign_folders(labels)
    same = {unicodedata.normalize("NFKC", name.casefold()) for name in found.values()}
    assert len(same) == len(labels)
    assert found["a b"].startswith("a_b-")
    assert len(found["a b"]) == len("a_b-") + 6
    assert assign_folders(labels[::-1]) == found
    assert max(len(name.encode()) for name in found.values()) <= 100


@given(st.lists(st.text(max_size=120), unique=True, max_size=6))
def test_folders_of_any_labels_are_apart_and_below_the_run(labels: list[str]) -> None:
    names = list(assign_folders(labels).values())
    assert len({name.casefold() for name in names}) == len(labels)
    for name in names:
        assert Path(name).name == name
        assert name[0] not in "._"
        assert name.isprintable()
        assert 0 < len(name.encode()) <= 100


def holding(folder: Path, held: dict[str, str]) -> None:
    for name, label in held.items():
        (folder / name / "seed-1").mkdir(parents=True)
        (folder / name / "seed-1/trial.json").write_text(json.dumps({"variant": label}), encoding="utf-8")


@given(st.permutations(["a, b", "a b", "A b", "a", "A"]), st.integers(1, 5))
def test_trials_stay_where_they_are(order: list[str], size: int) -> None:
    first = assign_folders(order[:size])
    held = {name: label for label, name in first.items()}
    now = assign_folders(["new", *order[::-1]], held.get)
    assert {label: now[label] for label in first} == first
    assert len({name.casefold() for name in now.values()}) == 6


def test_labels_are_found_where_older_versions_put_them(tmp_path: Path) -> None:
    held = {"a_b": "a, b", "A": "A", "0.1": "学習率 0.1", "c": "c ", "figures": "figures", "x" * 200: "x" * 200}
    holding(tmp_path, held)
    labels = ["a b", "a", "c", *held.values()]
    found = assign_folders([normalize_label(label) for label in labels], functools.partial(folder_owner, tmp_path))
    for name, label in held.items():
        assert found[normalize_label(label)] == name
    assert found["a b"].startswith("a_b-")
    assert found["a"].startswith("a-")


def test_adding_and_reordering_variants_moves_no_trial(tmp_path: Path) -> None:
    path, run = tmp_path / "r.toml", tmp_path / "runs/r"
    listed = "[[study.variants]]\nlabel = '{}'\n[[study.variants]]\nlabel = '{}'\noptimizer.Adam.lr = 0.5\n"
    path.write_text("[[study.variants]]\nlabel = 'a, b'\n")
    (before,) = runs.plan_studies([path], [], [], tmp_path / "runs")[0].planned
    holding(run, {before.folder.parent.name: before.variant})
    for labels in (("a b", "a, b"), ("a, b", "a b"), ("A, b", "a, b")):
        path.write_text(listed.format(*labels))
        planned = runs.plan_studies([path], [], [], tmp_path / "runs")[0].planned
        (run / "recipe.toml").write_bytes(path.read_bytes())
        assert next(trial.folder for trial in planned if trial.variant == "a, b") == before.folder
        assert {(trial[0], trial[3]) for trial in reading.read_plan(run).trials} == {
            (t.variant, t.folder) for t in planned
        }


def refusal(folder: Path, *labels: str) -> str:
    (folder / "r.toml").write_text("".join(f"[[study.variants]]\nlabel = {json.dumps(label)}\n" for label in labels))
    with pytest.raises(UserError, match=r"label") as error:
        warnings(folder, (folder / "r.toml").read_text())
    return str(error.value)


@pytest.mark.parametrize("twin", ["a b ", " a b", "a  b", "a\u00a0b"])
def test_labels_that_look_the_same_are_the_same(tmp_path: Path, twin: str) -> None:
    assert '"a b" is the label of the variant at ' in refusal(tmp_path, "a b", twin)


@pytest.mark.parametrize("unseen", ["\x1b", "\t", "\x00", "\u202e", "\u200b", "\u2028", "\x7f"])
def test_labels_hold_no_character_that_moves_a_terminal(tmp_path: Path, unseen: str) -> None:
    assert re.search(r"label: contains the control character \\[xu][0-9a-f]+|label: contains the control character \\n",
                     refusal(tmp_path, f"a{unseen}b"))  # fmt: skip


def test_the_reference_is_found_as_it_is_shown(tmp_path: Path) -> None:
    assert warnings(tmp_path, VARIED.replace("'b'", "'e\u0301'") + "[study]\ncompare_with = ' \u00e9'\n") == []


def warnings(folder: Path, text: str, *sets: str, overlay: str = "") -> list[str]:
    (folder / "r.toml").write_text(text)
    (folder / "o.toml").write_text(overlay or "title = 'x'")
    document = compose(folder / "r.toml", overlays=[folder / "o.toml"], sets=sets)
    plan_trials(validate(document), document)
    return document.warnings


VARIED = "[[study.variants]]\nlabel = 'a'\n[[study.variants]]\nlabel = 'b'\noptimizer.Adam.lr = 0.5\n"


def test_what_is_seldom_meant_is_a_warning(tmp_path: Path) -> None:
    assert warnings(tmp_path, VARIED) == []
    (line,) = warnings(tmp_path, VARIED, "optimizer.Adam.lr=0.25")
    assert line.startswith("--set optimizer.Adam.lr=0.25: has no effect in 'b': overridden at ")
    assert line.endswith("r.toml:5.")
    (line,) = warnings(tmp_path, VARIED, overlay="[optimizer.Adam]\nlr = 0.25\n[train]\nepochs = 2\n")
    assert "o.toml: its optimizer.Adam.lr has no effect in 'b'" in line
    (line,) = warnings(tmp_path, VARIED.replace("0.5", "1e-3"), "optimizer.Adam.weight_decay=0")
    assert line == "'a', 'b' are the same recipe under 2 labels."
    (line,) = warnings(tmp_path, "[study.grid]\n'train.epochs' = [3]\n")
    assert "study.grid: has only one point" in line
    (line,) = warnings(tmp_path, "[split]\nfolds = 2\nvalidation = 0.5\n")
    assert "r.toml:3: split.validation: has no effect: with split.folds" in line
    (line,) = warnings(tmp_path, "[evaluation]\nduring_training = true\n")
    assert "r.toml:2: evaluation.during_training: has no effect" in line


def test_a_grid_over_two_keys_of_one_name_tells_them_apart(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("[study.grid]\n'loss.dice.weight' = [1, 2]\n'loss.bce.weight' = [1, 2]\n")
    document = compose(path)
    labels = [trial.variant for trial in plan_trials(validate(document), document)]
    assert labels[1] == "loss.dice.weight=1, loss.bce.weight=2"
