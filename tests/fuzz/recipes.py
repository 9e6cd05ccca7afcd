"""Recipes from a grammar: valid ones build and run one batch, invalid ones give a message with the place."""

from __future__ import annotations

import copy
import random
import re
import tempfile
from pathlib import Path
from typing import Any

import segkit
from segkit import UserError
from segkit.recipe import toml
from segkit.recipe.model import Recipe
from segkit.registry.plausible import filled
from segkit.registry.registry import Registry
from segkit.study.hardware import resolve_auto
from segkit.training.run import run_trial
from segkit.training.trial import Limit, Trial
from tests.small import BASE

MODELS = (
    {"unet": {"widths": [2]}},
    {"unet": {"widths": [2, 4], "dropout": 0.5, "norm": "instance"}},
    {"unet": {"widths": [2, 2], "norm": "none"}},
    {"unet": {"widths": [2, 4, 4], "deep_supervision": True, "activation": "leaky_relu", "residual": True}},
    {"unet": {"widths": [2, 4], "downsampling": "strided", "convolutions": 3}},
)
TRAIN: dict[str, Any] = {
    "ema": 0.9,
    "warmup": 2,
    "clip_norm": 1.0,
    "patience": 1,
    "steps_per_epoch": 3,
    "resident": True,
    "oversample_foreground": 0.5,
    "select_by": "val_loss",
    "save_every": {"steps": 1},
}
EVALUATION: dict[str, Any] = {
    "tta": "d4",
    "window": {"size": [16, 16]},
    "postprocess": {"largest_part": {}, "fill_holes": {}},
    "during_training": True,
}
SLOW = {"LBFGS"}


def valid(chance: random.Random) -> dict[str, Any]:
    """Return a recipe that should run: components of every slot, their required parameters made up."""
    tree = copy.deepcopy(BASE)
    exclusive = chance.random() < 0.3
    losses = [
        name
        for name in segkit.losses.names()
        if (exclusive or not segkit.losses[name].traits["exclusive_only"]) and not segkit.losses[name].required
    ]
    tree["channels"] = "exclusive" if exclusive else "independent"
    tree["loss"] = {
        name: {"weight": chance.choice([0.5, 1, 2.0])} for name in chance.sample(losses, chance.randint(1, 3))
    }
    tree["model"] = copy.deepcopy(chance.choice(MODELS))
    tree["model"]["unet"]["upsampler"] = chance.choice(segkit.upsamplers.names())
    tree["model"]["unet"]["initializer"] = chance.choice(segkit.initializers.names())
    tree["optimizer"] = _one(segkit.optimizers, chance)
    if chance.random() < 0.7:
        tree["scheduler"] = _one(segkit.schedulers, chance)
        if "CyclicLR" in tree["scheduler"]:  # cycles the momentum, which not every optimizer has
            tree["scheduler"]["CyclicLR"]["cycle_momentum"] = False
        if "OneCycleLR" in tree["scheduler"]:
            tree["scheduler"]["OneCycleLR"]["cycle_momentum"] = False
    if chance.random() < 0.4:
        tree["regularizer"] = _one(segkit.regularizers, chance)
        for parameters in tree["regularizer"].values():
            parameters["weight"] = 1e-4
    tree["train"] |= {"accumulate": chance.randint(1, 3), "precision": chance.choice(["auto", "bf16"])}
    tree["train"] |= _some(TRAIN, chance)
    tree["evaluation"] = _some(EVALUATION, chance)
    tree["metrics"] = {name: {} for name in chance.sample(segkit.metrics.names(), 3)}
    if chance.random() < 0.5:  # transforms that all have a device form
        tree["transforms"] = {"train": tree["transforms"]["train"][1:]}
    return tree


