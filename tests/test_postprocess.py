"""Postprocess: parts and holes of images and volumes, sizes in their units, exclusive classes, plugins' mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import segkit
from segkit.components.postprocess import applied
from segkit.evaluation.masks import decide, postprocessed
from segkit.plugins import isolated
from segkit.registry.component import Component
from segkit.registry.faults import ComponentError

Masks = NDArray[np.bool_]


def drawn(*lines: str) -> Masks:
    """Return the masks (C, H, W) of a drawing: "1" is of the first, "2" of the second, "3" of both."""
    values = np.array([[int(letter) for letter in line] for line in lines])
    return np.stack([values & 1, values & 2]) > 0


def after(masks: Masks, *chosen: tuple[str, dict[str, Any]], exclusive: bool = False, spacing: Any = None) -> Masks:
    components = [segkit.postprocessors.component(*each) for each in chosen]
    return postprocessed(masks, ("wall", "cavity"), components, spacing, exclusive=exclusive)


def test_the_largest_part_of_each_structure_stays() -> None:
    before = drawn("1100020", "1100200", "0010000", "1000220", "1000222")
    kept = drawn("1100000", "1100000", "0010000", "0000220", "0000222")
    assert (after(before, ("largest_part", {})) == kept).all(), "corners connect"
    only = after(before, ("largest_part", {"channels": ["cavity"]}))
    assert (only == np.stack([before[0], kept[1]])).all()
    assert not after(np.zeros((2, 3, 3), bool), ("largest_part", {})).any()


def test_parts_of_a_volume_go_through_slices() -> None:
    masks = np.zeros((1, 3, 6, 6), bool)
    masks[0, 0, 0:2, 0:2] = masks[0, 1, 2, 2] = masks[0, 2, 3:5, 3] = True  # joined by corners: 7 voxels
    masks[0, :, 5, 0] = masks[0, 0, 5, 1:4] = True  # 6 voxels, of which 4 in one slice
    found = postprocessed(masks, ("a",), [segkit.postprocessors.component("largest_part")], None, exclusive=False)
    assert (found.sum(), found[0, 1, 2, 2], found[0, 0, 5, 0]) == (7, True, False)


def test_holes_are_filled_in_space_or_in_each_slice() -> None:
    ring = drawn("0000000", "0111110", "0100010", "0102010", "0111110")
    assert after(ring, ("fill_holes", {}))[0].sum() == 20
    masks = np.repeat(ring[:, None], 3, axis=1)  # a tunnel
    assert (after(masks, ("fill_holes", {})) == masks).all()
    assert after(masks, ("fill_holes", {"per_slice": True}))[0].sum() == 60
    masks[0, ::2, 1:5, 1:6] = True  # closed by the outer slices
    assert after(masks, ("fill_holes", {}))[0].sum() == 60


@pytest.mark.parametrize(
    "size, unit, shape, spacing, kept",
    [
        (4, "pixels", (9, 9), None, 4),
        (4.5, "pixels", (9, 9), None, 0),
        (1.0, "mm2", (9, 9), (0.5, 0.5), 4),
        (1.01, "mm2", (9, 9), (0.5, 0.5), 0),
        (0.04, "ml", (1, 9, 9), (10.0, 1.0, 1.0), 4),
        (0.0401, "ml", (1, 9, 9), (10.0, 1.0, 1.0), 0),
    ],
)
def test_small_parts_go(size: float, unit: str, shape: tuple[int, ...], spacing: Any, kept: int) -> None:
    masks = np.zeros((2, *shape), bool)
    masks[0, ..., 1:3, 1:3] = masks[0, ..., 5, 5:8] = True
    found = after(masks, ("remove_small", {"size": size, "unit": unit}), spacing=spacing)
    assert found.sum() == kept


@pytest.mark.parametrize(
    "chosen, shape, spacing, message",
    [
        (
            ("remove_small", {"size": 1, "unit": "ml"}),
            (9, 9),
            (1.0, 1.0),
            r'the cases are images.*set "mm2" or "pixels"',
        ),
        (("remove_small", {"size": 1, "unit": "mm2"}), (2, 9, 9), None, r'the cases are volumes.*set "ml" or "pixels"'),
        (("remove_small", {"size": 1, "unit": "mm2"}), (9, 9), None, 'the data state no spacing.*set "pixels"'),
        (
            ("fill_holes", {"channels": ["cavty"]}),
            (9, 9),
            None,
            "no structure is called 'cavty'. Did you mean 'cavity'",
        ),
    ],
)
def test_what_a_case_does_not_have_is_said(chosen: Any, shape: Any, spacing: Any, message: str) -> None:
    with pytest.raises(ComponentError, match=f"^postprocess.{chosen[0]}: .*{message}"):
        after(np.zeros((2, *shape), bool), chosen, spacing=spacing)


def test_exclusive_classes_stay_apart() -> None:
    before = drawn("1111", "1201", "1001", "1111")
    assert after(before, ("fill_holes", {}))[0].all()
    filled = after(before, ("fill_holes", {}), exclusive=True)
    assert (filled == drawn("1111", "1211", "1111", "1111")).all()
    both = segkit.postprocessors.component("fill_holes")
    rings = drawn("111222", "101202", "111222")
    assert (postprocessed(rings, ("a", "b"), [both], None, exclusive=True) == drawn("111222", "111222", "111222")).all()


def test_masks_are_decided_of_a_mean_and_then_postprocessed_in_order() -> None:
    chance = np.full((3, 4, 4), 0.2, np.float32)
    chance[0] = 0.45  # the background
    chance[1, :2, :2] = chance[2, 3, 3] = 0.5
    chosen = [segkit.postprocessors.component("remove_small", {"size": 2, "unit": "pixels"})]
    found = decide(chance, ("wall", "cavity"), exclusive=True, postprocess=chosen)
    assert (found == drawn("1100", "1100", "0000", "0000")).all()
    assert (decide(chance[1:], ("wall", "cavity"), exclusive=False)[1] == (chance[2] >= 0.5)).all()
    ring = np.pad(np.ones((1, 3, 3), bool), ((0, 0), (1, 1), (1, 1)))
    ring[0, 2, 2] = False
    steps = [
        segkit.postprocessors.component(*each)
        for each in (("fill_holes", {}), ("remove_small", {"size": 9, "unit": "pixels"}))
    ]
    assert [postprocessed(ring, ("a",), order, None, exclusive=False).sum() for order in (steps, steps[::-1])] == [9, 0]


def _writes(masks: Any, spacing_mm: Any, names: Any) -> Any:
    masks[0, 0] = True
    return masks


@pytest.mark.parametrize(
    "made, message",
    [
        (lambda masks: 3.0, "must return an array of masks, got float"),
        (lambda masks: None, "got NoneType: is a `return` missing"),
        (lambda masks: masks[0], r"must return masks like those that it is given, bool \(2, 4, 4\), got bool \(4, 4\)"),
        (lambda masks: masks * 1.0, r"got float64 \(2, 4, 4\)"),
        (lambda masks: 1 / 0, "ZeroDivisionError"),
        (_writes, "read-only"),
    ],
)
def test_a_plugin_that_breaks_its_contract_is_named(made: Any, message: str) -> None:
    def broken(masks: Any, spacing_mm: Any, names: Any) -> Any:
        return made(masks, spacing_mm, names) if made is _writes else made(masks)

    with isolated():
        segkit.postprocessors.register("broken")(broken)
        chosen: Component = segkit.postprocessors.component("broken")
        with pytest.raises(ComponentError, match=rf"postprocess.broken \(.*test_postprocess.py:\d+\): .*{message}"):
            applied(chosen, np.zeros((2, 4, 4), bool), None, ("wall", "cavity"))
