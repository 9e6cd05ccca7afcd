"""The CSV of a split: sets or folds as challenges publish them, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segkit import Recipe, UserError
from segkit.recipe import identity, merge
from segkit.recipe.describe import value_origins
from segkit.study import runs


def recipe(folder: Path, csv: str, extra: str = "", *sets: str) -> Recipe:
    (folder / "split.csv").write_text(csv, encoding="utf-8")
    (folder / "r.toml").write_text(f'[split]\nfile = "split.csv"\n{extra}')
    return Recipe.load(folder / "r.toml", sets=sets)


def lists(made: Recipe) -> dict[str, Any]:
    found: dict[str, Any] = made.dump()["split"]
    return {name: found[name] for name in ("train", "validation", "test", "folds") if name in found}


@pytest.mark.parametrize(
    ("csv", "expected"),
    [
        ("patient,set\nA,train\nB,val\nC,Testing\nD,Training\n",
         {"train": ["A", "D"], "validation": ["B"], "test": ["C"]}),
        ("\ufeffPatient; Set\r\nA; train\r\nB; validation\r\n", {"train": ["A"], "validation": ["B"]}),
        ("case\tset\tage\na/1\ttrain\t7\n\nb/1\ttest\t8\n", {"train": ["a/1"], "validation": 0.2, "test": ["b/1"]}),
        ("patient,fold\nC,2\nA,1\nB,2\n", {"validation": 0.2, "folds": [["A"], ["B", "C"]]}),
        ("patient,set,fold\nA,train,1\nB,,2\nC,test,\n", {"validation": 0.2, "folds": [["A"], ["B"]], "test": ["C"]}),
        ("case,patient,set\n1,A,train\n2,A,train\n3,B,test\n", {"train": ["A"], "validation": 0.2, "test": ["B"]}),
    ],
)  # fmt: skip
def test_sets_and_folds_become_lists(tmp_path: Path, csv: str, expected: dict[str, Any]) -> None:
    assert lists(recipe(tmp_path, csv)) == expected


def test_the_filled_recipe_needs_no_file_and_its_identity_is_of_the_content(tmp_path: Path) -> None:
    made = recipe(tmp_path, "patient,set\nA,train\nB,val\n")
    assert "file" not in made.dump()["split"]
    turned = recipe(tmp_path, "set,patient\nvalidation,B\ntraining,A\n")
    other = recipe(tmp_path, "patient,set\nA,val\nB,train\n")
    first, same, different = map(identity.training_identity, (made, turned, other))
    assert first == same != different
    (tmp_path / "split.csv").unlink()
    (tmp_path / "filled.toml").write_text(made.to_toml())
    assert identity.training_identity(Recipe.load(tmp_path / "filled.toml")) == first


def test_its_folds_are_planned(tmp_path: Path) -> None:
    made = recipe(tmp_path, "patient,fold\nA,1\nB,2\nC,3\n")
    assert made.split.fold_count == 3
    (planned,) = runs.plan_studies([tmp_path / "r.toml"], [], ["study.seeds=[1,2]"], tmp_path / "runs")
    assert [(trial.fold, trial.seed) for trial in planned.planned] == [(f, s) for f in (1, 2, 3) for s in (1, 2)]
    assert all(trial.recipe.split.folds == (("A",), ("B",), ("C",)) for trial in planned.planned)


def test_it_replaces_what_an_earlier_layer_says_and_shows_where_values_come_from(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('[split]\nvalidation = ["X"]\ntest = ["Y"]\nseed = 7\n')
    (tmp_path / "split.csv").write_text("patient,set\nA,train\nB,val\n")
    (tmp_path / "r.toml").write_text('extends = "base.toml"\n[split]\nfile = "split.csv"\ntest = 0.3\n')
    made = Recipe.load(tmp_path / "r.toml")
    assert lists(made) == {"train": ["A"], "validation": ["B"], "test": 0.3}
    assert made.split.seed == 7
    origins = {".".join(path): place for path, _, place in value_origins(made, merge.compose(tmp_path / "r.toml"))}
    assert origins["split.train"].endswith("split.csv")
    assert origins["split.test"].endswith("r.toml:4")


@pytest.mark.parametrize(
    ("csv", "extra", "message"),
    [
        ("patient,set\nA,train\nB,val\nA,test\n", "", r"r.toml:2: split.file: .*split.csv:4: patient A is in the test "
         "set, but in the train set on line 2."),
        ("patient,set\nA,train\nB,tset\n", "", r"split.csv:3: the set is train, validation or test, got 'tset'"),
        ("patient,set\nA,train\n,val\n", "", r"split.csv:3: has no patient"),
        ("patient,set\nA,val\n", "", "no line has the set train: nothing would be trained on"),
        ("patient,set\nA,train\nB,\n", "", "split.csv:3: names neither a set nor a fold"),
        ("patient,fold\nA,0\nB,1\n", "", "split.csv:2: folds are numbered 1, 2, ..., got '0'"),
        ("patient,fold\nA,1\nB,3\n", "", "folds are numbered 1 to 3, but no line has 2"),
        ("patient,fold\nA,1\n", "", "folds are numbered 1 to 2, but no line has 2"),
        ("patient,set,fold\nA,train,1\nB,train,2\nC,train,\n", "", "C: has a set, but no fold, as others have"),
        ("patient,set,fold\nA,val,1\nB,train,2\n", "", "split.csv:2: names a fold, which is validated in turn"),
        ("name,group\nA,1\n", "", "and set or fold; its first line is: name,group"),
        ("", "", "needs the columns patient .or case., and set or fold; its first line is: nothing"),
        ("patient,set\nA\0,train\n", "", "not a text file: it contains a zero byte"),
        ("patient,set\n" + "A" * 500_000, "", "files of this kind are read up to 500,000"),
        ("patient,set\nA,train\nB,val\n", "validation = 0.3\n", "r.toml:3: split.validation: .*says this too"),
        ("patient,set\nA,train\nB,val\n", "folds = 3\n", r"r.toml:3: split.folds: .*split.csv says this too"),
        ("patient,set\nA,train\nB,val\n", 'test = ["A"]\n', 'split: "A" is in test and in train. Leave out one'),
        ("patient,set\nA,train\nB,val\n", '[[study.variants]]\nlabel = "x"\nsplit.file = "split.csv"\n',
         "the variants of a study share one file"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_with_its_place(tmp_path: Path, csv: str, extra: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        recipe(tmp_path, csv, extra)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_and_every_mistake_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"r.toml:2: split.file: .*split.csv:2: .*\n.*split.csv:3: "):
        recipe(tmp_path, "patient,set\nA,x\nB,y\n")
    (tmp_path / "r.toml").write_text('[split]\nfile = "gone.csv"\n')
    with pytest.raises(UserError, match=r"r.toml:2: split.file: .*gone.csv: (no such file|does not exist)"):
        Recipe.load(tmp_path / "r.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("validation = []", "split.validation: must be .*a list of at least 1 value, got an empty list"),
        ("test = 1.0", "split.test: must be below 1"),
        ("test = 3", "split.test: must be below 1"),
        ('folds = 3\nvalidation = ["A"]', "validation names patients, but folds are validated in turn"),
        ('folds = [["A"], ["B"]]\ntrain = ["C"]', "folds names the patients that are trained on in turn"),
        ('folds = [["A"], ["A"]]', '"A" is in folds.0 and in folds.1'),
        ('folds = [["A"]]', "split.folds: must be .*a list of at least 2 values"),
        ('train = ["A", "A"]', '"A" is listed twice in train'),
        ('folds = [["A"], ["B"]]\nfold = 3', "fold = 3, but there are only 2 folds"),
    ],
)
def test_lists_that_contradict_each_other(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.toml").write_text(f"[split]\n{text}\n")
    with pytest.raises(UserError, match=message):
        Recipe.load(tmp_path / "r.toml")
