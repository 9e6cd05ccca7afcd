"""The validation after an epoch: counted on the device, the rest beside the next epoch, to the same bits."""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import segkit
from segkit import UserError
from segkit.components.datasets.case import Case
from segkit.components.metrics import counts
from segkit.device import Device
from segkit.evaluation import scoring
from segkit.evaluation.evaluator import Evaluator
from segkit.evaluation.rows import Row
from segkit.evaluation.slices import Normalization
from segkit.plugins import isolated
from segkit.registry.faults import ComponentError
from segkit.training import checkpoint, setup
from segkit.training.results import History
from segkit.training.run import Saved, run_trial
from segkit.training.status import Status
from segkit.training.trial import Event
from segkit.training.validation import Validation
from tests.small import data_of, kinds, recipe, train, trial
from tests.test_trial import FOLDER, rows_of, same, without_times

CPU = Device(torch.device("cpu"), "float32", "")
COUNTED = [entry.name for entry in segkit.metrics if entry.traits["of_counts"]]
LATER = ["hd95", "soft_dice"]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    with isolated():
        yield


def evaluator(
    channels: int, shapes: list[tuple[int, ...]], *, exclusive: bool, size: int | None = None, **tree: Any
) -> Evaluator:
    """Return an evaluator of cases of some shapes; the model sees slices of `size` pixels a side, or as they are."""
    random, cases = np.random.default_rng(0), []
    for number, shape in enumerate(shapes):
        owner = random.integers(0, channels + 1, shape)
        masks = np.stack([owner == channel + 1 for channel in range(channels)])
        masks[-1] &= number % 2 == 0  # empty in every other case
        spacing = (5.0, 1.0, 1.5)[-len(shape) :]
        image = random.integers(0, 255, shape if len(shape) == 2 else (1, *shape), dtype=np.uint8)
        cases.append(Case(f"c{number}", f"p{number}", image, masks, spacing))
    resized = [{"Resize": {"height": size, "width": size}}] if size else []
    recipe = segkit.Recipe.from_dict(
        {"channels": "exclusive" if exclusive else "independent", "transforms": {"eval": resized}} | tree
    )
    return Evaluator(data_of(cases), range(len(cases)), recipe, Normalization((128.0,), (64.0,)), CPU)


