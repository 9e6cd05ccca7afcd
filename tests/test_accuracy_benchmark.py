"""The comparison of accuracy: equal minutes, the same folds and metrics, continued where it stopped."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

import segkit
from segkit.evaluation.rows import Row
from segkit.types import Array
from tests.benchmarks.accuracy import tutorials
from tests.benchmarks.accuracy.__main__ import compare, main
from tests.benchmarks.accuracy.contestants import CONTESTANTS, STRONG
from tests.benchmarks.accuracy.inside import Inside
from tests.benchmarks.accuracy.plain import Pair, Plain, Setting, fit, probability
from tests.benchmarks.accuracy.results import Key, Result, Results, measure
from tests.benchmarks.accuracy.table import by_patient, difference, report
from tests.benchmarks.accuracy.task import Contestant, Task, Training

STAND_IN = """
[transforms]
train = [{ RandomCrop = { height = 32, width = 32 } }]
[model.unet]
widths = [4, 8]
[optimizer.Adam]
lr = 1e-2
[train]
batch_size = 2
"""


def discs(side: int = 48) -> list[Pair]:
    """Return bright discs on noise."""
    found: list[Pair] = []
    rows, columns = np.mgrid[:side, :side]
    for number in range(8):
        random = np.random.default_rng(number)
        mask = np.hypot(rows - random.uniform(16, side - 16), columns - side / 2) < 9
        image = random.normal(60, 20, mask.shape) + 120 * mask
        found.append((image.clip(0, 255).astype(np.uint8), mask.astype(np.uint8)))
    return found


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """Return four patients of two images, in two folds, and a small recipe."""
    for number, (image, mask) in enumerate(discs()):
        for kind, pixels in (("images", image), ("masks", mask * 255)):
            folder = tmp_path / "data" / kind / f"p{number // 2}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "strong.toml").write_text(STAND_IN)
    return Task(tmp_path / "out", tmp_path / "data", 1, tmp_path / "strong.toml", (), folds=2)


def threshold(pairs: Sequence[Pair]) -> Setting:
    """One weight and a bias."""
    network = nn.Conv2d(1, 1, 1)

    def prepared(image: Array) -> Tensor:
        return torch.from_numpy(image.astype(np.float32) / 128 - 1)[None]

    examples: Any = [(prepared(image), torch.from_numpy(mask)[None].float()) for image, mask in pairs]
    optimizer = torch.optim.Adam(network.parameters(), lr=0.3)
    loss = nn.functional.binary_cross_entropy_with_logits
    return Setting(network, DataLoader(examples, batch_size=2), loss, optimizer, prepared, rate=lambda done: 1 - done)


@pytest.mark.slow
def test_a_comparison_is_made_once(task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    ours, plain, absent = Inside("ours"), Plain("theirs", threshold), Plain("absent", threshold, ("no_such",))
    entrants: dict[str, Contestant] = {STRONG: ours, "plain": plain, "none": absent}
    task.out.mkdir()
    calibration = {"key": [STRONG, ours.identity(task), 1], "seconds": 0.01}
    (task.out / "calibration.jsonl").write_text(json.dumps(calibration) + "\n")
    text = compare(task, entrants, 0.0009, [2], command="the command")
    assert f"{STRONG}, fold 2: 0.0009 minutes of steps of 0.010 s" in capsys.readouterr().out
    first, second, third = text.splitlines()[4:7]
    assert first.startswith("| ours | ")
    assert " | reference | " in first
    assert " | 2 | 0.0 | 4 | " in first  # two epochs of two steps
    assert second.startswith("| theirs | ")
    assert third.startswith("| absent | not installed | ")
    assert text.endswith("the command")
    found = Results(task.out).find(Key("plain", plain.identity(task), 1, 0.0009, 2))
    assert found is not None
    assert found.training.parameters == 2
    validated = {task.data.cases[number].patient for number in task.split(2).validation}
    assert by_patient([found], "dice").keys() == by_patient([found], "hd95").keys() == validated
    assert compare(task, entrants, 0.0009, [2], command="the command") == text
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_epochs_of_stated_length_are_stretched_to_fill_the_steps(task: Task) -> None:
    stated = Inside("ours", {"train.steps_per_epoch": 3})
    assert stated.calibrate(task) > 0
    assert stated.train(task, 2, 8).steps == 8  # two epochs of four steps, not of three
    assert Inside("ours").train(task, 2, 5).steps == 4  # an epoch is all images: two steps


def test_the_fold_of_the_settings_is_also_left_out() -> None:
    def result(name: str, fold: int, dice: float) -> Result:
        rows = [Row(f"p{fold}/1", f"p{fold}", "disc", "dice", dice, 1, 1)]
        return Result(Key(name, "", 1, 1.0, fold), Training(10 * fold, 60.0, 1234, rows), "a computer", "v1")

    results = [result("a", 1, 0.9), result("a", 2, 0.7), result("b", 1, 0.9), result("b", 2, 0.5)]
    text = report({"a": "A", "b": "B", "c": "C"}, {}, results, "a", ["dice"], "the command")
    whole, without = text.split("Without fold 1")
    assert "| A | 0.800 (0.700 to 0.900) | reference | 1, 2 | 1.0 | 10 to 20 | 1,234 |" in whole
    assert "| B | 0.700 (0.500 to 0.900) | -0.100 (-0.200 to +0.000) | 1, 2 |" in whole
    assert "| A | 0.700 | reference | 2 | 1.0 | 20 | 1,234 |" in without
    assert "| B | 0.500 | -0.200 | 2 |" in without
    assert "| C | not measured yet |" in without
    assert "Measured on a computer; v1." in without


def test_steps_fill_the_minutes(task: Task) -> None:
    asked = []

    class Steady:
        label, needs = "steady", ()

        def identity(self, task: Task) -> str:
            return "one"

        def calibrate(self, task: Task) -> float:
            asked.append(0)
            return 2.0

        def train(self, task: Task, fold: int, steps: int) -> Training:
            asked.append(steps)
            return Training(steps, 2.0 * steps, 1, [Row("p/1", "p", "disc", "dice", 0.5, 1, 1)])

    keys = [Key("steady", "one", 1, minutes, 1) for minutes in (1, 1, 0.01)]
    results = [measure(Results(task.out), Steady(), task, key) for key in keys]
    assert asked == [0, 30, 1]  # a calibration, a minute of two-second steps, and at least one
    assert results[0] == results[1]


def test_one_failure_leaves_the_others(task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    wrong: dict[str, Contestant] = {
        STRONG: Inside("ours", {"model.unet.widths": "wide"}),
        "plain": Plain("theirs", threshold),
    }
    text = compare(task, wrong, 0.001, [1])
    assert "| ours | failed |" in text
    assert "model.unet.widths" in capsys.readouterr().out
    assert "| theirs | 0." in text


def test_a_difference_is_paired_by_patient() -> None:
    ours, theirs = {"a": 0.8, "b": 0.6, "c": 0.7}, {"a": 0.9, "b": 0.7, "d": 0.1}
    mean, low, high = difference(ours, theirs)
    assert mean == pytest.approx(-0.1)
    assert (low, high) == pytest.approx((-0.1, -0.1))
    assert math.isnan(difference(ours, {})[0])


def test_the_loop_is_as_stated() -> None:
    torch.manual_seed(0)
    setting = threshold(discs())
    assert len(fit(setting, 80)) == 80
    assert setting.optimizer.param_groups[0]["lr"] == pytest.approx(0.3 / 80)
    image, mask = discs()[0]
    chance = probability(setting, image[:, :35])
    assert chance.shape == (1, 48, 35)
    assert segkit.metrics.build("dice")(chance[0] >= 0.5, mask[:, :35].astype(bool), None) > 0.9


def test_mirrored_images_are_averaged() -> None:
    class Columns(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return torch.linspace(-1, 1, image.shape[3]).expand_as(image)

    setting = threshold(discs())
    setting.network, image = Columns(), np.zeros((64, 64), np.uint8)
    assert probability(setting, image)[0, 0, 0] == pytest.approx(0.269, abs=1e-3)  # the sigmoid of -1
    setting.flips = True
    assert probability(setting, image) == pytest.approx(0.5)


def test_the_contestants_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--list"])
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == list(CONTESTANTS)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["monai_unet", "monai_dynunet", "smp_resnet18"])
def test_a_tutorial_learns(name: str) -> None:
    pytest.importorskip("monai" if name.startswith("monai") else "segmentation_models_pytorch")
    torch.manual_seed(0)
    setting = getattr(tutorials, name)(discs(96))
    before = next(setting.network.parameters()).detach().clone()
    image, target = next(iter(setting.batches))
    assert image.shape == target.shape
    assert image.shape[1:] == (1, 64, 64)
    assert set(target.unique().tolist()) == {0, 1}
    assert len(fit(setting, 2)) == 2
    assert not torch.equal(before, next(setting.network.parameters()))
    assert probability(setting, discs(80)[0][0]).shape == (1, 80, 80)
