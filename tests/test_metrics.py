from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike, NDArray

import segkit
from segkit import metrics
from segkit.components.metrics import direction, hard, unit
from segkit.recipe.identity import evaluation_identity, training_identity
from tests.small import recipe

OVERLAPS = ("dice", "iou", "precision", "recall")
ZERO_IF_MISSED = (*OVERLAPS, "nsd")
DISTANCES = ("hausdorff", "hd95", "assd", "masd")
SHAPE, VOLUME = (20, 24), (6, 10, 9)
VOLUMES = ("volume_ml", "volume_difference_ml")
TOLERANCE = 2.0  # the default of nsd

Masks = NDArray[np.bool_]


def value(
    name: str,
    prediction: ArrayLike,
    truth: ArrayLike,
    spacing: tuple[float, ...] | None = None,
    **parameters: Any,
) -> float:
    found = metrics.build(name, parameters)(np.asarray(prediction, np.float32), np.asarray(truth, bool), spacing)
    assert isinstance(found, float)
    return found


def box(top: int, left: int, bottom: int, right: int, shape: tuple[int, int] = SHAPE) -> Masks:
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def random_masks(seed: int, shape: tuple[int, ...] = SHAPE) -> tuple[Masks, Masks]:
    """A blob and a disturbed copy, with holes and islands."""
    rng = np.random.default_rng(seed)
    offsets = (grid - rng.uniform(0.3, 0.65) * size for grid, size in zip(np.indices(shape), shape, strict=True))
    truth = sum((offset / (0.25 * size)) ** 2 for offset, size in zip(offsets, shape, strict=True)) < 1
    return rng.random(shape) < np.where(truth, 0.8, 0.05), truth


def naive_edge(mask: Masks, spacing: tuple[float, ...]) -> list[tuple[float, ...]]:
    """Every pixel of a mask with a neighbour along an axis outside, in mm."""
    points = []
    for place in map(tuple, np.argwhere(mask)):
        near = [np.add(place, step) for unit in np.eye(mask.ndim, dtype=int) for step in (unit, -unit)]
        inside = [bool((there >= 0).all() and (there < mask.shape).all()) for there in near]
        if not all(within and mask[tuple(there)] for within, there in zip(inside, near, strict=True)):
            points.append(tuple(float(at * mm) for at, mm in zip(place, spacing, strict=True)))
    return points


def naive_directed(points: list[tuple[float, ...]], others: list[tuple[float, ...]]) -> list[float]:
    return [min(math.dist(point, other) for other in others) for point in points]


