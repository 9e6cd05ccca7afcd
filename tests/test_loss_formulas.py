"""Losses against naive float64 formulas, on random and on degenerate inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from segkit import losses
from segkit.components.losses.surface import signed_distance
from segkit.errors import UserError


def example(shape: tuple[int, ...] = (3, 2, 6, 5), seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    target = (torch.rand(shape, generator=generator) > 0.6).double()
    target[:, :, 0, 0], target[:, :, -1, -1] = 1, 0
    return logits, target


def degenerate() -> Iterator[tuple[Tensor, Tensor]]:
    logits, target = example()
    for truth, scores in product(
        (target, torch.zeros_like(target), torch.ones_like(target)), (logits, logits * 0 - 30, logits * 0 + 30)
    ):
        yield scores, truth


def by_hand(logits: Tensor, target: Tensor, one: Callable[[list[float], list[float]], float], batch: bool) -> float:
    """Return the mean of `one(probabilities, truths)` over cases and channels, or over channels of the batch."""
    cases, channels = logits.shape[:2]
    values = []
    for group in [range(cases)] if batch else [[n] for n in range(cases)]:
        for c in range(channels):
            p = [1 / (1 + math.exp(-x)) for n in group for x in logits[n, c].flatten().tolist()]
            t = [x for n in group for x in target[n, c].flatten().tolist()]
            values.append(one(p, t))
    return sum(values) / len(values)


def dice_by_hand(p: list[float], t: list[float], e: float = 1.0) -> float:
    return 1 - 2 * (sum(x * y for x, y in zip(p, t, strict=True)) + e / 2) / (sum(p) + sum(t) + e)


def inverse_by_hand(p: list[float], t: list[float], e: float = 1.0) -> float:
    return dice_by_hand([1 - x for x in p], [1 - y for y in t], e)


def tversky_by_hand(p: list[float], t: list[float], alpha: float, beta: float, e: float = 1.0) -> float:
    both = sum(x * y for x, y in zip(p, t, strict=True))
    missed = sum((1 - x) * y for x, y in zip(p, t, strict=True))
    surplus = sum(x * (1 - y) for x, y in zip(p, t, strict=True))
    return 1 - (both + e) / (both + alpha * missed + beta * surplus + e)


FORMULAS: dict[str, tuple[str, dict[str, float], Callable[[list[float], list[float]], float]]] = {
    "dice": ("dice", {}, dice_by_hand),
    "dice, epsilon": ("dice", {"epsilon": 1e-3}, lambda p, t: dice_by_hand(p, t, 1e-3)),
    "inverse dice": ("inverse_dice", {}, inverse_by_hand),
    "inverse dice, epsilon": ("inverse_dice", {"epsilon": 1e-3}, lambda p, t: inverse_by_hand(p, t, 1e-3)),
    "mix": (
        "dice_mix",
        {"lambda": 0.6, "epsilon": 0.5},
        lambda p, t: 0.6 * dice_by_hand(p, t, 0.5) + 0.4 * inverse_by_hand(p, t, 0.5),
    ),
    "mix 0": ("dice_mix", {"lambda": 0}, inverse_by_hand),
    "mix 1": ("dice_mix", {"lambda": 1}, dice_by_hand),
    "tversky": ("tversky", {"alpha": 0.6, "beta": 0.2}, lambda p, t: tversky_by_hand(p, t, 0.6, 0.2)),
    "tversky as dice": ("tversky", {"alpha": 0.5, "beta": 0.5, "epsilon": 0.5}, dice_by_hand),
    "focal tversky": ("focal_tversky", {}, lambda p, t: tversky_by_hand(p, t, 0.7, 0.3) ** 0.75),
    "jaccard": (
        "jaccard",
        {},
        lambda p, t: 1 - (sum(np.multiply(p, t)) + 1) / (sum(p) + sum(t) - sum(np.multiply(p, t)) + 1),
    ),
}


@pytest.mark.parametrize("reduction", ["case", "batch"])
@pytest.mark.parametrize("case", FORMULAS)
def test_overlap_losses_equal_their_formula_in_float64(case: str, reduction: str) -> None:
    name, parameters, formula = FORMULAS[case]
    loss = losses.build(name, {**parameters, "reduction": reduction})
    for logits, target in degenerate():
        expected = by_hand(logits, target, formula, batch=reduction == "batch")
        assert loss(logits, target).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["dice", "inverse_dice", "dice_mix", "tversky", "jaccard", "lovasz"])
@pytest.mark.parametrize("score", [0.0, 4.0, 10.0])
def test_overlap_losses_keep_their_digits_in_float32(name: str, score: float) -> None:
    loss = losses.build(name, {})
    noise = torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    few = torch.zeros_like(noise)
    few[..., :1, :2] = 1
    for truth in (few, 1 - few, torch.zeros_like(few), torch.ones_like(few)):
        logits = (2 * truth - 1) * score + noise
        exact = loss(logits.double(), truth.double()).item()
        assert loss(logits, truth).item() == pytest.approx(exact, abs=3e-5)  # float32 knows 1 - p to 6e-8


def test_dice_losses_take_soft_targets_too() -> None:
    logits, _ = example()
    target = torch.rand(logits.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for name, formula in (("dice", dice_by_hand), ("inverse_dice", inverse_by_hand)):
        expected = by_hand(logits, target, formula, batch=False)
        assert losses.build(name, {})(logits, target).item() == pytest.approx(expected, abs=1e-9)


def test_bce_is_a_mean_over_everything() -> None:
    logits, target = example()
    p = logits.sigmoid()
    expected = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    assert torch.allclose(losses.build("bce", {})(logits, target), expected, rtol=0, atol=1e-9)


def test_cross_entropy_of_log_odds_is_the_softmax_cross_entropy_of_the_scores() -> None:
    scores = 3 * example((2, 4, 5, 6))[0]
    classes = torch.randint(4, (2, 5, 6), generator=torch.Generator().manual_seed(2))
    others = [[k for k in range(4) if k != c] for c in range(4)]
    odds = torch.stack([scores[:, c] - scores[:, others[c]].logsumexp(1) for c in range(4)], dim=1)
    target = functional.one_hot(classes, 4).permute(0, 3, 1, 2).double()
    result = losses.build("cross_entropy", {})(odds, target)
    assert torch.allclose(result, functional.cross_entropy(scores, classes), rtol=0, atol=1e-9)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_combined_is_bce_plus_the_mix(reduction: str) -> None:
    logits, target = example()
    combined = losses.build("combined", {"lambda": 0.3, "bce_reduction": reduction, "epsilon": 2.0})
    elements = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    bce = elements.mean() if reduction == "mean" else elements.sum((2, 3)).mean()
    mix = by_hand(
        logits, target, lambda p, t: 0.3 * dice_by_hand(p, t, 2.0) + 0.7 * inverse_by_hand(p, t, 2.0), batch=False
    )
    assert combined(logits, target).item() == pytest.approx(bce.item() + mix, abs=1e-9)


@pytest.mark.parametrize("reduction", ["case", "batch"])
def test_switching_exchanges_the_weights_of_each_channel_by_its_share_of_the_batch(reduction: str) -> None:
    logits, target = example((2, 3, 10, 10))
    for channel, pixels in enumerate((20, 21, 150)):  # of 200 in the batch: 0.1, 0.105, 0.75
        target[:, channel] = (torch.arange(200) < pixels).view(2, 10, 10)
    loss = losses.build("switching", {"threshold": 0.1, "lambda": 0.8, "reduction": reduction})
    expected = []
    for channel, weight in enumerate((0.2, 0.8, 0.8)):
        part = logits[:, channel : channel + 1], target[:, channel : channel + 1]
        expected.append(losses.build("dice_mix", {"lambda": weight, "reduction": reduction})(*part))
    assert torch.allclose(loss(logits, target), torch.stack(expected).mean(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("reduction", ["case", "batch"])
def test_generalized_dice_weighs_each_channel_by_its_inverse_squared_volume(reduction: str) -> None:
    logits, target = example((2, 3, 6, 5))
    target[:, 1] = 0  # absent: as heavy as the smallest of the others
    target[1, 2] = 0
    target[1, 2, 2, 2:4] = 1
    loss = losses.build("generalized_dice", {"reduction": reduction, "epsilon": 0.5})
    p, values = logits.sigmoid().numpy(), []
    for cases in [[0, 1]] if reduction == "batch" else [[0], [1]]:
        volumes = [float(target[cases, c].sum()) for c in range(3)]
        smallest = min(volume for volume in volumes if volume)
        weights = [(smallest / (volume or smallest)) ** 2 for volume in volumes]
        both = sum(w * (p[cases, c] * target[cases, c].numpy()).sum() for c, w in enumerate(weights))
        either = sum(w * (p[cases, c].sum() + volumes[c]) for c, w in enumerate(weights))
        values.append(1 - 2 * (both + 0.25) / (either + 0.5))
    assert loss(logits, target).item() == pytest.approx(np.mean(values), abs=1e-9)
    assert loss(0 * logits - 40, 0 * target).item() == pytest.approx(0, abs=1e-9)


def test_weights_and_top_k_of_bce_equal_their_formula() -> None:
    logits, target = example()
    p = logits.sigmoid()
    elements = -(torch.tensor([5.0, 0.5]).view(2, 1, 1) * target * p.log() + (1 - target) * (1 - p).log())
    positive = {"positive_weights": [5.0, 0.5]}
    assert losses.build("bce", positive)(logits, target).item() == pytest.approx(elements.mean().item(), abs=1e-9)
    elements = elements * torch.tensor([3 / 2, 1 / 2]).view(2, 1, 1)
    weighted = {**positive, "class_weights": [6.0, 2.0]}
    assert losses.build("bce", weighted)(logits, target).item() == pytest.approx(elements.mean().item(), abs=1e-9)
    worst = sorted(elements.flatten().tolist())[-18:]  # of 180
    found = losses.build("bce", {**weighted, "top_k": 0.1})(logits, target)
    assert found.item() == pytest.approx(np.mean(worst), abs=1e-9)
    everywhere = functional.binary_cross_entropy_with_logits(logits, target, pos_weight=torch.tensor(3.0))
    assert losses.build("bce", {"positive_weights": 3.0})(logits, target).item() == pytest.approx(everywhere.item())


def test_weights_and_top_k_of_cross_entropy_are_torchs_on_the_scores() -> None:
    scores = 3 * example((2, 3, 5, 6))[0]
    classes = torch.randint(3, (2, 5, 6), generator=torch.Generator().manual_seed(2))
    odds = torch.stack([scores[:, c] - scores[:, [k for k in range(3) if k != c]].logsumexp(1) for c in range(3)], 1)
    target, weights = functional.one_hot(classes, 3).permute(0, 3, 1, 2).double(), [0.2, 3.0, 1.5]
    expected = functional.cross_entropy(scores, classes, torch.tensor(weights, dtype=torch.float64))
    found = losses.build("cross_entropy", {"class_weights": weights})(odds, target)
    assert found.item() == pytest.approx(expected.item(), abs=1e-9)
    pixels = functional.cross_entropy(scores, classes, reduction="none").flatten()
    found = losses.build("cross_entropy", {"top_k": 0.05})(odds, target)
    assert found.item() == pytest.approx(pixels.sort().values[-3:].mean().item(), abs=1e-9)


@pytest.mark.parametrize("name", ["bce", "cross_entropy"])
def test_weights_must_be_as_many_as_the_channels(name: str) -> None:
    with pytest.raises(ValueError, match=r"class_weights has 3 numbers for 2 channels: give one a channel"):
        losses.build(name, {"class_weights": [1.0, 2.0, 3.0]})(*example())
    with pytest.raises(UserError, match=rf"loss\.{name}\.class_weights\.1: must be above 0"):
        losses.build(name, {"class_weights": [1.0, 0.0]})


@pytest.mark.parametrize("alpha, gamma", [(0.25, 2.0), (0.5, 0.5), (1.0, 0.0)])
def test_focal_equals_its_formula(alpha: float, gamma: float) -> None:
    logits, target = example()
    p = logits.sigmoid()
    expected = torch.where(
        target == 1, -alpha * (1 - p) ** gamma * p.log(), -(1 - alpha) * p**gamma * (1 - p).log()
    ).mean()
    result = losses.build("focal", {"alpha": alpha, "gamma": gamma})(logits, target)
    assert torch.allclose(result, expected, rtol=0, atol=1e-9)


def lovasz_by_hand(p: list[float], t: list[float]) -> float:
    """Integrate the Jaccard loss of the set of pixels whose error exceeds a level, over all levels."""
    errors = np.abs(np.subtract(t, p))
    levels = np.unique(np.concatenate([[0.0], errors]))
    truth, total = np.asarray(t, bool), 0.0
    for low, high in pairwise(levels):
        wrong = errors > low
        marked = truth ^ wrong
        total += (high - low) * (1 - (truth & marked).sum() / (truth | marked).sum())
    return total


@pytest.mark.parametrize("reduction", ["case", "batch"])
def test_lovasz_is_the_integral_of_the_jaccard_loss_over_error_levels(reduction: str) -> None:
    loss = losses.build("lovasz", {"reduction": reduction})
    for logits, target in degenerate():
        expected = by_hand(logits, target, lovasz_by_hand, batch=reduction == "batch")
        assert loss(logits, target).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("size", [(9, 7), (1, 6), (6, 1), (2, 2)])
def test_signed_distance_is_the_distance_to_the_nearest_pixel_of_the_other_kind(size: tuple[int, int]) -> None:
    target = example((2, 2, *size))[1]
    places = list(product(range(size[0]), range(size[1])))
    for mask, distance in zip(target.flatten(0, 1), signed_distance(target).flatten(0, 1), strict=True):
        for place in places:
            other = min(math.dist(place, q) for q in places if mask[q] != mask[place])
            expected = 0.5 - other if mask[place] else other - 0.5
            assert distance[place].item() == pytest.approx(expected, abs=1e-6)


def test_boundary_is_the_mean_of_probability_times_distance_and_0_without_an_edge() -> None:
    logits, target = example()
    boundary = losses.build("boundary", {})
    expected = (logits.sigmoid() * signed_distance(target)).mean()
    assert torch.allclose(boundary(logits, target), expected, rtol=0, atol=1e-9)
    for truth in (torch.zeros_like(target), torch.ones_like(target)):
        assert boundary(logits, truth) == 0
