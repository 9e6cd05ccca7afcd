from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segkit.evaluation.overlay import PREDICTION_RGB, TRUTH_RGB, draw_overlay, picture_name, shown_slice


def box(top: int, left: int, bottom: int, right: int) -> NDArray[np.bool_]:
    mask = np.zeros((1, 40, 50), bool)
    mask[:, top:bottom, left:right] = True
    return mask


def where(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (picture == colour).all(axis=-1)
    return found


def test_the_image_is_twice_its_size_and_grey_away_from_the_outlines() -> None:
    image = np.full((40, 50), 77, np.uint8)
    picture = draw_overlay(image, box(10, 10, 20, 20), box(12, 12, 22, 22))
    assert picture.shape == (80, 100, 3)
    assert picture.dtype == np.uint8
    grey = ~where(picture, TRUTH_RGB) & ~where(picture, PREDICTION_RGB)
    assert (picture[grey] == 77).all()
    assert grey[22:38, 26:38].any()  # the inside is not covered
    assert grey.mean() > 0.9


def test_truth_is_a_closed_line_and_prediction_is_dashed() -> None:
    image, mask, nothing = np.zeros((40, 50), np.uint8), box(10, 10, 20, 20), box(0, 0, 0, 0)
    truth = where(draw_overlay(image, mask, nothing), TRUTH_RGB)
    prediction = where(draw_overlay(image, nothing, mask), PREDICTION_RGB)
    assert truth.sum() == 4 * 20 - 4
    assert truth[20, 20:40].all()
    assert 0.4 < prediction.sum() / truth.sum() < 0.6
    assert not (prediction & ~truth).any()


def test_holes_and_every_channel_are_outlined() -> None:
    ring = box(5, 5, 25, 25)
    ring[:, 10:20, 10:20] = False
    both = np.concatenate([ring, box(30, 30, 35, 45)])
    truth = where(draw_overlay(np.zeros((40, 50), np.uint8), both, np.zeros_like(both)), TRUTH_RGB)
    assert truth[19:21, 25].any()  # the hole's upper border
    assert truth[60, 65]


def test_agreement_shows_both_colours() -> None:
    mask = box(10, 10, 30, 30)
    picture = draw_overlay(np.zeros((40, 50), np.uint8), mask, mask)
    assert where(picture, TRUTH_RGB).any()
    assert where(picture, PREDICTION_RGB).any()


def test_a_case_of_any_name_has_a_picture_of_its_own() -> None:
    assert picture_name("patient01/ed-01") == "patient01__ed-01.png"
    alike = ["a/b", "a__b", "a_/b", "a/_b", "a___b", "a/b__c", "a__b/c", "a/b/c", "a__b__c", "a//b"]
    assert len({picture_name(case) for case in alike}) == len(alike)
    names = [picture_name(f"{'学' * 300}/{number}") for number in range(3)]
    assert len(set(names)) == 3
    assert all(len(name.encode()) < 230 and name.startswith("学") for name in names)


def test_the_shown_slice_of_a_volume_does_not_depend_on_the_variant() -> None:
    truth, prediction = np.zeros((2, 2, 5, 6, 7), bool)
    assert shown_slice(truth, prediction) == 2
    prediction[:, 4] = True
    assert shown_slice(truth, prediction) == 4
    truth[1, 1, :2, :2] = True
    assert shown_slice(truth, prediction) == shown_slice(truth, np.zeros_like(truth)) == 1
