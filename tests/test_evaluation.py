"""Masks are decided once: for metrics, pixel counts, overlays and predictions alike; nothing falsifies them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import segkit
from segkit.components.datasets.case import Case
from segkit.device import Device
from segkit.evaluation.evaluator import Evaluator, Prediction
from segkit.evaluation.slices import Normalization
from segkit.plugins import isolated
from segkit.registry.component import Component
from segkit.registry.faults import ComponentError
from segkit.training.objective import Objective
from tests.small import data_of, kinds, train

SIZE = (12, 10)
CPU = Device(torch.device("cpu"), "float32", "")


class Fixed(nn.Module):
    """Says the same of every image, whatever it shows."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, image: Tensor) -> Tensor:
        return self.scores.expand(image.shape[0], -1, -1, -1).clone()


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    with isolated():
        yield


def evaluator(channels: int, *, exclusive: bool, size: tuple[int, int] = SIZE, resize: bool = False) -> Evaluator:
    """Return an evaluator of two cases; with `resize` the model sees half the rows and columns."""
    cases = []
    for number in range(2):
        masks = np.zeros((channels, *size), bool)
        masks[0, 3:9, 2:8] = True
        image = np.random.default_rng(number).integers(0, 255, size, dtype=np.uint8)
        cases.append(Case(f"c{number}", f"p{number}", image, masks, (1.0, 1.0)))
    half = {"height": size[0] // 2, "width": size[1] // 2}
    recipe = segkit.Recipe.from_dict(
        {
            "channels": "exclusive" if exclusive else "independent",
            "transforms": {"eval": [{"Resize": half}] if resize else []},
            "train": {"batch_size": 2},
        }
    )
    return Evaluator(data_of(cases), range(len(cases)), recipe, Normalization.identity(1), CPU)


def predictions(
    found: Evaluator, scores: Tensor, loss: Callable[[Tensor, Tensor], Tensor] | None = None
) -> list[Prediction]:
    return list(found.predict(Fixed(scores), loss))


def test_the_likeliest_class_is_a_structure_below_one_half_too() -> None:
    scores = torch.tensor([0.20, 0.45, 0.35]).log().view(1, 3, 1, 1).expand(1, 3, *SIZE)
    for found in predictions(evaluator(2, exclusive=True), scores):
        assert found.probability.shape == found.mask.shape == (2, *SIZE)
        assert found.probability.dtype == np.float32
        assert np.allclose(found.probability[:, 0, 0], [0.45, 0.35])
        assert found.mask[0].all()
        assert not found.mask[1].any()


def test_background_wins_where_it_is_the_likeliest() -> None:
    scores = torch.tensor([0.40, 0.35, 0.25]).log().view(1, 3, 1, 1).expand(1, 3, *SIZE)
    assert not any(found.mask.any() for found in predictions(evaluator(2, exclusive=True), scores))


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_resampled_neighbours_leave_no_gap_and_do_not_overlap(classes: int) -> None:
    """Every pixel is the likeliest of all resampled classes, so that two that touch in the small image touch here."""
    scores = torch.full((1, classes + 1, 12, 10), -4.0)
    for number in range(classes):
        scores[:, number + 1, :, number * 10 // classes : (number + 1) * 10 // classes] = 4.0
    for found in predictions(evaluator(classes, exclusive=True, size=(24, 20), resize=True), scores):
        assert (found.mask.sum(axis=0) == 1).all()
        chance = torch.nn.functional.interpolate(torch.softmax(scores, 1), (24, 20), mode="bilinear")[0].numpy()
        assert (found.mask == (chance.argmax(0) == np.arange(1, classes + 1)[:, None, None])).all()


def test_independent_channels_are_cut_at_one_half_and_may_overlap() -> None:
    scores = torch.tensor([0.0, 3.0]).view(1, 2, 1, 1).expand(1, 2, *SIZE)
    for found in predictions(evaluator(2, exclusive=False), scores):
        assert found.mask.all()
        assert (found.mask == (np.asarray(found.probability, np.float32) >= 0.5)).all()


def seen(uses: str) -> tuple[list[NDArray[Any]], Component]:
    """Return what a metric is handed, and the metric."""
    handed: list[NDArray[Any]] = []

    def spy(prediction: Any, truth: Any, spacing_mm: Any) -> float:
        handed.append(prediction)
        return float((prediction >= 0.5).sum())

    segkit.metrics.register("spy", uses=uses)(spy)
    return handed, segkit.metrics.component("spy")


def test_metrics_are_handed_the_mask_or_the_probability_and_rows_count_the_mask() -> None:
    scores = torch.tensor([0.20, 0.45, 0.35]).log().view(1, 3, 1, 1).expand(1, 3, *SIZE)
    for uses, kind, expected in (("mask", np.dtype(bool), SIZE[0] * SIZE[1]), ("probability", np.dtype("f4"), 0)):
        with isolated():
            handed, spy = seen(uses)
            rows, _ = evaluator(2, exclusive=True).run(Fixed(scores), [spy])
        assert {array.dtype for array in handed} == {kind}
        assert rows[0].value == expected
        assert [row.predicted_pixels for row in rows[:2]] == [SIZE[0] * SIZE[1], 0]


def test_on_case_gets_the_decided_masks() -> None:
    scores = torch.tensor([0.20, 0.45, 0.35]).log().view(1, 3, 1, 1).expand(1, 3, *SIZE)
    drawn: list[NDArray[Any]] = []
    evaluator(2, exclusive=True).run(Fixed(scores), [], on_case=lambda case, truth, masks: drawn.append(masks))
    assert all(masks.dtype == bool and masks[0].all() for masks in drawn)


def test_probabilities_of_a_volume_are_kept_once_and_only_where_a_metric_uses_them() -> None:
    shape = (24, 96, 96)
    masks = np.zeros((2, *shape), bool)
    masks[0, 4:20, 8:90, 8:90] = True
    image = np.random.default_rng(0).integers(0, 255, (1, *shape), dtype=np.uint8)
    recipe = segkit.Recipe.from_dict({"train": {"batch_size": 2}})
    data = data_of([Case(f"c{number}", None, image, masks, (5.0, 1.0, 1.0)) for number in range(2)])
    found = Evaluator(data, (0, 1), recipe, Normalization.identity(1), CPU)
    model = Fixed(torch.linspace(-3, 3, 2 * 96 * 96).view(1, 2, 96, 96))
    peaks, values = [], []
    for names in (["dice"], ["dice", "soft_dice"]):
        tracemalloc.start()
        rows, _ = found.run(model, [segkit.metrics.component(name) for name in names])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        values.append({(row.case, row.channel): row.value for row in rows if row.metric == "dice"})
    numbers = masks.size * 4  # bytes of the probabilities of one volume
    assert peaks[0] < numbers < peaks[1] < 2 * numbers
    assert values[0] == values[1]
    (one, other) = found.predict(model)
    expected = np.broadcast_to(torch.sigmoid(model.scores).numpy()[0][:, None], masks.shape)
    assert np.array_equal(one.probability, expected)
    assert np.array_equal(other.mask, expected >= 0.5)


def damaging(logits: Tensor, target: Tensor) -> Tensor:
    """Writes to what it is handed, and only in validation, where torch does not count."""
    if logits.requires_grad:
        return (logits.sigmoid() - target).square().mean()
    logits.zero_()
    target.zero_()
    return logits.sum()


def test_a_loss_that_writes_in_validation_reaches_neither_masks_nor_other_losses() -> None:
    segkit.losses.register("damaging")(damaging)
    scores = torch.randn(1, 2, *SIZE, generator=torch.Generator().manual_seed(0))
    alone, clean = (
        Objective([segkit.losses.component(name) for name in names], [], Fixed(scores), exclusive=False)
        for names in (["damaging", "bce"], ["bce"])
    )
    found, expected = (predictions(evaluator(2, exclusive=False), scores, o.loss) for o in (alone, clean))
    for one, other in zip(found, expected, strict=True):
        assert (one.probability == other.probability).all()
        assert one.loss == other.loss


def test_a_loss_that_is_nan_in_validation_alone_is_named_there() -> None:
    def odd(logits: Tensor, target: Tensor) -> Tensor:
        """A quotient by nothing."""
        return (logits.sigmoid() * target).sum() / (1 - target).sum().mul(0)

    segkit.losses.register("odd")(odd)
    scores = torch.ones(1, 2, *SIZE)
    objective = Objective([segkit.losses.component("odd")], [], Fixed(scores), exclusive=False)
    with pytest.raises(
        ComponentError, match=r"loss\.odd \(tests/test_evaluation\.py:[0-9]+\): its value is inf although"
    ):
        predictions(evaluator(2, exclusive=False), scores, objective.loss)


def test_a_late_write_is_noticed_too() -> None:
    """Like a switching loss: the first batches are harmless."""
    calls = 0

    def late(logits: Tensor, target: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return ((logits.sigmoid_() if calls > 3 else logits.sigmoid()) - target).square().mean()

    segkit.losses.register("late")(late)
    net = nn.Conv2d(1, 2, 1)
    objective = Objective([segkit.losses.component("late")], [], net, exclusive=False)
    image, target = torch.rand(1, 1, 4, 4), torch.zeros(1, 2, 4, 4)
    for _ in range(3):
        objective(net(image), target)
    with pytest.raises(ComponentError, match=r"loss\.late .*it writes to its logits"):
        objective(net(image), target)


def test_exclusive_classes_from_training_to_prediction(tmp_path: Path) -> None:
    sets = [
        "channels=exclusive",
        "train.epochs=1",
        "loss={ cross_entropy = {} }",
        "metrics={ dice = {}, soft_dice = {} }",
    ]
    assert kinds(train(tmp_path, *sets))[-1] == "finished"
    predictor = segkit.load(tmp_path / "only/seed-1/best.safetensors")
    image = np.random.default_rng(0).integers(0, 500, (32, 32)).astype(np.uint16)
    mask, probability = predictor.segment(image), predictor.predict(image)
    assert mask.dtype == bool
    assert mask.shape == probability.shape == (2, 32, 32)
    background = 1 - probability.sum(axis=0)
    likeliest = np.concatenate([background[None], probability]).argmax(axis=0)
    assert ((likeliest[None] == np.array([1, 2])[:, None, None]) == mask).mean() > 0.999  # but for ties


def test_optimizer_and_model_with_values_that_make_no_sense_are_named_by_their_key(tmp_path: Path) -> None:
    events = train(tmp_path, "optimizer={ SGD = { lr = 0.1, nesterov = true } }")
    assert events[-1].text.startswith("optimizer.SGD: Nesterov momentum requires")


def test_an_evaluation_that_is_random_is_refused(tmp_path: Path) -> None:
    import albumentations

    class Unseeded(albumentations.ImageOnlyTransform):  # type: ignore[misc]
        def apply(self, img: Any, **params: Any) -> Any:
            return img + np.uint8(np.random.randint(0, 9))

    segkit.transforms.register("unseeded_here")(lambda: Unseeded(p=1))
    events = train(tmp_path, "transforms.eval=['unseeded_here']")
    assert "transforms.eval: one of unseeded_here gives several results for one image" in events[-1].text
