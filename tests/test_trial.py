"""A trial: its files, the same bytes again, resuming, guards."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import segkit
from segkit import UserError
from segkit.checks.run import check_run
from segkit.data.cache import DataCache
from segkit.evaluation.rows import means
from segkit.recipe import toml
from segkit.registry.plausible import filled
from segkit.training import checkpoint, setup
from segkit.training.results import cases_text
from segkit.training.trial import Limit
from tests import small
from tests.small import kinds, train

FOLDER = Path("only/seed-1")


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def without_times(path: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows_of(path)]


def same(one: Path, other: Path) -> None:
    """Assert that two trials ended alike, to the byte."""
    for name in ("best", "last"):
        first, second = (checkpoint.load(run / FOLDER / f"{name}.safetensors").weights for run in (one, other))
        assert sorted(first) == sorted(second)
        assert all(first[key].numpy().tobytes() == second[key].numpy().tobytes() for key in first)
    assert without_times(one / FOLDER / "metrics.csv") == without_times(other / FOLDER / "metrics.csv")
    assert (one / FOLDER / "cases.csv").read_bytes() == (other / FOLDER / "cases.csv").read_bytes()
    if (one / FOLDER / "recipe.toml").read_bytes() == (other / FOLDER / "recipe.toml").read_bytes():
        assert (one / FOLDER / "best.safetensors").read_bytes() == (other / FOLDER / "best.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole")
    assert kinds(train(run))[-1] == "finished"
    return run


def test_a_trial_leaves_its_files(whole: Path) -> None:
    folder = whole / FOLDER
    assert {path.name for path in folder.iterdir()} == {
        "best.safetensors",
        "cases.csv",
        "last.safetensors",
        "metrics.csv",
        "overlays",
        "recipe.toml",
        "trial.json",
    }
    rows = rows_of(folder / "metrics.csv")
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert list(rows[0])[:6] == ["epoch", "step", "lr", "train_loss", "val_loss", "loss.dice_mix"]
    cases = rows_of(folder / "cases.csv")
    assert len(cases) == 4 * 2 * 5
    dice = [float(row["value"]) for row in cases if row["metric"] == "dice" and row["value"]]
    best = max(float(row["val_dice"]) for row in rows)
    assert np.mean(dice) == pytest.approx(best)
    status = json.loads((folder / "trial.json").read_text())
    assert status["status"] == "finished"
    assert status["split"]["validation"] == sorted({row["case"] for row in cases}, key=lambda n: int(n.split("/")[1]))
    assert len(list((folder / "overlays").glob("*.png"))) == 4


def test_the_same_seed_gives_the_same_bytes_with_and_without_workers(whole: Path, tmp_path: Path) -> None:
    train(tmp_path / "two", "train.workers=2")
    same(whole, tmp_path / "two")


def test_another_seed_gives_other_weights(whole: Path, tmp_path: Path) -> None:
    train(tmp_path, "train.seed=2")
    first, second = (checkpoint.load(run / FOLDER / "last.safetensors").weights for run in (whole, tmp_path))
    assert any(not np.array_equal(first[key], second[key]) for key in first)


def test_evaluating_the_checkpoint_gives_the_rows_to_the_last_bit(whole: Path, tmp_path: Path) -> None:
    rows = segkit.evaluate(whole / FOLDER / "best.safetensors")
    assert cases_text(rows).encode() == (whole / FOLDER / "cases.csv").read_bytes()
    assert means(rows)["dice"] > 0


def test_an_epoch_has_the_stated_number_of_steps(tmp_path: Path) -> None:
    schedule = "scheduler.OneCycleLR={ max_lr = 0.1 }"  # which fails after more steps than it was told
    train(tmp_path, "train.steps_per_epoch=5", "train.accumulate=2", "train.epochs=2", schedule)  # 8 samples, in threes
    assert [row["step"] for row in rows_of(tmp_path / FOLDER / "metrics.csv")] == ["5", "10"]
    with pytest.raises(UserError, match=r"steps_per_epoch states the steps of an epoch already: leave out budget"):
        small.recipe("train.steps_per_epoch=5", "train.budget=steps")


def test_loaded_model_predicts_any_image(whole: Path) -> None:
    predictor = segkit.load(whole / FOLDER / "best.safetensors")
    assert predictor.channels == ("wall", "cavity")
    for shape, kind in (((17, 40), np.uint8), ((5, 5), np.uint16), ((1, 1), np.float32)):
        found = predictor.predict(np.ones(shape, kind))
        assert found.shape == (2, *shape)
        assert found.dtype == np.float32


RESUMED: list[tuple[str, ...]] = [
    (),
    ("train.accumulate=2", "train.steps_per_epoch=3", "train.save_every={ steps = 1 }", "model.unet.dropout=0.3"),
    ("optimizer.SGD={ lr = 0.1, momentum = 0.9 }", "scheduler.OneCycleLR={ max_lr = 0.1 }"),
    ("scheduler.ReduceLROnPlateau={ patience = 0 }", "regularizer.l1={ proximal = true, weight = 1e-3 }"),
    ("train.precision=bf16", "train.clip_norm=1.0"),
    (
        "train.warmup=5",
        "train.patience=2",
        "optimizer.AdamW={ groups = [{ match = ['norms', 'biases'], weight_decay = 0, lr = 0.1 }] }",
        "scheduler.OneCycleLR={ max_lr = 0.1 }",
    ),
    ("train.workers=1", "train.clip_norm=0.1", "channels=exclusive", "train.budget=steps", "split.train_fraction=0.5"),
]


@pytest.mark.parametrize("sets", RESUMED, ids=lambda sets: ",".join(s.split("=")[0] for s in sets) or "plain")
@pytest.mark.parametrize("stop_after", [1, 4])
def test_interrupted_and_resumed_equals_never_interrupted(
    whole: Path, tmp_path: Path, sets: tuple[str, ...], stop_after: int
) -> None:
    if sets:
        train(tmp_path / "whole", *sets)
    events = train(tmp_path / "broken", *sets, stop_after=stop_after)
    assert kinds(events)[-1] == "interrupted"
    events = train(tmp_path / "broken", *sets)
    assert any("resumes in epoch" in event.text for event in events)
    assert kinds(events)[-1] == "finished"
    same(tmp_path / "whole" if sets else whole, tmp_path / "broken")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp16", "bf16", "float32"])
def test_a_training_on_cuda_goes_on_to_the_bit(tmp_path: Path, precision: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    sets = ("train.device=cuda", f"train.precision={precision}", "train.deterministic=true", "model.unet.dropout=0.2")
    train(tmp_path / "whole", *sets)
    assert kinds(train(tmp_path / "broken", *sets, stop_after=5))[-1] == "interrupted"
    assert kinds(train(tmp_path / "broken", *sets))[-1] == "finished"
    same(tmp_path / "whole", tmp_path / "broken")


OPTIMIZERS = segkit.optimizers.names()
SCHEDULERS = segkit.schedulers.names()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_on_to_the_bit(tmp_path: Path, name: str) -> None:
    sets = (f"optimizer={name}", "train.epochs=2")
    train(tmp_path / "whole", *sets)
    assert kinds(train(tmp_path / "broken", *sets, stop_after=2))[-1] == "interrupted"
    train(tmp_path / "broken", *sets)
    same(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_goes_on_to_the_bit(tmp_path: Path, name: str) -> None:
    values = filled(segkit.schedulers[name], {})[0]
    sets = (f"scheduler={toml.format_value({name: values})}", "optimizer.SGD={ lr = 0.1, momentum = 0.9 }")
    train(tmp_path / "whole", *sets)
    assert kinds(train(tmp_path / "broken", *sets, stop_after=4))[-1] == "interrupted"
    train(tmp_path / "broken", *sets)
    same(tmp_path / "whole", tmp_path / "broken")


def test_more_epochs_go_on_from_the_last(tmp_path: Path) -> None:
    train(tmp_path / "long", "train.epochs=4")
    train(tmp_path / "short", "train.epochs=2")
    events = train(tmp_path / "short", "train.epochs=4")
    assert any("resumes in epoch 3" in event.text for event in events)
    same(tmp_path / "long", tmp_path / "short")


def test_patience_ends_a_training_that_then_counts_as_finished(tmp_path: Path) -> None:
    sets = ("train.epochs=9", "train.patience=2", "optimizer.SGD={ lr = 1e-30 }", "model.unet.norm=none")
    events = train(tmp_path / "whole", *sets)
    folder = tmp_path / "whole" / FOLDER
    assert "; stopped after epoch 3: no better dice for 2 epochs" in events[-1].text
    status = json.loads((folder / "trial.json").read_text())
    assert (status["status"], status["epochs"], status["epochs_done"]) == ("finished", 9, 3)
    assert (status["best_epoch"], status["stopped_early"]) == (1, True)
    assert not any("the recipe asks for" in finding.text for finding in check_run(tmp_path / "whole"))
    for lost in ("", "last.safetensors"):
        if lost:
            (folder / lost).unlink()
        again = train(tmp_path / "whole", *sets, "train.epochs=12")
        assert "epoch" not in kinds(again)
        assert any("trained already: evaluated again" in event.text for event in again)
        assert "; stopped after epoch 3" in again[-1].text
    train(tmp_path / "broken", *sets, stop_after=2)
    train(tmp_path / "broken", *sets)
    assert without_times(tmp_path / "broken" / FOLDER / "metrics.csv") == without_times(folder / "metrics.csv")
    with pytest.raises(UserError, match='patience ends the training at its best epoch, but select = "last" keeps'):
        small.recipe("train.patience=2", "train.select=last")


def test_a_warm_up_raises_the_rate_over_its_steps(tmp_path: Path) -> None:
    events = train(tmp_path, "train.warmup=6", "scheduler.ExponentialLR={ gamma = 0.5 }")
    assert "warning" not in kinds(events)
    rates = [float(row["lr"]) for row in rows_of(tmp_path / FOLDER / "metrics.csv")]
    assert rates == pytest.approx([1e-2 / 6, 1e-2 / 2 * 4 / 6, 1e-2 / 4])
    long = train(tmp_path / "long", "train.warmup=50", "train.epochs=1")
    assert "train.warmup is 50 steps, but the training has 3: it never reaches the full rate." in {e.text for e in long}


def test_fresh_begins_anew(whole: Path, tmp_path: Path) -> None:
    train(tmp_path, "train.epochs=2")
    events = train(tmp_path, "train.epochs=3", fresh=True)
    assert not any("goes on" in event.text for event in events)
    same(whole, tmp_path)


def test_non_finite_loss_fails_with_term_and_batch(tmp_path: Path) -> None:
    events = train(tmp_path, "optimizer.SGD={ lr = 1e30 }", "loss.bce={}", "model.unet.norm=none")
    assert kinds(events)[-1] == "failed"
    text = events[-1].text
    assert "is not finite at epoch" in text
    assert "nonfinite.safetensors" in text
    assert (tmp_path / FOLDER / "nonfinite.safetensors").exists()
    status = json.loads((tmp_path / FOLDER / "trial.json").read_text())
    assert (status["status"], status["error"]) == ("failed", text)


def test_guards_fire_on_the_published_loss_and_are_silent_on_the_mix(whole: Path, tmp_path: Path) -> None:
    combined = "loss={ combined = { bce_reduction = 'sum' } }"
    events = train(tmp_path, combined, "transforms.train=[]")
    warnings = [event.text for event in events if event.kind == "warning"]
    assert any("loss.combined.bce has 99" in text and "sum over pixels" in text for text in warnings)
    assert json.loads((whole / FOLDER / "trial.json").read_text())["warnings"] == []


def test_the_published_loss_turns_the_output_black_under_sgd_and_the_guard_says_why(tmp_path: Path) -> None:
    published = ("loss={ combined = { bce_reduction = 'sum' } }", "optimizer.SGD={ lr = 0.02, momentum = 0.95 }")
    last = train(tmp_path, *published, "train.epochs=20")[-1]
    assert last.kind == "failed"
    assert last.text.startswith(("loss.combined.bce", "the validation loss is"))
    parts = setup.set_up(small.recipe(*published), Limit(), DataCache())  # the same, without the guard
    state = parts.state
    for epoch in range(1, 21):
        for image, target, _ in parts.feed.epoch(epoch):
            state.objective.loss(state.model(image), target).backward()  # type: ignore[no-untyped-call]
            state.optimizer.step()
            state.optimizer.zero_grad()
    parts.feed.batches.close()
    assert not (state.model.eval()(image).sigmoid() >= 0.5).any()


def test_black_output_is_noticed(tmp_path: Path) -> None:
    events = train(tmp_path, "loss={ bce = {} }", "optimizer.SGD={ lr = 0.5 }", "model.unet.norm=none")
    assert any("background" in event.text for event in events if event.kind == "warning")


@pytest.mark.parametrize("limit", [Limit(batches=1), Limit(overfit=2)])
def test_short_trainings(tmp_path: Path, limit: Limit) -> None:
    events = train(tmp_path, limit=limit)
    assert kinds(events)[-1] == "finished"
    rows = rows_of(tmp_path / FOLDER / "metrics.csv")
    status: dict[str, Any] = json.loads((tmp_path / FOLDER / "trial.json").read_text())
    assert status["limited"]
    if limit.overfit:
        assert status["split"]["train"] == status["split"]["validation"]
        assert len(status["split"]["train"]) == 2
    else:
        assert [row["step"] for row in rows] == ["1"]


def test_what_fails_before_anything_is_built_is_recorded(tmp_path: Path) -> None:
    events = train(tmp_path, "data={ rvsc = { root = 'nowhere' } }")
    assert kinds(events) == ["start", "failed"]
    status = json.loads((tmp_path / FOLDER / "trial.json").read_text())
    assert (status["status"], status["epochs_done"]) == ("failed", 0)
    assert "nowhere: no such folder" in status["error"]


def test_changed_data_are_refused_on_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, stop_after=2)
    monkeypatch.setattr(small, "BACKGROUND", 301)
    events = train(tmp_path)
    assert kinds(events)[-1] == "failed"
    assert "the data has changed since this trial began" in events[-1].text
