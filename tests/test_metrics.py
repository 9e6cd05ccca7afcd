from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from segkit import metrics
from segkit.components.metrics import direction, hard

OVERLAPS = ("dice", "iou", "precision", "recall")
DISTANCES = ("hausdorff", "hd95", "assd")
SHAPE = (20, 24)


def value(
    name: str,
    prediction: ArrayLike,
    truth: ArrayLike,
    spacing: tuple[float, float] | None = None,
    **parameters: Any,
) -> float:
    found = metrics.build(name, parameters)(np.asarray(prediction, np.float32), np.asarray(truth, bool), spacing)
    assert isinstance(found, float)
    return found


def box(top: int, left: int, bottom: int, right: int, shape: tuple[int, int] = SHAPE) -> NDArray[np.bool_]:
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def random_masks(seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """A blob and a disturbed copy, with holes and islands."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    truth = (rows - rng.uniform(6, 13)) ** 2 / 20 + (columns - rng.uniform(7, 15)) ** 2 / 35 < 1
    return rng.random(SHAPE) < np.where(truth, 0.8, 0.05), truth


def naive_edge(mask: NDArray[np.bool_], spacing: tuple[float, float]) -> list[tuple[float, float]]:
    """Every mask pixel with a 4-neighbour outside, in mm."""
    points = []
    for row, column in np.argwhere(mask):
        for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            near = (row + down, column + right)
            inside = 0 <= near[0] < mask.shape[0] and 0 <= near[1] < mask.shape[1]
            if not inside or not mask[near]:
                points.append((row * spacing[0], column * spacing[1]))
                break
    return points


def naive_directed(points: list[tuple[float, float]], others: list[tuple[float, float]]) -> list[float]:
    return [min(math.dist(point, other) for other in others) for point in points]


def naive_distances(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: tuple[float, float]
) -> dict[str, float]:
    found, true = naive_edge(prediction, spacing), naive_edge(truth, spacing)
    there, back = naive_directed(found, true), naive_directed(true, found)
    return {
        "hausdorff": max(*there, *back),
        "hd95": max(np.percentile(there, 95), np.percentile(back, 95)),
        "assd": sum(there + back) / len(there + back),
    }


def test_known_overlaps() -> None:
    truth, prediction = box(2, 2, 6, 6), box(4, 2, 8, 6)  # 16 pixels each, 8 shared
    assert value("dice", prediction, truth) == 0.5
    assert value("iou", prediction, truth) == pytest.approx(1 / 3)
    prediction = box(2, 2, 6, 10)  # 32 pixels, 16 shared
    assert value("precision", prediction, truth) == 0.5
    assert value("recall", prediction, truth) == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_overlaps_match_sets_of_pixels(seed: int) -> None:
    prediction, truth = random_masks(seed)
    p, t = {tuple(x) for x in np.argwhere(prediction)}, {tuple(x) for x in np.argwhere(truth)}
    assert value("dice", prediction, truth) == pytest.approx(2 * len(p & t) / (len(p) + len(t)), abs=1e-15)
    assert value("iou", prediction, truth) == pytest.approx(len(p & t) / len(p | t), abs=1e-15)
    assert value("precision", prediction, truth) == pytest.approx(len(p & t) / len(p), abs=1e-15)
    assert value("recall", prediction, truth) == pytest.approx(len(p & t) / len(t), abs=1e-15)


def test_masks_are_hard_at_one_half() -> None:
    truth = box(0, 0, 4, 4)
    assert value("dice", truth * np.float32(0.5), truth) == 1.0
    assert value("dice", truth * np.float32(0.4999), truth) == 0.0
    assert hard(np.array([0.49, 0.5, 0.51], np.float32)).tolist() == [False, True, True]


@pytest.mark.parametrize("epsilon", [1.0, 0.25])
@pytest.mark.parametrize("seed", range(3))
def test_soft_dice_is_the_first_studys_formula(seed: int, epsilon: float) -> None:
    rng = np.random.default_rng(seed)
    prediction, truth = rng.random(SHAPE).astype(np.float32), rng.random(SHAPE) < 0.3
    p, t = prediction.astype(np.float64), truth.astype(np.float64)
    expected = 2 * ((p * t).sum() + epsilon / 2) / (p.sum() + t.sum() + epsilon)
    assert value("soft_dice", prediction, truth, epsilon=epsilon) == pytest.approx(expected, abs=1e-12)


def test_soft_dice_of_empty_masks_is_one() -> None:
    assert value("soft_dice", np.zeros(SHAPE), np.zeros(SHAPE)) == 1.0


@pytest.mark.parametrize("name", [*OVERLAPS, *DISTANCES])
def test_nothing_there_and_nothing_predicted_is_undefined(name: str) -> None:
    assert math.isnan(value(name, np.zeros(SHAPE), np.zeros(SHAPE), (1.0, 1.0)))


@pytest.mark.parametrize("name", OVERLAPS)
def test_missed_structures_and_false_positives_are_the_worst_overlap(name: str) -> None:
    assert value(name, np.zeros(SHAPE), box(2, 2, 6, 6)) == 0.0
    assert value(name, box(2, 2, 6, 6), np.zeros(SHAPE)) == 0.0


@pytest.mark.parametrize("name", DISTANCES)
def test_missed_structures_and_false_positives_are_the_images_diagonal_away(name: str) -> None:
    diagonal = math.hypot(20 * 1.5, 24 * 0.5)
    assert value(name, np.zeros(SHAPE), box(2, 2, 6, 6), (1.5, 0.5)) == pytest.approx(diagonal)
    assert value(name, box(2, 2, 6, 6), np.zeros(SHAPE), (1.5, 0.5)) == pytest.approx(diagonal)
    farthest = box(0, 0, 1, 1) | box(19, 23, 20, 24)
    assert value(name, farthest, box(0, 0, 1, 1), (1.5, 0.5)) < diagonal


def test_known_distances() -> None:
    truth, prediction = box(2, 2, 3, 3), box(5, 6, 6, 7)  # single pixels, 3 down and 4 across
    for name in DISTANCES:
        assert value(name, prediction, truth) == 5.0
        assert value(name, prediction, truth, (2.0, 1.5)) == pytest.approx(math.hypot(6, 6))


def test_hd95_is_the_larger_direction_not_the_pooled_percentile() -> None:
    truth = box(4, 0, 5, 24)
    prediction = truth | box(14, 0, 15, 1)  # one pixel of 25 is 10 away: pooled with the other direction it vanishes
    assert value("hd95", prediction, truth) == pytest.approx(np.percentile([0.0] * 24 + [10.0], 95))
    assert value("hd95", truth, prediction) == value("hd95", prediction, truth)
    prediction |= box(14, 0, 15, 3)
    assert value("hd95", prediction, truth) == pytest.approx(10.0)
    assert np.percentile([0.0] * 48 + [10.0] * 3, 95) < 10


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0), (0.7, 2.3), (8.0, 1.25)])
@pytest.mark.parametrize("seed", range(4))
def test_distances_match_all_pairs_of_edge_points(seed: int, spacing: tuple[float, float] | None) -> None:
    prediction, truth = random_masks(seed)
    for name, expected in naive_distances(prediction, truth, spacing or (1.0, 1.0)).items():
        assert value(name, prediction, truth, spacing) == pytest.approx(expected, abs=1e-9), name


def test_masks_at_the_images_border_have_their_edge_there() -> None:
    full, inner = np.ones(SHAPE, bool), box(1, 1, 19, 23)
    assert value("hausdorff", full, inner) == pytest.approx(math.sqrt(2))
    assert value("hausdorff", full, full) == 0.0


@pytest.mark.parametrize("name", [*OVERLAPS, *DISTANCES, "soft_dice"])
def test_a_better_prediction_is_better(name: str) -> None:
    truth = box(4, 4, 14, 14)
    good, bad = value(name, box(5, 4, 15, 14), truth), value(name, box(9, 8, 19, 18), truth)
    assert (good - bad) * direction(name) > 0  # type: ignore[operator]


def test_direction_of_a_metric_nobody_registered_is_unknown() -> None:
    assert direction("dice") == 1
    assert direction("hd95") == -1
    assert direction("no_such_metric") is None