def network(outputs: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(1, outputs, 3, padding=1)


def loss(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (scores - target).square().mean()


IMAGES: list[tuple[int, ...]] = [(24, 20), (24, 20), (16, 20), (24, 20)]
CASES: dict[str, tuple[int, list[tuple[int, ...]], bool, int | None]] = {
    "independent": (2, IMAGES, False, None),
    "exclusive": (3, IMAGES, True, None),
    "of another size than the model sees": (3, IMAGES, True, 12),
    "volumes": (2, [(3, 12, 10), (4, 12, 10), (1, 8, 10)], False, None),
    "more than eight structures": (9, IMAGES, False, None),
}


def alike(found: list[Row], expected: list[Row]) -> bool:
    """Return whether rows are the same, to the bit; undefined values are."""
    return [repr(row) for row in found] == [repr(row) for row in expected]


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("what", CASES)
def test_pixels_counted_on_the_device_give_the_same_rows(what: str, keep: bool) -> None:
    channels, shapes, exclusive, size = CASES[what]
    chosen = evaluator(channels, shapes, exclusive=exclusive, size=size, train={"batch_size": 3})
    model = network(channels + exclusive)
    metrics = [segkit.metrics.component(name) for name in COUNTED]
    expected = chosen.run(model, metrics, loss)
    assert any(0 < row.value < 1 for row in expected[0])
    for _ in range(2):  # with `keep` the second time from what lies on the device
        scored = chosen.scored(model, loss, chosen.recipe.evaluation, truth=True, keep=keep)
        rows, value = chosen.counted(scored, metrics)
        assert alike(rows, expected[0])
        assert value == expected[1]
        assert model.training


@pytest.mark.parametrize("name", COUNTED)
def test_a_metric_of_counts_is_the_metric_of_masks(name: str) -> None:
    metric, random = segkit.metrics.component(name), np.random.default_rng(0)
    shape, spacing = (4, 6, 5), (5.0, 1.0, 1.5)
    for share in (0.0, 0.3, 1.0):
        for true in (0.0, 0.3, 1.0):
            masks = random.random(shape) < share, random.random(shape) < true
            found = metric.entry.traits["of_counts"](counts(*masks), spacing)
            expected = metric(*masks, spacing)
            assert found == expected or (math.isnan(found) and math.isnan(expected))


def validation(*metrics: str, beside: bool = True, **tree: Any) -> Validation:
    chosen = evaluator(2, IMAGES, exclusive=False, metrics={name: {} for name in metrics}, **tree)
    return Validation(chosen, chosen.recipe, beside=beside)


def test_what_nothing_waits_for_comes_later_in_the_order_of_the_recipe() -> None:
    model = network(2)
    names = ["hd95", "dice", "soft_dice", "iou"]
    beside, plain = validation(*names), validation(*names, beside=False)
    found, expected = beside(model, loss), plain(model, loss)
    assert {row.metric for row in found.rows} == {"dice", "iou"}
    assert found.later is not None
    assert expected.later is None
    assert beside.means(found) == plain.means(expected)
    assert list(beside.means(found)) == names
    assert found.loss == expected.loss
    beside.close()


@pytest.mark.parametrize(
    "tree",
    [
        {"train": {"select_by": "hd95"}},
        {"evaluation": {"postprocess": {"largest_part": {}}, "during_training": True}},
    ],
    ids=["it chooses the epoch", "masks are postprocessed"],
)
def test_what_something_waits_for_comes_at_once(tree: dict[str, Any]) -> None:
    chosen = validation("dice", *LATER, **tree)
    found = chosen(network(2), loss)
    assert found.later is None
    assert {row.metric for row in found.rows} == {"dice", *LATER}


def test_code_of_plugins_runs_in_no_thread() -> None:
    segkit.metrics.register("own")(lambda prediction, truth, spacing_mm: float(prediction.sum()))
    found = validation("dice", "hd95", "own")(network(2), loss)
    assert found.later is None
    assert {row.metric for row in found.rows} == {"dice", "hd95", "own"}


def test_predictions_that_would_fill_the_memory_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segkit.training.validation.KEPT", 1000)
    assert validation("dice", *LATER)(network(2), loss).later is None


def always(monkeypatch: pytest.MonkeyPatch, wanted: bool) -> None:
    """Compute metrics beside the next epoch, as on a GPU, or not, whatever the device is."""

    def made(evaluator: Evaluator, recipe: segkit.Recipe, *, beside: bool, resident: bool) -> Validation:
        return Validation(evaluator, recipe, beside=wanted, resident=resident)

    monkeypatch.setattr(setup, "Validation", made)


SETS = ("metrics={ dice = {}, hd95 = {}, soft_dice = {} }", "train.save_every={ epochs = 3 }", "train.epochs=5")


@pytest.mark.parametrize("stop_after", [None, 4, 7])
def test_a_trial_with_metrics_beside_the_next_epoch_ends_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int | None
) -> None:
    expected = train(tmp_path / "plain", *SETS)
    always(monkeypatch, True)
    events = train(tmp_path / "beside", *SETS, stop_after=stop_after)
    if stop_after is not None:
        assert kinds(events)[-1] == "interrupted"
        events += train(tmp_path / "beside", *SETS)
    same(tmp_path / "plain", tmp_path / "beside")
    shown = [event.values["epoch"] for event in events if event.kind == "epoch"]
    assert shown == [event.values["epoch"] for event in expected if event.kind == "epoch"] == [1, 2, 3, 4, 5]


@pytest.mark.gpu
def test_metrics_beside_the_next_epoch_on_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    sets = (*SETS, "train.device=cuda", "train.deterministic=true")
    events = train(tmp_path / "beside", *sets)
    assert any("first step: " in event.text and "; memory " in event.text for event in events)
    always(monkeypatch, False)
    train(tmp_path / "plain", *sets)
    same(tmp_path / "plain", tmp_path / "beside")


def test_metrics_that_take_longer_than_an_epoch_do_not_keep_the_state_from_being_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    save, score = checkpoint.save, scoring.score

    def noted(path: Path, weights: Any, meta: dict[str, Any], state: Any = None) -> None:
        saved.extend([meta["epoch"]] if path.stem == "last" else [])
        save(path, weights, meta, state)

    def slow(*given: Any) -> list[Row]:
        time.sleep(0.03)  # for each case: longer than the epochs here
        return score(*given)

    always(monkeypatch, True)
    monkeypatch.setattr(checkpoint, "save", noted)
    monkeypatch.setattr("segkit.evaluation.evaluator.score", slow)
    train(tmp_path, SETS[0], "train.epochs=5")
    assert len(saved) >= 3
    assert max(later - earlier for earlier, later in itertools.pairwise([1, *saved])) <= 2


def test_a_metric_that_fails_beside_the_next_epoch_fails_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: Any) -> Any:
        raise UserError("no distance today")

    always(monkeypatch, True)
    monkeypatch.setattr("segkit.evaluation.evaluator.score", failing)
    events = train(tmp_path, *SETS)
    assert (events[-1].kind, events[-1].text) == ("failed", "no distance today")
    assert (tmp_path / FOLDER / "best.safetensors").exists()


