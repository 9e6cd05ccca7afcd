"""The JSON Schema: every recipe of the project is valid under it, and it rejects what the loader rejects."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import segkit
from segkit import UserError, plugins
from segkit.plugins import isolated
from segkit.recipe.model import Recipe
from segkit.recipe.schema import recipe_schema
from segkit.types import Fraction, Tensor

RECIPES = sorted(
    path for path in (Path(__file__).parents[1] / "recipes").rglob("*.toml") if path.parent.name != "overlays"
)


@pytest.fixture(scope="module")
def validator() -> Any:

    plugins.load([Path(__file__).parents[1] / "plugins"])
    schema = recipe_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_there_are_recipes() -> None:
    assert len(RECIPES) > 10


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_project_is_valid(path: Path, validator: Any) -> None:
    errors = list(validator.iter_errors(tomllib.loads(path.read_text(encoding="utf-8"))))
    assert errors == []
    Recipe.load(path)


BOTH = [
    ("surprise = 1", False),
    ("[train]\nepoch = 3", False),
    ("[train]\nepochs = 0", False),
    ("[train]\nepochs = 'three'", False),
    ("[train]\nepochs = true", False),
    ("[train]\nprecision = 'fp8'", False),
    ("[train]\nsave_every = { epochs = 0 }", False),
    ("[split]\nvalidation = 1.5", False),
    ("[split]\nfolds = 1", False),
    ("channels = 'both'", False),
    ("[loss.dise]", False),
    ("[loss.dice]\nepsilon = 0", False),
    ("[loss.dice]\nreduction = 'pixel'", False),
    ("[loss.dice]\nweight = -1", False),
    ("[loss.dice_mix]\nlambda = 2", False),
    ("[loss.dice_mix]\nlamda = 0.5", False),
    ("loss = 3", False),
    ("loss = 'dise'", False),
    ("[model.unet]\nwidths = [0]", False),
    ("[model.unet]\nwidths = 'wide'", False),
    ("[model.unet]\nupsampler = 'bilinaer'", False),
    ("[model.unet]\nupsampler = { bilinear = { size = 2 } }", False),
    ("[model.unet]\nupsampler = { bilinear = {}, nearest = {} }", False),
    ("[scheduler.StepLR]\ngamma = 0.1", False),  # step_size is required of a recipe that stands alone
    ("[optimizer]\nAdam = {}\nSGD = {}", False),
    ("[optimizer.Adam]\nlr = 'fast'", False),
    ("[transforms]\ntrain = [{ Rotate = { limits = 3 } }]", False),
    ("[transforms]\ntrain = [{ RandomCrop = { height = 8 } }]", False),
    ("[transforms]\ntrain = 'CLAHE'", False),
    ("[data.rvsc]\nroots = '.'", False),
    ("[study]\nseeds = []", False),
    ("[study]\nseed = [1]", False),
    ("[[study.variants]]\nloss = 'dice'", False),
    ("[[study.variants]]\nlabel = 'a'\n[study.variants.train]\nepoch = 1", False),
    ("", False),
    ("loss = 'dice'", True),
    ("[loss]\ndice = {}\nbce = { weight = 0.5 }", True),
    ("[scheduler.StepLR]\nstep_size = 3", True),
    ("[scheduler.SequentialLR]\nmilestones = [2]\nschedulers = ['ConstantLR', { StepLR = { step_size = 1 } }]", True),
    ("[model.unet]\nupsampler = 'bilinear'\nwidths = [4, 8]", True),
    ("[transforms]\ntrain = ['HorizontalFlip', { RandomCrop = { height = 8, width = 8 } }]", True),
    ("[study]\nseeds = [1, 2]\n[[study.variants]]\nlabel = 'a'\nloss.dice = {}", True),
    ("[study.grid]\n'train.seed' = [1, 2]", True),
]


@pytest.mark.parametrize(
    ("text", "good"), BOTH, ids=lambda value: value.replace("\n", " ") if isinstance(value, str) else ""
)
def test_schema_and_loader_agree(text: str, good: bool, validator: Any, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    assert validator.is_valid(tomllib.loads(text)) is good
    if good:
        Recipe.load(path)
    else:
        with pytest.raises(UserError, match=r"recipe\.toml|^[a-z]+: "):
            Recipe.load(path)


def test_a_part_of_a_recipe_needs_less(validator: Any) -> None:
    assert validator.is_valid(tomllib.loads("extends = 'baseline.toml'\n[scheduler.StepLR]\ngamma = 0.2"))


def test_a_plugin_is_in_the_schema_at_once() -> None:
    def seen_by_editors(logits: Tensor, target: Tensor, *, sharpness: Fraction = 0.5) -> Tensor:
        """A loss that editors complete."""
        return (logits.sigmoid() - target).abs().mean() * sharpness

    with isolated():
        segkit.losses.register("seen_by_editors")(seen_by_editors)
        schema = recipe_schema()
    assert schema["$defs"]["loss.seen_by_editors"]["description"] == "A loss that editors complete."
    validator = Draft202012Validator(schema)
    assert validator.is_valid({"loss": {"seen_by_editors": {"sharpness": 0.2}}})
    assert not validator.is_valid({"loss": {"seen_by_editors": {"sharpness": 1.2}}})


def test_every_component_is_in_the_schema() -> None:
    from segkit.components import REGISTRIES

    defs = recipe_schema()["$defs"]
    for registry in REGISTRIES:
        for entry in registry:
            assert f"{registry.name}.{entry.name}" in defs