def naive_distances(prediction: Masks, truth: Masks, spacing: tuple[float, ...]) -> dict[str, float]:
    found, true = naive_edge(prediction, spacing), naive_edge(truth, spacing)
    there, back = naive_directed(found, true), naive_directed(true, found)
    return {
        "hausdorff": max(*there, *back),
        "hd95": max(np.percentile(there, 95), np.percentile(back, 95)),
        "assd": sum(there + back) / len(there + back),
        "masd": (sum(there) / len(there) + sum(back) / len(back)) / 2,
        "nsd": sum(way <= TOLERANCE for way in there + back) / len(there + back),
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


@pytest.mark.parametrize("name", [*ZERO_IF_MISSED, *DISTANCES])
def test_nothing_there_and_nothing_predicted_is_undefined(name: str) -> None:
    assert math.isnan(value(name, np.zeros(SHAPE), np.zeros(SHAPE), (1.0, 1.0)))


@pytest.mark.parametrize("name", ZERO_IF_MISSED)
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


@pytest.mark.parametrize("spacing", [None, (8.0, 1.25, 1.25), (0.7, 2.3, 1.1)])
@pytest.mark.parametrize("seed", range(3))
def test_distances_of_volumes_match_all_pairs_of_edge_points(seed: int, spacing: tuple[float, ...] | None) -> None:
    prediction, truth = random_masks(seed, VOLUME)
    for name, expected in naive_distances(prediction, truth, spacing or (1.0, 1.0, 1.0)).items():
        assert value(name, prediction, truth, spacing) == pytest.approx(expected, abs=1e-9), name


def test_the_tolerance_of_surface_dice_includes_its_own_distance_however_that_is_rounded() -> None:
    truth, prediction = box(2, 2, 3, 20), box(5, 2, 6, 20)  # lines, three rows apart
    for spacing, tolerance in ((0.1, 0.3), (0.7, 2.1), (1.0, 3.0)):  # 5 * 0.1 - 2 * 0.1 is more than 0.3 in floats
        assert value("nsd", prediction, truth, (spacing, spacing), tolerance_mm=tolerance) == 1.0
        assert value("nsd", prediction, truth, (spacing, spacing), tolerance_mm=tolerance * 0.99) == 0.0
    half = box(2, 2, 3, 11) | box(5, 11, 6, 20)
    assert value("nsd", half, truth, tolerance_mm=1.0) == pytest.approx((9 + 10) / 36)  # and a neighbour of the line
    with pytest.raises(segkit.UserError, match="tolerance_mm: must be above 0"):
        metrics.build("nsd", {"tolerance_mm": 0.0})


def test_a_recipe_may_set_the_tolerance_which_retrains_nothing() -> None:
    tight, loose = (recipe(f"metrics.nsd={{tolerance_mm = {mm}}}") for mm in (1.0, 3.0))
    found = [metric for metric in loose.metrics if metric.name == "nsd"]
    assert [metric.arguments for metric in found] == [{"tolerance_mm": 3.0}]
    assert training_identity(tight) == training_identity(loose)
    assert evaluation_identity(tight) != evaluation_identity(loose)


@pytest.mark.slow  # to import MONAI takes seconds
@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI calls what MONAI deprecates
@pytest.mark.parametrize("spacing", [None, (8.0, 1.25, 1.5)])
def test_surface_dice_is_that_of_monai(spacing: tuple[float, ...] | None) -> None:
    monai = pytest.importorskip("monai.metrics")
    prediction, truth = random_masks(2, VOLUME)
    batch = (torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth))
    other = monai.compute_surface_dice(*batch, class_thresholds=[1.6], include_background=True, spacing=spacing)
    assert value("nsd", prediction, truth, spacing, tolerance_mm=1.6) == pytest.approx(float(other), abs=1e-5)


def test_specificity_is_the_share_of_the_background_that_is_left_alone() -> None:
    truth, full = box(0, 0, 10, 24), np.ones(SHAPE)  # half of the image
    assert value("specificity", box(5, 0, 15, 24), truth) == 0.5
    assert (value("specificity", full, truth), value("specificity", np.zeros(SHAPE), truth)) == (0.0, 1.0)
    assert value("specificity", box(0, 0, 5, 24), np.zeros(SHAPE)) == 0.75
    assert math.isnan(value("specificity", full, full))


def test_brier_is_the_mean_squared_difference_of_probability_and_truth() -> None:
    prediction = np.random.default_rng(0).random(SHAPE, np.float32)
    truth = box(2, 2, 9, 9)
    expected = ((prediction.astype(np.float64) - truth) ** 2).mean()
    assert value("brier", prediction, truth) == pytest.approx(expected, abs=1e-7)
    assert (value("brier", truth, truth), value("brier", ~truth, truth)) == (0.0, 1.0)
    assert value("brier", np.zeros(SHAPE), np.zeros(SHAPE)) == 0.0


def test_a_distance_map_gives_the_same_distances_as_a_search_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    prediction, truth = random_masks(3, VOLUME)
    expected = [value(name, prediction, truth, (8.0, 1.25, 1.5)) for name in DISTANCES]
    monkeypatch.setattr("segkit.components.metrics.surface.MANY", 0)
    monkeypatch.setattr("scipy.spatial.cKDTree", None)
    assert [value(name, prediction, truth, (8.0, 1.25, 1.5)) for name in DISTANCES] == pytest.approx(expected, abs=1e-9)


def test_the_surface_of_a_volume_includes_its_first_and_last_slice() -> None:
    truth, prediction = np.zeros(VOLUME, bool), np.zeros(VOLUME, bool)
    truth[:, 2:8, 2:7], prediction[2:, 2:8, 2:7] = True, True
    assert value("hausdorff", prediction, truth, (8.0, 1.0, 1.0)) == pytest.approx(16.0)
    assert value("hausdorff", np.ones(VOLUME), np.ones(VOLUME), (8.0, 1.0, 1.0)) == 0.0