def test_the_best_weights_are_written_when_the_state_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is lost between two saves is trained again."""
    written: list[tuple[str, int]] = []
    save = checkpoint.save

    def noted(path: Path, weights: Any, meta: dict[str, Any], state: Any = None) -> None:
        written.append((path.stem, meta["epoch"]))
        save(path, weights, meta, state)

    train(tmp_path / "each", "train.epochs=6")
    monkeypatch.setattr(checkpoint, "save", noted)
    train(tmp_path / "seldom", "train.epochs=6", "train.save_every={ epochs = 3 }")
    best = [int(row["epoch"]) for row in rows_of(tmp_path / "seldom" / FOLDER / "metrics.csv")]
    assert best == [1, 2, 3, 4, 5, 6]
    assert [name for name, _ in written if name == "last"] == ["last"] * 2
    assert 1 <= sum(name == "best" for name, _ in written) <= 2
    assert without_times(tmp_path / "each" / FOLDER / "metrics.csv") == without_times(
        tmp_path / "seldom" / FOLDER / "metrics.csv"
    )
    one, other = (checkpoint.load(tmp_path / run / FOLDER / "best.safetensors") for run in ("each", "seldom"))
    assert all(torch.equal(one.weights[name], tensor) for name, tensor in other.weights.items())
    assert {key: one.meta[key] for key in ("epoch", "step", "metrics")} == {
        key: other.meta[key] for key in ("epoch", "step", "metrics")
    }


@pytest.mark.parametrize(("seconds", "written"), [(0.0, [1, 2, 3, 4, 5]), (1e9, [3, 5])])
def test_the_table_is_written_with_the_state_and_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, written: list[int]
) -> None:
    found: list[int] = []
    write = History.write

    def noted(self: History, path: Path) -> None:
        found.append(len(self))
        write(self, path)

    monkeypatch.setattr(History, "write", noted)
    monkeypatch.setattr("segkit.training.record.WRITE_SECONDS", seconds)
    train(tmp_path, *SETS)
    assert list(dict.fromkeys(found)) == written
    assert len(rows_of(tmp_path / FOLDER / "metrics.csv")) == 5


def test_a_second_interrupt_leaves_a_table_of_the_epochs_that_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: Any) -> bool:
        if (tmp_path / FOLDER / "trial.json").exists() and len(epochs) == 2:
            raise KeyboardInterrupt
        return False

    epochs: list[Event] = []
    events = run_trial(trial(tmp_path, recipe(*SETS)), stop=interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        epochs.extend(event for event in events if event.kind == "epoch")
    assert len(rows_of(tmp_path / FOLDER / "metrics.csv")) == 2
    status = Status.read(tmp_path / FOLDER)
    assert (status.status, status.epochs_done, status.resident) == ("interrupted", 2, False)


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        ("{ epochs = 2 }", [4, 8, 10]),
        ("{ steps = 3 }", [3, 6, 9, 10]),
        ("{ seconds = 1e-9 }", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ("{ seconds = 1000 }", [10]),
        ("{ epochs = 2, steps = 3, seconds = 1000 }", [3, 4, 7, 8, 10]),
    ],
)
def test_the_state_is_saved_as_often_as_a_recipe_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: str, expected: list[int]
) -> None:
    saved: list[int] = []
    save = checkpoint.save

    def noted(path: Path, weights: Any, meta: dict[str, Any], state: Any = None) -> None:
        saved.extend([meta["step"]] if path.stem == "last" else [])
        save(path, weights, meta, state)

    monkeypatch.setattr(checkpoint, "save", noted)
    train(tmp_path, "train.epochs=5", "train.steps_per_epoch=2", f"train.save_every={every}")
    assert saved == expected


def test_the_clock_of_saves_begins_again_with_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    save = checkpoint.save

    def noted(path: Path, weights: Any, meta: dict[str, Any], state: Any = None) -> None:
        saved.extend([meta["step"]] if path.stem == "last" else [])
        save(path, weights, meta, state)

    steps = iter(range(10_000))
    monkeypatch.setattr("segkit.training.run.Saved", functools.partial(Saved, clock=lambda: 10.0 * next(steps)))
    monkeypatch.setattr(checkpoint, "save", noted)
    train(tmp_path, "train.epochs=5", "train.steps_per_epoch=2", "train.save_every={ seconds = 30 }")
    assert saved == [3, 6, 9, 10]


def test_weights_are_those_of_the_epoch_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the epochs after the last save turn out worse when they are trained again, as they may on a GPU."""
    sets = ("train.epochs=8", "train.save_every={ epochs = 3 }")
    failing = iter([False] * 5 + [True])

    def step(self: Any, loss: float) -> None:
        if next(failing, False):
            raise ComponentError("enough")

    with monkeypatch.context() as patch:
        patch.setattr("segkit.components.schedulers.Schedule.step_epoch", step)
        assert kinds(train(tmp_path, *sets))[-1] == "failed"
    assert checkpoint.load(tmp_path / FOLDER / "best.safetensors").meta["epoch"] <= 3
    ahead = checkpoint.load(tmp_path / FOLDER / "best.safetensors")
    checkpoint.save(tmp_path / FOLDER / "best.safetensors", ahead.weights, ahead.meta | {"epoch": 5})
    monkeypatch.setattr("segkit.training.run.score_of", lambda *given: 0.0)
    assert kinds(train(tmp_path, *sets))[-1] == "finished"
    meta, status = checkpoint.load(tmp_path / FOLDER / "best.safetensors").meta, Status.read(tmp_path / FOLDER)
    assert meta["epoch"] == status.best_epoch == 4


