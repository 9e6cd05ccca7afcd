"""Recipes: layers, strictness, places of mistakes, and what a filled recipe says."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.data.pipeline import Pipeline
from segkit.errors import UserError, printable
from segkit.recipe import merge, paths, toml
from segkit.recipe.describe import value_origins
from segkit.recipe.merge import compose
from segkit.recipe.model import Recipe, validate
from segkit.recipe.source import Source
from segkit.registry.slot import fold
from segkit.study.plan import plan_trials

RECIPES = Path(__file__).parent.parent / "recipes"
STUDIES = sorted([*RECIPES.glob("*.toml"), *RECIPES.glob("examples/*.toml")])
OVERLAYS = sorted(RECIPES.glob("overlays/*.toml"))


def write(folder: Path, text: str, name: str = "recipe.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def mistakes_of(folder: Path, text: str, **options: Any) -> list[str]:
    path = write(folder, text)
    with pytest.raises(UserError, match=r".") as caught:
        Recipe.load(path, **options)
    return str(caught.value).splitlines()


def test_there_are_recipes() -> None:
    assert len(STUDIES) >= 14
    assert OVERLAYS


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_recipe_of_the_folder_is_valid_and_fills_to_itself(path: Path) -> None:
    recipe = Recipe.load(path)
    again = Recipe.from_dict(tomllib.loads(recipe.to_toml()))
    assert again.dump() == recipe.dump()
    assert again == recipe


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_overlay_can_be_laid_over_every_recipe(path: Path, overlay: Path) -> None:
    assert Recipe.load(path, overlays=[overlay]) != Recipe.load(path)


@pytest.mark.parametrize("overlays", [[], OVERLAYS], ids=["alone", "laptop"])
def test_strong_takes_images_smaller_than_its_crop(overlays: list[Path]) -> None:
    pipeline = Pipeline(Recipe.load(RECIPES / "strong.toml", overlays=overlays).transforms.train)
    side = 96 if overlays else 192
    for size in ((100, 150), (512, 160)):
        image, bits = pipeline(np.full(size, 99, np.uint8), np.ones(size, np.uint8), (1, 2))
        assert image.shape == bits.shape == (side, side)


def test_an_overlay_that_replaces_the_model_says_so(tmp_path: Path) -> None:
    recipe = write(tmp_path, "[data.phantom]\n[model.other]\nfilters = [4, 8]\n")
    overlay = write(tmp_path, "[model.unet]\nwidths = [4, 8]\n", "over.toml")
    (warning,) = compose(recipe, overlays=[overlay]).warnings
    assert warning.endswith(
        "over.toml:1: model.unet takes the place of model.other, whose settings do not count any more."
    )
    assert compose(write(tmp_path, "[data.phantom]\n[model]\nunet = {}\n"), overlays=[overlay]).warnings == []


def test_overlay_shrinks_every_variant() -> None:
    path, overlay = RECIPES / "l1l2.toml", RECIPES / "overlays/laptop.toml"
    document = compose(path, overlays=[overlay])
    planned = plan_trials(validate(document), document)
    assert [trial.variant for trial in planned][:2] == ["none", "l1=1e-3 l2=1e-3"]
    assert len(planned) == 6
    assert {tuple(trial.recipe.model.arguments["widths"]) for trial in planned} == {(8, 16, 32, 64, 128)}
    assert planned[0].recipe.regularizer == ()
    assert planned[4].recipe.regularizer[0].arguments["l1"] == 1e-2


def test_layers_apply_in_order(tmp_path: Path) -> None:
    write(tmp_path, "[train]\nepochs = 1\nbatch_size = 2\nseed = 3\n[optimizer.Adam]\nlr = 0.5\n", "base.toml")
    path = write(tmp_path, 'extends = "base.toml"\n[train]\nbatch_size = 4\n')
    overlay = write(tmp_path, "[train]\nseed = 5\n[optimizer.adam]\nweight_decay = 0.25\n", "overlay.toml")
    recipe = Recipe.load(path, overlays=[overlay], sets=["train.seed=6", "train.device=cpu"])
    train = recipe.train
    assert (train.epochs, train.batch_size, train.seed, train.device) == (1, 4, 6, "cpu")
    assert recipe.optimizer.arguments["lr"] == 0.5
    assert recipe.optimizer.arguments["weight_decay"] == 0.25


def test_another_name_replaces_and_the_same_merges(tmp_path: Path) -> None:
    write(tmp_path, "[optimizer.Adam]\nlr = 0.5\n[loss.dice]\nepsilon = 2.0\n", "base.toml")
    path = write(tmp_path, 'extends = "base.toml"\n[optimizer.SGD]\nlr = 0.1\n[loss.bce]\n')
    recipe = Recipe.load(path)
    assert recipe.optimizer.name == "SGD"
    assert [component.name for component in recipe.loss] == ["dice", "bce"]
    assert Recipe.load(path, sets=["model.unet.upsampler=bilinear"]).model.arguments["upsampler"].name == "bilinear"


def test_drop_takes_away_what_was_inherited(tmp_path: Path) -> None:
    write(tmp_path, "[regularizer.l1]\nweight = 0.5\n[loss.dice]\n[loss.bce]\n", "base.toml")
    path = write(tmp_path, 'extends = "base.toml"\ndrop = ["regularizer", "loss.bce"]\n')
    recipe = Recipe.load(path)
    assert recipe.regularizer == ()
    assert [component.name for component in recipe.loss] == ["dice"]
    write(tmp_path, 'extends = "base.toml"\ndrop = ["los"]\n')
    with pytest.raises(
        UserError, match=r"recipe\.toml:2: drop: nothing called 'los' is inherited. Did you mean 'loss'"
    ):
        Recipe.load(path)


def test_all_mistakes_of_a_file_come_in_one_pass_with_their_lines(tmp_path: Path) -> None:
    lines = mistakes_of(
        tmp_path,
        '[train]\nepochs = "3"\nbatch_size = 0\ncompile = 1\nepoch = 4\n\n[los.dice]\n\n[optimizer.Adam]\nlr = -1\n'
        "\n[regularizer.l1l2]\nl1 = 0.1\nl3 = 1\n[model.unett]\n[transforms]\neval = [\n    { CLAHE = {} },\n"
        "    { Rotat = { limit = 3 } },\n]\n",
    )
    text = "\n".join(lines)
    assert 'recipe.toml:2: train.epochs: must be a whole number, got "3"' in text
    assert "recipe.toml:3: train.batch_size: must be 1 or more, got 0" in text
    assert "recipe.toml:4: train.compile: must be true or false, got 1" in text
    assert "recipe.toml:5: train.epoch: no such key. Did you mean 'epochs'?" in text
    assert "recipe.toml:7: los: no such key. Did you mean 'loss'?" in text
    assert "recipe.toml:10: optimizer.Adam.lr:" in text
    assert "recipe.toml:14: regularizer.l1l2.l3: no such parameter. Did you mean 'l2'? Known: " in text
    assert "recipe.toml:15: model.unett: no such model. Did you mean 'unet'?" in text
    assert "recipe.toml:19: transforms.eval.1.Rotat: no such transform. Did you mean 'Rotate'?" in text
    assert len(lines) == 9


def test_toml_strictness(tmp_path: Path) -> None:
    assert Recipe.load(write(tmp_path, "[optimizer.Adam]\nlr = 1\n")).optimizer.arguments["lr"] == 1.0
    assert mistakes_of(tmp_path, "[train]\nseed = true\n") == [
        f"{tmp_path}/recipe.toml:2: train.seed: must be a whole number, got true"
    ]
    assert "must be a finite number" in mistakes_of(tmp_path, "[optimizer.Adam]\nlr = nan\n")[0]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("[train\n", r"recipe.toml:1: not valid TOML: expected"),
        ("a = 1\na = 2\n", r"recipe.toml:2: not valid TOML: cannot overwrite a value"),
        ('extends = "nowhere.toml"\n', r"recipe.toml:1: extends: no such file: .*nowhere.toml"),
        ('extends = "recipe.toml"\n', r"recipe.toml:1: extends: 'recipe.toml' extends this file in turn"),
        ("extends = 3\n", r"recipe.toml:1: extends: must be the name of one file"),
        ("[split]\nfold = 2\n", r"recipe.toml:1: split: fold = 2, but there are no folds: set split.folds"),
        ("loss = {}\n", r"recipe.toml:1: loss: a recipe needs at least one loss"),
        ("[loss.cross_entropy]\n", r"recipe.toml:1: loss.cross_entropy: is defined for exclusive classes only"),
        ("[optimizer]\nAdam = {}\nSGD = {}\n", r"optimizer: must be one optimizer.*got 2 names: Adam, SGD"),
    ],
)
def test_wrong_files_name_place_and_cause(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=expected):
        Recipe.load(path)


def test_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path, "", "baseline.toml")
    with pytest.raises(UserError, match=r"basline.toml: no such recipe. Did you mean 'baseline.toml'"):
        Recipe.load(tmp_path / "basline.toml")


def test_binary_file_is_no_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"recipe.toml: not a text file in UTF-8 \(byte 0\)"):
        Recipe.load(path)


def test_mistakes_of_flags_name_the_flag(tmp_path: Path) -> None:
    path = write(tmp_path, "title = 'x'\n")
    with pytest.raises(UserError, match=r"--set train.epoch=3: train.epoch: no such key. Did you mean 'epochs'"):
        Recipe.load(path, sets=["train.epoch=3"])
    with pytest.raises(UserError, match=r"--set train.epochs: must be path=value"):
        Recipe.load(path, sets=["train.epochs"])
    with pytest.raises(UserError, match=r"--set a..b=3: 'a..b' is not a path"):
        Recipe.load(path, sets=["a..b=3"])
    with pytest.raises(UserError, match=r"--set train.epochs=\[1,: the value is not valid TOML"):
        Recipe.load(path, sets=["train.epochs=[1,"])


def test_settings_reach_into_lists(tmp_path: Path) -> None:
    path = write(tmp_path, "[transforms]\ntrain = [{ Rotate = { limit = 180 } }, { CLAHE = {} }]\n")
    recipe = Recipe.load(path, sets=["transforms.train.0.Rotate.p=0.25"])
    assert recipe.transforms.train[0].arguments["p"] == 0.25
    with pytest.raises(UserError, match=r"transforms.train.7: the list has 2 items"):
        Recipe.load(path, sets=["transforms.train.7.Rotate.p=0.25"])


LISTED = """[transforms]
train = [
    { rotate = { limit = 10, p = 0.5 } },
    "HorizontalFlip",
    { RandomCrop = { height = 32, width = 32 } },
]
[evaluation]
postprocess = ["largest_part", { remove_small = { size = 3, unit = "pixels" } }]
"""


def test_components_of_a_list_are_changed_by_name_and_new_ones_come_first(tmp_path: Path) -> None:
    path = write(tmp_path, LISTED)
    overlay = write(
        tmp_path,
        "[transforms.train]\nResize = { height = 64, width = 64 }\nrandom_crop = { height = 16 }\nHorizontalFlip = {}\n"
        "0.Rotate = { p = 1.0 }\nVerticalFlip = {}\n[transforms.eval]\nLongestMaxSize = { max_size = 64 }\n",
        "overlay.toml",
    )
    sets = ["transforms.train.Rotate.limit=90", "evaluation.postprocess.remove_small.size=5"]
    recipe = Recipe.load(path, overlays=[overlay], sets=[*sets, "evaluation.postprocess.fill_holes={}"])
    train = recipe.transforms.train
    assert [part.name for part in train] == ["Resize", "VerticalFlip", "Rotate", "HorizontalFlip", "RandomCrop"]
    assert (train[2].arguments["limit"], train[2].arguments["p"]) == (90, 1.0)
    assert (train[4].arguments["height"], train[4].arguments["width"]) == (16, 32)
    assert [part.name for part in recipe.transforms.eval] == ["LongestMaxSize"]
    assert [part.name for part in recipe.evaluation.postprocess] == ["fill_holes", "largest_part", "remove_small"]
    assert recipe.evaluation.postprocess[2].arguments == {"size": 5, "unit": "pixels", "channels": None}
    assert Recipe.from_dict(tomllib.loads(recipe.to_toml())) == recipe


def test_mistakes_in_a_list_keep_their_lines_when_others_move_it(tmp_path: Path) -> None:
    text = LISTED.replace("limit =", "limti =").replace("width = 32", "width = 0")
    overlay = write(tmp_path, "[transforms.train]\nResize = { height = 0 }\nRandomCrop = { height = 0 }\n", "over.toml")
    lines = mistakes_of(tmp_path, text, overlays=[overlay], sets=["transforms.train.HorizontalFlip.p=2"])
    places = {line.split(": ")[1]: line.split(": ")[0].removeprefix(f"{tmp_path}/") for line in lines}
    assert places == {
        "transforms.train.0.Resize.height": "over.toml:2",
        "transforms.train.0.Resize.width": "over.toml:2",
        "transforms.train.1.Rotate.limti": "recipe.toml:3",
        "transforms.train.2.HorizontalFlip.p": "--set transforms.train.HorizontalFlip.p=2",
        "transforms.train.3.RandomCrop.height": "over.toml:3",
        "transforms.train.3.RandomCrop.width": "recipe.toml:5",
    }


def test_a_component_that_a_list_has_twice_needs_its_place(tmp_path: Path) -> None:
    path = write(tmp_path, LISTED.replace('"HorizontalFlip"', '"Rotate"'))
    with pytest.raises(
        UserError, match=r"Rotate.p=1: transforms.train.Rotate: the list has it 2 times.*train.0.Rotate"
    ):
        Recipe.load(path, sets=["transforms.train.Rotate.p=1"])
    second = Recipe.load(path, sets=["transforms.train.1.Rotate.limit=7"]).transforms.train
    assert [part.arguments["limit"] for part in second[:2]] == [10, 7]


def test_components_of_a_list_are_dropped_by_name(tmp_path: Path) -> None:
    write(tmp_path, LISTED.replace("height = 32", "height = 0"), "base.toml")
    path = write(
        tmp_path, 'extends = "base.toml"\ndrop = ["transforms.train.Rotate", "evaluation.postprocess.largest_part"]'
    )
    with pytest.raises(UserError, match=r"base\.toml:5: transforms\.train\.1\.RandomCrop\.height: must be 1 or more"):
        Recipe.load(path)
    recipe = Recipe.load(path, sets=["transforms.train.RandomCrop.height=8"])
    assert [part.name for part in recipe.transforms.train] == ["HorizontalFlip", "RandomCrop"]
    assert [part.name for part in recipe.evaluation.postprocess] == ["remove_small"]
    write(tmp_path, 'extends = "base.toml"\ndrop = ["transforms.train.Rotat"]\n')
    with pytest.raises(UserError, match=r"nothing called 'transforms.train.Rotat' is inherited. Did you mean 'Rotate'"):
        Recipe.load(path)


def test_variants_and_grids_vary_a_component_of_a_list(tmp_path: Path) -> None:
    grid = '[[study.variants]]\nlabel = "a"\ntransforms.train.Resize = { height = 48, width = 48 }\n[study.grid]\n'
    path = write(tmp_path, LISTED + grid + '"transforms.train.Rotate.limit" = [5, 20]\n')
    document = compose(path, sets=["transforms.train.Rotate.p=0.75"])  # which moves, and has an effect
    planned = plan_trials(validate(document), document)
    assert [trial.variant for trial in planned] == ["a, limit=5", "a, limit=20"]
    rotations = [trial.recipe.transforms.train[1].arguments for trial in planned]
    assert [(found["limit"], found["p"]) for found in rotations] == [(5, 0.75), (20, 0.75)]
    with pytest.raises(UserError, match=r"has no effect: .*toml:13 varies transforms.train.0.Rotate.limit"):
        Recipe.load(path, sets=["transforms.train.Rotate.limit=3"])


def test_paths_are_relative_to_where_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    path = write(tmp_path / "deep", '[data.rvsc]\nroot = "../images"\n')
    monkeypatch.chdir(tmp_path / "deep")
    assert Recipe.load(path).data.arguments["root"] == tmp_path / "images"
    assert Recipe.load(path, sets=["data.rvsc.root=here"]).data.arguments["root"] == tmp_path / "deep" / "here"


def test_variants_are_validated_at_their_lines(tmp_path: Path) -> None:
    lines = mistakes_of(
        tmp_path,
        '[[study.variants]]\nlabel = "a"\n[[study.variants]]\nlabel = "b"\ntrain.epoch = 3\n'
        '[study.grid]\n"loss.dice_mix.lambda" = [0.5, 2]\n',
    )
    assert f"{tmp_path}/recipe.toml:5: train.epoch: no such key." in lines[1]
    assert "loss.dice_mix.lambda: must be 1 or less, got 2" in lines[0]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("[[study.variants]]\ntrain.seed = 1\n", r"study.variants.0.label: a variant needs a label"),
        (
            '[[study.variants]]\nlabel = "a"\n[[study.variants]]\nlabel = "a"\n',
            r"recipe.toml:4: study.variants.1.label: \"a\" is the label of the variant at .*recipe.toml:2 already",
        ),
        (
            '[study]\ncompare_with = "x"\n[[study.variants]]\nlabel = "xy"\n[[study.variants]]\nlabel = "z"\n',
            "no variant is labelled 'x'. Did you mean 'xy'",
        ),
        ('[study.grid]\n"a..b" = [1]\n', r"recipe.toml:2: study.grid: 'a..b' is not a path"),
        ('[[study.variants]]\nlabel = "a"\nstudy = {}\n', "a variant cannot set study"),
    ],
)
def test_wrong_studies(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=expected):
        Recipe.load(path)


def test_folds_and_seeds_multiply(tmp_path: Path) -> None:
    path = write(tmp_path, '[split]\nfolds = 3\n[study]\nseeds = [1, 2]\n[study.grid]\n"train.epochs" = [1, 2]\n')
    document = compose(path)
    planned = plan_trials(validate(document), document)
    assert len(planned) == 12
    assert len({trial.identity for trial in planned}) == 12
    assert {str(trial.folder) for trial in planned} >= {"epochs=1/fold-3-seed-2"}
    document = compose(path, sets=["split.fold=2"])
    assert len(plan_trials(validate(document), document)) == 4


def test_identity_ignores_what_cannot_matter(tmp_path: Path) -> None:
    path = write(tmp_path, "title = 'x'\n")

    def identity(*sets: str) -> str:
        document = compose(path, sets=sets)
        return plan_trials(validate(document), document)[0].identity

    assert identity() == identity("train.workers=2", "title=other", "train.save_every={ steps = 3 }")
    assert identity() != identity("optimizer.Adam.lr=0.5")
    assert identity("optimizer.Adam.weight_decay=0") == identity()


def test_explain_names_the_source_of_each_value(tmp_path: Path) -> None:
    write(tmp_path, "[train]\nepochs = 1\n", "base.toml")
    path = write(tmp_path, 'extends = "base.toml"\n\n[optimizer.Adam]\nlr = 0.5\n')
    document = compose(path, sets=["train.seed=9"])
    origins = {".".join(path): origin for path, _, origin in value_origins(validate(document), document)}
    assert origins["train.epochs"].endswith("base.toml:2")
    assert origins["optimizer.Adam.lr"].endswith("recipe.toml:4")
    assert origins["train.seed"] == "--set train.seed=9"
    assert origins["train.batch_size"] == "default"
    document = compose(write(tmp_path, LISTED), sets=["transforms.train.RandomCrop.width=8"])
    origins = {".".join(path): origin for path, _, origin in value_origins(validate(document), document)}
    assert origins["transforms.train"].endswith("recipe.toml:3, --set transforms.train.RandomCrop.width=8")


PLAIN = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=6), PLAIN, max_size=5))
@settings(max_examples=200, deadline=None)
def test_toml_round_trip(document: dict[str, Any]) -> None:
    assert tomllib.loads(toml.dumps(document)) == document


KNOWN = [
    ("train.epochs", 3),
    ("train.batch_size", 2),
    ("split.validation", 0.25),
    ("optimizer.Adam.lr", 0.5),
    ("loss.dice_mix.lambda", 0.25),
    ("model.unet.dropout", 0.25),
    ("transforms.train", []),
]


@given(st.sampled_from(KNOWN), st.data())
@settings(max_examples=60, deadline=None)
def test_each_one_letter_typo_is_reported_at_its_line(known: tuple[str, Any], data: st.DataObject) -> None:
    path, value = known
    *parents, last = path.split(".")
    place = data.draw(st.integers(0, len(last) - 1))
    typo = last[:place] + last[place + 1 :] if data.draw(st.booleans()) else last[:place] + "q" + last[place:]
    if fold(typo) == fold(last) or not typo:
        return
    text = f"title = 'x'\n\n[{'.'.join(parents)}]\n{typo} = {toml.format_value(value)}\n"
    document = merge.Document()
    document.merge(tomllib.loads(text), Source("f.toml", text, Path.cwd()))
    with pytest.raises(UserError, match="no such") as caught:
        validate(document)
    assert str(caught.value).startswith(f"f.toml:4: {'.'.join([*parents, typo])}: no such")
    assert f"'{last}'" in str(caught.value) or last in str(caught.value)


@given(st.fixed_dictionaries({}, optional={p: st.just(v) for p, v in KNOWN}))
@settings(max_examples=30, deadline=None)
def test_filling_twice_changes_nothing(values: dict[str, Any]) -> None:
    document = merge.Document()
    for path, value in values.items():
        document.merge(paths.tree_at(tuple(path.split(".")), value), Source("x", None, Path.cwd()))
    filled = validate(document).dump()
    assert Recipe.from_dict(filled).dump() == filled
    for path, value in values.items():
        node: Any = filled
        for part in path.split("."):
            node = node[part]
        assert node == value


@pytest.mark.parametrize("text", ["a\u202eb\x7f\x1b\x00", "\U000e0001", '学 é\n\t"\\', "\u200c"])
def test_texts_are_written_as_escapes_where_a_terminal_would_move(text: str) -> None:
    written = toml.format_value(text)
    assert tomllib.loads(f"a = {written}") == {"a": text}
    assert printable(written) == written