@pytest.mark.parametrize("name", OVERLAPS)
def test_overlaps_of_a_volume_are_those_of_its_pixels_side_by_side(name: str) -> None:
    prediction, truth = random_masks(1, VOLUME)
    flat = (len(prediction), -1)
    assert value(name, prediction, truth, (8.0, 1.0, 1.0)) == value(name, prediction.reshape(flat), truth.reshape(flat))


@pytest.mark.parametrize("name", DISTANCES)
def test_a_missed_structure_in_a_volume_is_the_volumes_diagonal_away(name: str) -> None:
    truth, spacing = random_masks(0, VOLUME)[1], (8.0, 1.25, 1.5)
    diagonal = math.sqrt((6 * 8.0) ** 2 + (10 * 1.25) ** 2 + (9 * 1.5) ** 2)
    assert value(name, np.zeros(VOLUME), truth, spacing) == pytest.approx(diagonal)
    assert value(name, truth, np.zeros(VOLUME), spacing) == pytest.approx(diagonal)
    assert value(name, np.zeros(VOLUME), truth) == pytest.approx(math.sqrt(6**2 + 10**2 + 9**2))
    assert math.isnan(value(name, np.zeros(VOLUME), np.zeros(VOLUME), spacing))


def test_volumes_are_in_millilitres_and_the_difference_has_a_sign() -> None:
    truth, small = np.zeros((4, 10, 10), bool), np.zeros((4, 10, 10), bool)
    truth[1:3, :, :], small[1, :, :5] = True, True  # 200 and 50 voxels of 10 mm3
    spacing = (10.0, 2.0, 0.5)
    assert value("volume_ml", small, truth, spacing) == pytest.approx(0.5)
    assert value("volume_difference_ml", small, truth, spacing) == pytest.approx(-1.5)
    assert value("volume_difference_ml", truth, small, spacing) == pytest.approx(1.5)


def test_empty_masks_have_a_volume_of_zero() -> None:
    truth, empty = np.ones((2, 10, 10), bool), np.zeros((2, 10, 10), bool)
    spacing = (5.0, 1.0, 1.0)
    assert (value("volume_ml", empty, truth, spacing), value("volume_ml", empty, empty, spacing)) == (0.0, 0.0)
    assert value("volume_difference_ml", empty, truth, spacing) == pytest.approx(-1.0)
    assert value("volume_difference_ml", empty, empty, spacing) == 0.0


@pytest.mark.parametrize("name", VOLUMES)
def test_volumes_are_undefined_for_images_and_without_spacing(name: str) -> None:
    assert math.isnan(value(name, box(2, 2, 6, 6), box(2, 2, 6, 6), (1.0, 1.0)))
    assert math.isnan(value(name, np.ones(VOLUME), np.ones(VOLUME), None))


def test_a_full_size_volume_takes_seconds_at_most() -> None:
    grid = np.ogrid[:48, :128, :128]
    truth, shifted = (
        sum(((axis - at - by) / radius) ** 2 for axis, at, radius in zip(grid, (24, 64, 64), (20, 50, 50), strict=True))
        < 1
        for by in (0, 2)
    )
    started = time.process_time()
    assert 2 < value("hd95", shifted, truth, (2.0, 1.0, 1.0)) < 6
    assert time.process_time() - started < 2


def test_masks_at_the_images_border_have_their_edge_there() -> None:
    full, inner = np.ones(SHAPE, bool), box(1, 1, 19, 23)
    assert value("hausdorff", full, inner) == pytest.approx(math.sqrt(2))
    assert value("hausdorff", full, full) == 0.0


@pytest.mark.parametrize("name", [*ZERO_IF_MISSED, *DISTANCES, "soft_dice", "specificity", "brier"])
def test_a_better_prediction_is_better(name: str) -> None:
    truth = box(4, 4, 14, 14)
    good, bad = value(name, box(5, 4, 15, 14), truth), value(name, box(9, 8, 19, 18), truth)
    assert (good - bad) * direction(name) > 0  # type: ignore[operator]


def test_direction_of_a_metric_nobody_registered_is_unknown() -> None:
    assert direction("dice") == 1
    assert direction("hd95") == -1
    assert direction("no_such_metric") is None


def test_descriptive_metrics_have_no_better_direction() -> None:
    assert [direction(name) for name in VOLUMES] == [None, None]
    assert [unit(name) for name in ("volume_ml", "hd95", "dice", "no_such_metric")] == ["ml", "mm", "", ""]