def test_an_interrupt_while_a_state_is_read_changes_nothing_that_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: Any) -> str:
        raise KeyboardInterrupt

    train(tmp_path, "train.epochs=3")
    monkeypatch.setattr("segkit.training.run.restore", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        train(tmp_path, "train.epochs=4")
    assert (Status.read(tmp_path / FOLDER).status, Status.read(tmp_path / FOLDER).epochs_done) == ("interrupted", 3)


@pytest.mark.parametrize("beside", [False, True])
def test_a_trial_that_fails_leaves_its_best_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    always(monkeypatch, beside)
    calls = 0

    def failing(self: Any, loss: float) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise ComponentError("enough")

    monkeypatch.setattr("segkit.components.schedulers.Schedule.step_epoch", failing)
    events = train(tmp_path, SETS[0], "train.epochs=5", "train.save_every={ epochs = 5 }")
    assert kinds(events)[-1] == "failed"
    rows = rows_of(tmp_path / FOLDER / "metrics.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    meta = checkpoint.load(tmp_path / FOLDER / "best.safetensors").meta
    assert meta["epoch"] in (1, 2)
    assert meta["metrics"]["val_hd95"] == float(rows[meta["epoch"] - 1]["val_hd95"])
    assert not (tmp_path / FOLDER / "last.safetensors").exists()


@pytest.mark.parametrize("resident", [False, True])
def test_where_samples_live_on_the_device_validation_reads_a_slice_once(
    resident: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = evaluator(2, IMAGES, exclusive=False, metrics={"dice": {}}, train={"resident": True})
    model, read, transformed = network(2), list[int](), chosen._slices.transformed

    def noted(index: int) -> Any:
        read.append(index)
        return transformed(index)

    monkeypatch.setattr(chosen._slices, "transformed", noted)
    validate = Validation(chosen, chosen.recipe, beside=False, resident=resident)
    for _ in range(3):
        validate(model, loss)
    assert sorted(read) == sorted([0, 1, 2, 3] * (1 if resident else 3))
    read.clear()
    for _ in range(2):
        chosen.run(model, validate.metrics)
    assert len(read) == (0 if resident else 8)


def test_a_training_that_ends_waits_for_one_case_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    validate, cases = validation("dice", "hd95"), list[str]()
    score = scoring.score

    def slow(case: Any, *given: Any) -> list[Row]:
        cases.append(case.name)
        validate._closed = True
        return score(case, *given)

    monkeypatch.setattr("segkit.evaluation.evaluator.score", slow)
    found = validate(network(2), loss)
    assert found.later is not None
    assert isinstance(found.later.exception(timeout=60), CancelledError)
    assert cases == ["c0"]
    validate.close()