def _some(known: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    return {key: copy.deepcopy(value) for key, value in known.items() if chance.random() < 0.3}


def _one(registry: Registry, chance: random.Random) -> dict[str, Any]:
    name = chance.choice(registry.names())
    return {name: filled(registry[name], {})[0]}


def invalid(chance: random.Random) -> tuple[dict[str, Any], str]:
    """Return a recipe with one mistake, and a pattern of the path that the message has to name."""
    tree = valid(chance)
    loss, optimizer = next(iter(tree["loss"])), next(iter(tree["optimizer"]))
    (model,) = tree["model"].values()
    mistakes: list[tuple[str, Any]] = [
        (r"surprise", lambda: tree.update(surprise=1)),
        (r"train\.epoch\b", lambda: tree["train"].update(epoch=3)),
        (r"train\.epochs", lambda: tree["train"].update(epochs=chance.choice([0, -1, 1.5, "3", True, [1], {}]))),
        (r"train\.batch_size", lambda: tree["train"].update(batch_size=chance.choice([0, "x", 2.5]))),
        (r"train\.precision", lambda: tree["train"].update(precision="fp8")),
        (rf"loss\.{loss}\.weight", lambda: tree["loss"][loss].update(weight=chance.choice([-1, "x", True]))),
        (rf"loss\.{loss}\.nothing", lambda: tree["loss"][loss].update(nothing=1)),
        (r"loss\.dise", lambda: tree["loss"].update(dise={})),
        (r"loss", lambda: tree.update(loss={})),
        (r"optimizer\.Adan", lambda: tree.update(optimizer={"Adan": {}})),
        (rf"optimizer\.{optimizer}\.lr", lambda: tree["optimizer"][optimizer].update(lr=chance.choice(["x", -1, []]))),
        (r"optimizer", lambda: tree.update(optimizer={"Adam": {}, "SGD": {}})),
        (r"model\.unet\.dropout", lambda: model.update(dropout=chance.choice([1.5, -0.1, "x"]))),
        (r"model\.unet\.widths", lambda: model.update(widths=chance.choice([[0], [-1], "x", [1.5], [[2]]]))),
        (r"model\.unet\.upsampler", lambda: model.update(upsampler=chance.choice(["bilinaer", 3, {"a": {}, "b": {}}]))),
        (r"split\.validation", lambda: tree["split"].update(validation=chance.choice([0, 1, 1.2, "x"]))),
        (r"transforms\.train", lambda: tree["transforms"]["train"].append(chance.choice(["Rotat", {"Blur": 3}]))),
        (r"data\.discs\.size", lambda: tree["data"]["discs"].update(size="x")),
        (r"channels", lambda: tree.update(channels="both")),
    ]  # fmt: skip
    path, apply = chance.choice(mistakes)
    apply()
    return tree, path


def refuse(tree: dict[str, Any], place: str) -> None:
    """Assert that a recipe is refused by a message with file, line and place."""
    with tempfile.TemporaryDirectory(prefix="segkit-fuzz-") as name:
        path = Path(name) / "recipe.toml"
        path.write_text(toml.dumps(tree), encoding="utf-8")
        try:
            Recipe.load(path)
        except UserError as error:
            line = str(error).splitlines()[0]
            assert re.search(rf"recipe\.toml:\d+: .*{place}", str(error)), f"{line} does not name {place}"
            return
    raise AssertionError(f"accepted, though {place} is wrong")


def run_one_batch(tree: dict[str, Any]) -> None:
    """Assert that a recipe is accepted, built, and runs one batch of everything."""
    with tempfile.TemporaryDirectory(prefix="segkit-fuzz-") as name:
        path = Path(name) / "recipe.toml"
        path.write_text(toml.dumps(tree), encoding="utf-8")
        recipe = Recipe.load(path)
        recipe = recipe.model_copy(update={"train": resolve_auto(recipe.train, 1)})
        trial = Trial("a", 1, None, recipe, Path("a/seed-1"), Path(name), Limit(batches=1))
        last = list(run_trial(trial, stop=lambda: False))[-1]
        assert last.kind == "finished" or "is not finite" in last.text, last.text


def one(seed: int) -> bool:
    """Try a valid or an invalid recipe; return whether it was refused. A wrong outcome raises."""
    chance = random.Random(seed)
    try:
        if chance.random() < 0.6:
            refuse(*invalid(chance))
            return True
        run_one_batch(valid(chance))
    except AssertionError as error:
        raise AssertionError(f"{seed}: {error}") from error
    return False


def mutate(chance: random.Random) -> int:
    """Return the seed of a recipe."""
    return chance.randrange(2**32)
