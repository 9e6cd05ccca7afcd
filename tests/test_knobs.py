"""Each key of a recipe has an effect: with another value the metrics or cases of a short training differ."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from segkit.recipe.sections import Train
from tests import small

BASELINE = Path(__file__).parents[1] / "recipes/baseline.toml"
NO_RESULT = {
    "device",
    "workers",
    "save_every",
    "compile",
    "deterministic",
    "threads",
    "select",
    "select_by",
    "patience",
    "init_from",
    "init_match",
    "init_sha256",
}  # change how, not what is trained, or which epoch is kept
# The baseline's keys and more of segkit's own, each with a value that trains in a moment and another one.
CLAHE = {"clip_limit": (2.0, 4.0), "tile_grid_size": ([2, 2], [4, 4]), "p": (1, 0)}
KNOBS: dict[str, Any] = {
    "data": {"phantom": {"patients": (4, 5), "slices": (16, 12), "height": (32, 40), "width": (32, 40)}},
    "channels": ("independent", "exclusive"),
    "split": {"validation": (0.5, 0.25), "train_fraction": (0.5, 1.0), "seed": (1, 2)},
    "transforms": {"eval": [{"CLAHE": CLAHE}], "train": [
        {"CLAHE": CLAHE}, {"Rotate": {"limit": (180, 5), "p": (1, 0)}},
        {"RandomCrop": {"height": (24, 16), "width": (24, 16)}},
    ]},
    "model": {"unet": {"widths": ([2, 4, 4], [2, 6, 4]), "deep_supervision": (True, False), "dropout": (0.0, 0.5),
                       "upsampler": ("conv_transpose", "bilinear"), "initializer": ("xavier_normal", "orthogonal")}},
    "loss": {"dice_mix": {"lambda": (0.5, 0.6), "weight": (1.0, 0.7)},
             "dice": {"epsilon": (1.0, 5.0), "reduction": ("case", "batch"), "weight": (1.0, 0.7)},
             "combined": {"lambda": (0.5, 0.6), "bce_reduction": ("mean", "sum"), "epsilon": (1.0, 5.0)},
             "focal": {"alpha": (0.25, 0.5), "gamma": (2.0, 1.0)}},
    "optimizer": {"Adam": {"lr": (2e-3, 1e-3)}}, "scheduler": {"StepLR": {"step_size": (1, 2), "gamma": (0.1, 0.5)}},
    "metrics": {name: ({}, None) for name in ("dice", "soft_dice", "iou", "precision", "recall")},
    "train": {"epochs": (2, 3), "batch_size": (2, 3), "seed": (1, 2), "budget": ("epochs", "steps"),
              "accumulate": (1, 2), "steps_per_epoch": (None, 4), "clip_norm": (None, 1e-3),
              "precision": ("float32", "bf16"), "resident": (False, True),
              "warmup": (None, 3), "freeze": (None, ["down.0.*"]), "oversample_foreground": (None, 1.0),
              "sampling_weights": (None, {"phase=ES": 3.0}), "ema": (None, 0.9), "auxiliary_weights": (None, [3, 1])},
}  # fmt: skip


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value; a list of numbers is one value."""
    if not tree or not (isinstance(tree, dict) or (isinstance(tree, list) and isinstance(tree[0], dict))):
        yield path
    else:
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, (*path, key))


def recipe(tree: Any, changed: tuple[Any, ...] | None) -> Any:
    """Return the recipe with the other value at one path; None leaves a key out."""
    if isinstance(tree, tuple):
        return tree[changed == ()]
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree)
    made = {key: recipe(value, changed[1:] if changed and changed[0] == key else None) for key, value in inner}
    kept = {key: value for key, value in made.items() if value is not None}
    return kept if isinstance(tree, dict) else list(kept.values())


@pytest.mark.slow
def test_every_key_has_an_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {}
    for number, changed in enumerate([None, *leaves(KNOBS)]):
        monkeypatch.setattr(small, "BASE", recipe(KNOBS, changed))
        assert small.kinds(small.train(tmp_path / str(number), "train.device=cpu"))[-1] == "finished", changed
        rows = []
        for path in sorted((tmp_path / str(number)).glob("only/seed-1/*s.csv")):  # metrics and cases
            with path.open(newline="", encoding="utf-8") as file:
                rows += [{key: row[key] for key in row if "second" not in key} for row in csv.DictReader(file)]
        assert str(rows) not in found, f"{changed} changes no more than {found[str(rows)]}"
        found[str(rows)] = changed


def test_no_key_is_left_out() -> None:
    tried = {*leaves(KNOBS), ("title",), ("data", "phantom"), ("train", "save_every", "seconds")}
    assert set(leaves(tomllib.loads(BASELINE.read_text(encoding="utf-8")))) <= tried
    assert {("train", name) for name in set(Train.model_fields) - NO_RESULT} <= tried
