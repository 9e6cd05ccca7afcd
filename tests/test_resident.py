"""Samples that live on a device: what is transformed there equals what the CPU's pipeline gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import albumentations as a
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segkit import UserError, intensities, transforms
from segkit.checks.recipe import check_trials
from segkit.components.datasets.case import Case, Dataset
from segkit.components.device_forms import FORMS
from segkit.data.cache import DataCache
from segkit.data.filling import fill
from segkit.data.pipeline import Pipeline
from segkit.data.resident.batches import Resident
from segkit.data.resident.drawing import forms_of
from segkit.data.samples import Samples, assemble
from segkit.data.transform_faults import TransformError
from segkit.recipe.identity import differences, training_identity
from segkit.recipe.model import Recipe
from segkit.study import hardware
from segkit.testing import check
from segkit.training import checkpoint
from segkit.training.run import run_trial
from segkit.training.trial import Limit
from tests import small
from tests.small import kinds, recipe, samples_of, trial

CPU = torch.device("cpu")
SIDE, RADII = 96, (6, 8, 11, 14)
ALWAYS = {"p": 1.0}
SMALL = {"height": 64, "width": 64}
WIDE = {"scale": [0.65, 1.5], "rotate": [-180, 180], **ALWAYS}
Chosen = Sequence[tuple[str, Mapping[str, Any]]]
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("Affine", {**WIDE, "shear": [-10, 10]}),
    ("Affine", {**WIDE, "border_mode": 4, "translate_percent": [-0.1, 0.1]}),
    ("Affine", {**WIDE, "border_mode": 2}),
    ("Affine", {**WIDE, "border_mode": 1}),
    ("Affine", {**WIDE, "interpolation": 0}),
    ("Affine", {**WIDE, "fill": 77}),
    ("Affine", {"scale": [0.3, 0.6], **ALWAYS}),
    ("CenterCrop", {"height": 64, "width": 60}),
    ("Crop", {"x_min": 3, "y_min": 5, "x_max": 80, "y_max": 90}),
    ("D4", {}),
    ("GaussNoise", {"std_range": [0.01, 0.1], **ALWAYS}),
    ("GaussianBlur", {"sigma_limit": [0.5, 2.0], **ALWAYS}),
    ("HorizontalFlip", {}),
    ("Pad", {"padding": [3, 8, 11, 2], **ALWAYS}),
    ("PadIfNeeded", {"min_height": 120, "min_width": 128}),
    ("PadIfNeeded", {"min_height": 120, "min_width": 128, "border_mode": 4}),
    ("RandomBrightnessContrast", ALWAYS),
    ("RandomBrightnessContrast", {"brightness_by_max": False, **ALWAYS}),
    ("RandomCrop", {"height": 64, "width": 80}),
    ("RandomCrop", {"height": 120, "width": 80, "pad_if_needed": True}),
    ("RandomGamma", {"gamma_limit": [50, 150], **ALWAYS}),
    ("RandomResizedCrop", {"size": [64, 64], "scale": [0.5, 1.0]}),
    ("RandomRotate90", ALWAYS),
    ("RandomScale", {"scale_limit": [-0.4, 0.5], **ALWAYS}),
    ("Resize", {"height": 64, "width": 64}),
    ("Resize", {"height": 48, "width": 48}),
    ("Resize", {"height": 150, "width": 130}),
    ("Rotate", {"limit": 180, **ALWAYS}),
    ("Rotate", {"limit": 2, **ALWAYS}),
    ("Rotate", {"limit": 30, "crop_border": True, **ALWAYS}),
    ("SafeRotate", {"limit": 90, **ALWAYS}),
    ("ShiftScaleRotate", ALWAYS),
    ("SquareSymmetry", ALWAYS),
    ("Transpose", {}),
    ("VerticalFlip", {}),
]
SAME = {"GaussNoise"}  # of which only the distribution is the same


def discs(dtype: Any = np.uint8, inputs: int = 1) -> list[Case]:
    """A disc a case, in textured surroundings, each with a ring as another channel."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    cases = []
    for number, radius in enumerate(RADII):
        row, column = np.random.default_rng(number).uniform(34, SIDE - 34, 2)
        distance = np.hypot(rows - row, columns - column)
        disc, ring = distance < radius, (distance >= radius) & (distance < radius + 6)
        image = 60 + 80 * disc + 40 * ring + 30 * np.sin(columns / 9) + 20 * np.cos(rows / 7)
        image = (image * (257 if dtype == np.uint16 else 1)).astype(dtype)
        several = image if inputs == 1 else np.stack([image // (place + 1) for place in range(inputs)])
        cases.append(Case(f"p{number}/0", f"p{number}", several, np.stack([disc, ring]), (1.0, 1.0)))
    return cases


def pair(cases: Sequence[Case], chosen: Chosen, exclusive: bool = False) -> Any:
    """Return samples with transforms, none of them settled, and the same on a device."""
    components = [transforms.component(name, dict(values)) for name, values in chosen]
    samples = dataclasses.replace(samples_of(cases), pipeline=Pipeline(components, exclusive=exclusive))
    return samples, Resident(samples, CPU, exclusive=exclusive)


def both(samples: Samples, resident: Resident, draw: int, index: int) -> tuple[NDArray[Any], ...]:
    """Return image and bit map of the CPU's pipeline, then those of the device."""
    image, bits = assemble(samples, 1, [(draw, index)])
    other, masks = resident.batch(1, [(draw, index)])
    return image[0].astype(float), bits[0], other[0].numpy(), masks[0].numpy()


def centre(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.asarray(np.argwhere(mask).mean(0))


def agree(name: str, values: Mapping[str, Any], draws: int, exclusive: bool) -> None:
    """Compare, over draws of each of several discs, grey levels, overlap and centres."""
    samples, resident = pair(discs(), [(name, values)], exclusive)
    levels, shifts = [], []
    for draw in range(draws):
        for index, radius in enumerate(RADII):
            image, bits, other, masks = both(samples, resident, draw, index)
            assert image.shape == other.shape
            levels.append(np.abs(image - other).mean() if name not in SAME else abs(image.mean() - other.mean()))
            disc, found = bits & 1 > 0, masks & 1 > 0
            if disc.sum() < np.pi * 6**2 or disc[[0, -1]].any() or disc[:, [0, -1]].any():
                continue  # smaller than a radius of 6, or cut off
            overlap = 2 * (disc & found).sum() / (disc.sum() + found.sum())
            assert overlap >= 0.99, (name, draw, radius)
            shifts.append(np.abs(centre(disc) - centre(found)).max())
    assert np.mean(levels) < 1
    assert np.mean(shifts) < 0.005
    assert np.max(shifts) < 0.05


def test_every_form_is_compared() -> None:
    assert {name for name, _ in SETTINGS} == FORMS.keys()


@pytest.mark.parametrize("exclusive", [False, True], ids=["independent", "exclusive"])
@pytest.mark.parametrize(("name", "values"), SETTINGS)
def test_a_transform_gives_what_it_gives_on_the_cpu(name: str, values: dict[str, Any], exclusive: bool) -> None:
    agree(name, values, 8, exclusive)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "values"), SETTINGS)
def test_a_transform_gives_the_same_over_500_draws(name: str, values: dict[str, Any]) -> None:
    agree(name, values, 500 // len(RADII), exclusive=False)


def test_a_run_of_transforms_is_sampled_once_where_they_only_move_pixels() -> None:
    run: Chosen = [
        ("Affine", WIDE),
        ("HorizontalFlip", {}),
        ("RandomCrop", {"height": 80, "width": 72}),
        ("Transpose", {}),
    ]
    samples, resident = pair(discs(), run)
    for draw in range(20):
        image, bits, other, masks = both(samples, resident, draw, draw % len(RADII))
        assert np.abs(image - other).mean() < 1
        assert (bits != masks).sum() <= 1


def test_the_order_of_transforms_is_kept() -> None:
    run: Chosen = [
        ("RandomCrop", {"height": 80, "width": 80}),
        ("Rotate", {"limit": 90, "p": 1.0}),
        ("RandomGamma", {"gamma_limit": [50, 150], "p": 0.5}),
        ("Affine", {"scale": [0.7, 1.4], "rotate": [-30, 30], "fill": 50, "p": 0.8}),
        ("RandomBrightnessContrast", {"p": 0.5}),
        ("GaussianBlur", {"sigma_limit": [0.5, 1.0], "p": 0.5}),
    ]
    samples, resident = pair(discs(), run)
    levels, overlaps = [], []
    for draw in range(30):
        image, bits, other, masks = both(samples, resident, draw, draw % len(RADII))
        levels.append(np.abs(image - other).mean())
        overlaps.append(2 * (bits & masks & 1).sum() / max((bits & 1).sum() + (masks & 1).sum(), 1))
    assert np.mean(levels) < 1.5  # a value is cut to a whole number after each transform there, never here
    assert np.mean(overlaps) > 0.98


@pytest.mark.parametrize(
    "first",
    [
        ("Affine", WIDE),
        ("Affine", WIDE | {"p": 0.5}),
        ("Rotate", {"limit": 5, "p": 0.8}),  # of which only slight ones average masks
    ],
)
def test_a_batch_is_its_members(first: tuple[str, dict[str, Any]]) -> None:
    run: Chosen = [first, ("GaussNoise", {"p": first[1]["p"]}), ("RandomCrop", {"height": 64, "width": 64})]
    _, resident = pair(discs(), run)
    members = [(draw, index) for draw in range(3) for index in range(len(RADII))]
    images, bits = resident.batch(7, members)
    for place, member in enumerate(members):
        image, masks = resident.batch(7, [member])
        assert torch.equal(images[place], image[0])
        assert torch.equal(bits[place], masks[0])
    assert not torch.equal(images, resident.batch(8, members)[0])


def test_noise_has_its_mean_and_deviation() -> None:
    values = {"std_range": [0.1, 0.1], "mean_range": [0.05, 0.05], "p": 1.0}
    cases = [Case("p/0", "p", np.full((200, 200), 128, np.uint8), np.zeros((1, 200, 200), bool), (1.0, 1.0))]
    samples, resident = pair(cases, [("GaussNoise", values)])
    image, _, other, _ = both(samples, resident, 0, 0)
    for found in (image, other):
        assert found.mean() == pytest.approx(128 + 255 * 0.05, abs=0.6)
        assert found.std() == pytest.approx(255 * 0.1, rel=0.02)


@pytest.mark.parametrize("values", [ALWAYS, {"p": 0.5}])
def test_noise_leaves_what_others_draw(values: dict[str, Any]) -> None:
    run = [("GaussNoise", values), ("Rotate", {"limit": 90, "p": 0.5}), ("RandomCrop", {"height": 48, "width": 48})]
    samples, resident = pair(discs(), run)
    for draw in range(12):
        _, bits, _, masks = both(samples, resident, draw, 1)
        assert np.array_equal(bits, masks)


def test_noise_differs_between_transforms_and_samples() -> None:
    noise = ("GaussNoise", {"std_range": [0.1, 0.1], **ALWAYS})
    flat = [Case("p/0", "p", np.full((200, 200), 128, np.uint8), np.zeros((1, 200, 200), bool), (1.0, 1.0))]
    _, resident = pair(flat, [noise, noise])
    found = resident.batch(1, [(0, 0), (1, 0)])[0]
    assert found[0].std().item() == pytest.approx(25.5 * 2**0.5, rel=0.02)
    for other in (found[1], resident.batch(2, [(0, 0)])[0][0]):
        assert abs(np.corrcoef(found[0].ravel(), other.ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("fill", [300, -1000, 12.7])
@pytest.mark.parametrize("name", ["Affine", "Pad"])
def test_a_fill_is_a_level_that_images_may_have(name: str, fill: float) -> None:
    values = {"rotate": [20, 60]} if name == "Affine" else {"padding": 20}
    samples, resident = pair(discs(), [(name, {**values, "fill": fill, **ALWAYS})])
    image, _, other, _ = both(samples, resident, 0, 0)
    assert np.abs(image - other).mean() < 1
    assert image[0, 0] == other[0, 0]


def test_an_affine_map_that_changes_nothing_leaves_the_size() -> None:
    samples, resident = pair(discs(), [("Affine", {"fit_output": True, "translate_px": [9, 9], **ALWAYS})])
    image, bits, other, masks = both(samples, resident, 0, 0)
    assert np.array_equal(image, other)
    assert np.array_equal(bits, masks)


@pytest.mark.parametrize("bits", [8, 32])
def test_images_of_several_inputs_and_of_full_depth(bits: int) -> None:
    made = Dataset("made", ("disc", "ring"), tuple(discs(np.uint16, inputs=2)), inputs=("one", "two"))
    data = fill(made, intensities.component("percentile", {"bits": bits}))
    chosen = [transforms.component(name, dict(values)) for name, values in SETTINGS[:2]]
    chosen.append(transforms.component("RandomGamma", {"gamma_limit": [50, 150], "p": 1.0}))
    samples = dataclasses.replace(Samples.of(data, range(len(RADII)), [], exclusive=False), pipeline=Pipeline(chosen))
    resident = Resident(samples, CPU, exclusive=False)
    top = 255 if bits == 8 else 1
    for draw in range(8):
        image, bits_there, other, masks = both(samples, resident, draw, 2)
        assert image.shape == other.shape == (SIDE, SIDE, 2)
        assert np.abs(image - other).mean() / top < 2 / 255
        assert (bits_there != masks).mean() < 0.01


def test_many_channels_and_overlapping_ones() -> None:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    circles = [np.hypot(rows - 40 - place, columns - 36 - 2 * place) < 20 - place for place in range(10)]
    grey = (20 * np.sum(circles, axis=0)).astype(np.uint8)
    samples, resident = pair([Case("p/0", "p", grey, np.stack(circles), (1.0, 1.0))], SETTINGS[1:2])
    for draw in range(10):
        _, bits, _, masks = both(samples, resident, draw, 0)
        assert bits.dtype == np.uint16
        assert (bits != masks).mean() < 0.001
    assert resident.size == samples.slices.size


def test_masks_get_no_combination_of_channels_that_their_image_lacks() -> None:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    first, second, third = np.hypot(rows - 48, columns - 48) < 30, columns < 48, columns >= 48
    grey = np.full((SIDE, SIDE), 99, np.uint8)
    both_labels = np.stack([first, first & second, first & third])  # 3 and 5, side by side
    alone = np.stack([first, first & False, first & False])  # 1
    cases = [Case(f"{name}/0", name, grey, masks, (1.0, 1.0)) for name, masks in (("a", both_labels), ("b", alone))]
    _, resident = pair(cases, SETTINGS[:1])
    for draw in range(30):
        assert set(np.unique(resident.batch(1, [(draw, 0)])[1].numpy())) <= {0, 3, 5}


def test_slices_of_several_sizes() -> None:
    big = Case("big/0", "big", np.full((120, 100), 9, np.uint8), np.ones((2, 120, 100), bool), (1.0, 1.0))
    for first in ([], [("RandomGamma", {"gamma_limit": [50, 150], "p": 1.0})]):
        samples, resident = pair([*discs(), big], [*first, ("RandomCrop", {"height": 64, "width": 64})])
        members = [(0, 4), (0, 1), (1, 4), (0, 0)]
        expected, found = assemble(samples, 1, members), resident.batch(1, members)
        assert np.abs(expected[0] - found[0].numpy()).mean() < 1
        assert np.array_equal(expected[1], found[1].numpy())
    _, resident = pair([*discs(), big], [("HorizontalFlip", {})])
    with pytest.raises(UserError, match=r"^big/0: 120 x 100 pixels after the transforms, but p1/0, in the same batch"):
        resident.batch(1, [(0, 1), (0, 4)])


@pytest.mark.parametrize(
    "chosen",
    [
        [("HorizontalFlip", {}), ("RandomGamma", {"gamma_limit": [50, 150]})],
        [("RandomScale", {"scale_limit": [-0.3, 0.5], "p": 0.7}), ("RandomBrightnessContrast", {"p": 0.5})],
        [("RandomRotate90", ALWAYS), ("GaussianBlur", {"sigma_limit": [0.5, 2.0]}), ("Transpose", {})],
    ],
    ids=lambda chosen: chosen[0][0],
)
def test_a_batch_is_its_members_whatever_their_sizes_on_the_way(chosen: Chosen) -> None:
    """The sizes are equal only at the end; a patient's pixels stay out of those of others."""
    sizes = [(96, 128), (128, 96), (100, 100), (140, 90)]
    cases = [
        Case(f"p{number}/0", f"p{number}", _noise(size, number), np.ones((1, *size), bool), (1.0, 1.0))
        for number, size in enumerate(sizes)
    ]
    _, resident = pair(cases, [*chosen, ("RandomCrop", {"height": 60, "width": 60})])
    members = [(draw, index) for draw in range(4) for index in (1, 0, 3, 2)]
    images, bits = resident.batch(5, members)
    for place, member in enumerate(members):
        image, masks = resident.batch(5, [member])
        assert torch.equal(images[place], image[0])
        assert torch.equal(bits[place], masks[0])


def _noise(size: tuple[int, int], level: int) -> NDArray[np.uint8]:
    """An image of noise around a level of its own."""
    return np.random.default_rng(level).integers(60 * level, 60 * level + 20, size).astype(np.uint8)


@pytest.mark.parametrize(
    ("chosen", "most"),
    [
        ([("Affine", {"interpolation": 0, "p": 0.0}), ("Rotate", {"limit": 45, **ALWAYS})], 1.0),
        ([("Affine", {"interpolation": 0, **WIDE}), ("Rotate", {"limit": 45, **ALWAYS})], 1.0),
        ([("RandomScale", {"scale_limit": [-0.6, -0.4], **ALWAYS}), ("Resize", {"height": 96, "width": 96})], 1.0),
        ([("RandomResizedCrop", {"size": [96, 96], "scale": [0.01, 0.05]})], 1.0),
    ],
)
def test_noise_is_sampled_as_on_the_cpu(chosen: Chosen, most: float) -> None:
    """Whatever is averaged, rounded or read from beyond a crop shows in noise."""
    random = np.random.default_rng(0)
    mask = np.zeros((1, 96, 96), bool)
    mask[0, 30:70, 20:60] = True
    cases = [Case("p/0", "p", random.integers(0, 256, (96, 96)).astype(np.uint8), mask, (1.0, 1.0))]
    samples, resident = pair(cases, chosen)
    for draw in range(12):
        image, bits, other, masks = both(samples, resident, draw, 0)
        assert np.abs(image - other).mean() < most
        assert 2 * (bits & masks).sum() >= 0.98 * (bits.sum() + masks.sum())


@pytest.mark.parametrize(
    "then", [("PadIfNeeded", {"min_height": 64, "min_width": 64}), ("Rotate", {"limit": 45, **ALWAYS})]
)
def test_foreground_that_was_cut_off_does_not_come_back(then: tuple[str, Any]) -> None:
    _, resident = pair(discs(), [("RandomCrop", {"height": 24, "width": 24}), then])
    assert all(resident.batch(1, [(-draw, 0)])[1].any() for draw in range(1, 60))


def test_samples_that_repeat_live_on_the_device_once() -> None:
    samples, resident = pair(discs(), [("HorizontalFlip", {})])
    repeated = dataclasses.replace(
        samples,
        numbers=[*samples.numbers, *samples.numbers[1:]],
        names=[*samples.names, *samples.names[1:]],
        labelled=[*samples.labelled, *samples.labelled[1:]],
    )
    there = Resident(repeated, CPU, exclusive=False)
    assert there.size == resident.size
    expected, found = assemble(repeated, 1, [(0, 5), (0, 3)]), there.batch(1, [(0, 5), (0, 3)])
    assert np.array_equal(expected[0], found[0].numpy())


def test_without_transforms_and_without_foreground() -> None:
    empty = Case("p/0", "p", np.full((40, 40), 9, np.uint8), np.zeros((1, 40, 40), bool), (1.0, 1.0))
    for chosen in ([], SETTINGS[:1]):
        samples, resident = pair([empty], chosen)
        _, bits, other, masks = both(samples, resident, 0, 0)
        assert other.shape == (40, 40)
        assert np.array_equal(bits, masks)


def test_crops_show_foreground_where_they_have_to() -> None:
    samples, resident = pair(discs(), [("RandomCrop", {"height": 24, "width": 24})])
    without = sum(not assemble(samples, 1, [(draw, 0)])[1].any() for draw in range(1, 60))
    assert without > 10
    for draw in range(1, 60):
        expected, found = assemble(samples, 1, [(-draw, 0)]), resident.batch(1, [(-draw, 0)])
        assert np.array_equal(expected[1], found[1].numpy())
        assert found[1].any()


@pytest.mark.parametrize(
    "chosen",
    [
        [("RandomResizedCrop", {"size": [32, 32], "scale": [0.3, 1.0]})],
        [("Affine", {"scale": [0.3, 0.6], "border_mode": 4, **ALWAYS}), ("RandomCrop", {"height": 32, "width": 32})],
        [("GaussNoise", {}), ("Rotate", {"limit": 45}), ("RandomCrop", {"height": 24, "width": 24})],
    ],
)
def test_a_structure_that_may_vanish_is_looked_for_as_on_the_cpu(chosen: Chosen) -> None:
    mask = np.zeros((2, SIDE, SIDE), bool)
    mask[0, 40:42, 50:52], mask[1, 20, 30:35] = True, True
    samples, resident = pair([Case("p/0", "p", discs()[0].image, mask, (1.0, 1.0))], chosen)
    for draw in range(1, 40):
        expected, found = assemble(samples, 1, [(-draw, 0)])[1], resident.batch(1, [(-draw, 0)])[1]
        assert np.array_equal(expected > 0, found.numpy() > 0)


@pytest.mark.parametrize(
    ("chosen", "lacking"),
    [
        ([("GridDistortion", {}), ("HorizontalFlip", {}), ("Downscale", {})], "GridDistortion, Downscale"),
        ([("Affine", {"interpolation": 2})], "Affine with interpolation = 2"),
        ([("Affine", {"border_mode": 3})], "Affine with border_mode = 3"),
        ([("Affine", {"fill": [7.0]})], "Affine with fill = (7.0,)"),  # of the first input; the others get 0
        ([("Affine", {"fill": [0.0, 0.0]})], ""),
        ([("Resize", {"height": 9, "width": 9, "interpolation": 0})], "Resize with interpolation = 0"),
        ([("RandomScale", {"area_for_downscale": "image"})], 'RandomScale with area_for_downscale = "image"'),
        ([("GaussNoise", {"noise_scale_factor": 0.5})], "GaussNoise with noise_scale_factor = 0.5"),
        ([("OneOf", {"transforms": [{"HorizontalFlip": {}}]})], "OneOf"),
        ([("RandomCrop", {"height": 9, "width": 9})], ""),
    ],
)
def test_what_has_no_device_form_is_named(chosen: Any, lacking: str) -> None:
    components = [transforms.component(name, values) for name, values in chosen]
    assert ", ".join(forms_of(Pipeline(components))[1]) == lacking


class Shade(a.ImageOnlyTransform):  # type: ignore[misc]
    """Darkens by a drawn share."""

    def get_params(self) -> dict[str, Any]:
        return {"share": self.py_random.uniform(0.2, 0.8)}

    def apply(self, img: NDArray[Any], share: float, **params: Any) -> NDArray[Any]:
        return (img * share).astype(img.dtype)


class Tint(a.ImageOnlyTransform):  # type: ignore[misc]
    """Darkens each input by a share of its own."""

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        return {"share": self.random_generator.uniform(0.2, 0.8, params["shape"][2:] or 1)}

    def apply(self, img: NDArray[Any], share: NDArray[Any], **params: Any) -> NDArray[Any]:
        made: NDArray[Any] = (img * share).astype(img.dtype)
        return made


class Shift(a.DualTransform):  # type: ignore[misc]
    """Shifts to the right, around the border."""

    def get_params(self) -> dict[str, Any]:
        return {"by": self.py_random.randint(1, 9)}

    def apply(self, img: NDArray[Any], by: int, **params: Any) -> NDArray[Any]:
        return np.pad(img, ((0, 0), (by, 0)))[:, : img.shape[1]]


def darker(images: torch.Tensor, top: float, *, share: torch.Tensor) -> torch.Tensor:
    return images * share


def shifted(transform: Any, size: tuple[int, int], drawn: dict[str, Any]) -> Any:
    return np.array([[1, 0, -drawn["by"]], [0, 1, 0], [0, 0, 1]]), size


def tinted(images: torch.Tensor, top: float, *, share: torch.Tensor) -> torch.Tensor:
    return images * share[:, None, None, :]


def test_a_plugin_draws_for_images_as_they_are() -> None:
    before = transforms.snapshot()
    try:
        transforms.register("own", on_device=tinted)(Tint)
        made = Dataset("made", ("disc", "ring"), tuple(discs(inputs=3)), inputs=("one", "two", "three"))
        chosen = [transforms.component("own", {"p": 1.0}), transforms.component("RandomCrop", SMALL)]
        given = Samples.of(fill(made, intensities.component("percentile")), range(4), [], exclusive=False)
        samples = dataclasses.replace(given, pipeline=Pipeline(chosen))
        resident = Resident(samples, CPU, exclusive=False)
        for draw in range(8):
            image, bits, other, masks = both(samples, resident, draw, 1)
            assert np.abs(image - other).mean() < 1
            assert np.array_equal(bits, masks)
        assert not [finding for finding in check(transforms["own"], {"p": 1.0}) if finding.kind == "fault"]
    finally:
        transforms.restore(before)


@pytest.mark.parametrize(("made", "form"), [(Shade, darker), (Shift, shifted)])
def test_a_plugin_states_a_device_form(made: Any, form: Any) -> None:
    before = transforms.snapshot()
    try:
        transforms.register("own", on_device=form)(made)
        transforms.register("other")(made)
        samples, resident = pair(discs(), [("own", {"p": 1.0})])
        for draw in range(8):
            image, bits, other, masks = both(samples, resident, draw, 1)
            assert np.abs(image - other).mean() < 1
            assert np.array_equal(bits, masks)
        assert forms_of(Pipeline([transforms.component("other", {})]))[1] == ["other"]
    finally:
        transforms.restore(before)


def test_a_plugin_may_write_into_its_masks() -> None:
    """Into those that are looked at for foreground too, which are not the ones in the cache."""

    class Cut(Shift):
        def apply_to_mask(self, mask: NDArray[Any], by: int, **params: Any) -> NDArray[Any]:
            mask[:, by:] = mask[:, :-by].copy()
            mask[:, :by] = 0
            return mask

    before = transforms.snapshot()
    try:
        transforms.register("own", on_device=shifted)(Cut)
        samples, resident = pair(discs(), [("own", {"p": 1.0})])
        expected, found = assemble(samples, 1, [(-1, 1)])[1], resident.batch(1, [(-1, 1)])[1]
        assert np.array_equal(expected, found.numpy())
        assert not [finding for finding in check(transforms["own"], {"p": 1.0}) if finding.kind == "fault"]
    finally:
        transforms.restore(before)


def test_a_setting_without_a_device_form_is_a_note_on_a_plugin() -> None:
    class Framed(Shift):
        border_mode = 3

    before = transforms.snapshot()
    try:
        transforms.register("own", on_device=shifted)(Framed)
        found = {finding.text: finding.kind for finding in check(transforms["own"], {"p": 1.0})}
    finally:
        transforms.restore(before)
    assert [kind for text, kind in found.items() if "own with border_mode = 3: `on_device` does" in text] == ["note"]


def broken(images: torch.Tensor, top: float, *, share: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no more")


def narrow(images: torch.Tensor, top: float, *, share: torch.Tensor) -> torch.Tensor:
    return images[:, :, :5]


def flat(transform: Any, size: tuple[int, int], drawn: dict[str, Any]) -> Any:
    return np.eye(2), size


def leaning(transform: Any, size: tuple[int, int], drawn: dict[str, Any]) -> Any:
    return np.array([[1, 0, 0], [0, 1, 0], [0.001, 0, 1]]), size


def squashed(transform: Any, size: tuple[int, int], drawn: dict[str, Any]) -> Any:
    return np.diag([1.0, 0, 1]), size


def unknown(images: torch.Tensor, top: float, *, shadow: torch.Tensor) -> torch.Tensor:
    return images


def empty(transform: Any, size: tuple[int, int], drawn: dict[str, Any]) -> Any:
    return np.eye(3), (size[0], 0)


@pytest.mark.parametrize(
    ("made", "form", "text"),
    [
        (Shade, broken, r"transform own \(\S*test_resident.py:\d+\): no more"),
        (
            Shade,
            narrow,
            r"transform own \(.*`on_device` must return images as it gets them, \(1, 96, .*got \(1, ",
        ),
        (Shift, flat, r"p1/0: transform own \(.*`on_device` must return a finite matrix \(3, 3\), got \[\["),
        (Shift, leaning, r"p1/0: transform own \(.*the last row of a matrix must be \(0, 0, 1\), got \[0.001, "),
        (Shift, squashed, r"p1/0: transform own \(.*makes a line or a point of the image"),
        (Shade, unknown, r"transform own \(.*`on_device` takes 'shadow', which is not always drawn"),
        (Shift, empty, r"p1/0: transform own \(.*leaves an image of 96 x 0 pixels"),
    ],
)
def test_a_device_form_that_fails_is_named(made: Any, form: Any, text: str) -> None:
    before = transforms.snapshot()
    try:
        transforms.register("own", on_device=form)(made)
        _, resident = pair(discs(), [("own", {"p": 1.0})])
        with pytest.raises(TransformError, match=text):
            resident.batch(1, [(0, 1)])
    finally:
        transforms.restore(before)


@pytest.mark.parametrize(
    ("name", "values", "text"),
    [
        ("RandomCrop", {"height": 200, "width": 20}, "p1/0: transform RandomCrop: .*Put PadIfNeeded before it"),
        (
            "Crop",
            {"x_max": 200, "y_max": 20},
            "p1/0: transform Crop: the crop ends in row 20, column 200, ",
        ),
    ],
)
def test_a_transform_that_fails_is_named_with_its_sample(name: str, values: dict[str, Any], text: str) -> None:
    _, resident = pair(discs(), [(name, values)])
    with pytest.raises(TransformError, match=text):
        resident.batch(1, [(0, 1)])


def test_levels_below_0_are_kept() -> None:
    made, before = Dataset("made", ("disc", "ring"), tuple(discs())), transforms.snapshot()
    data = fill(made, intensities.component("zscore"))
    try:
        transforms.register("own", on_device=darker)(Shade)
        pipeline = Pipeline([transforms.component("own", {"p": 1.0}), transforms.component("Rotate", {"p": 1.0})])
        samples = dataclasses.replace(Samples.of(data, range(len(RADII)), [], exclusive=False), pipeline=pipeline)
        image, _, other, _ = both(samples, Resident(samples, CPU, exclusive=False), 1, 1)
    finally:
        transforms.restore(before)
    assert other.min() < -0.2
    assert np.abs(image - other).mean() < 0.01


def wrong(images: torch.Tensor, top: float, *, share: torch.Tensor) -> torch.Tensor:
    return images * (1 - share)


def mixed(images: torch.Tensor, top: float, *, share: torch.Tensor) -> torch.Tensor:
    return images * share.mean()


def first(images: torch.Tensor, top: float, *, share: torch.Tensor) -> torch.Tensor:
    return images * share[:, None, None, :1]


def smaller(transform: Any, size: tuple[int, int], drawn: dict[str, Any]) -> Any:
    return np.eye(3), (size[0] - 1, size[1])


def failing(images: torch.Tensor, top: float, *, shade: torch.Tensor) -> torch.Tensor:
    return images


@pytest.mark.parametrize(
    ("made", "form", "text"),
    [
        (Shade, darker, ""),
        (Shade, wrong, "`on_device` gives other images or masks than the transform: grey levels differ by"),
        (Shade, mixed, "`on_device` gives a sample another image if others are in its batch"),
        (Tint, first, "`on_device` gives other images of 3 inputs or masks than the transform: grey levels differ"),
        (Shift, smaller, "`on_device` gives images (79, 96), the transform (80, 96)."),
        (Shade, failing, "applied by its `on_device`: `on_device` takes 'shade', which is not always drawn."),
    ],
)
def test_checking_a_transform_compares_its_device_form(made: Any, form: Any, text: str) -> None:
    before = transforms.snapshot()
    try:
        transforms.register("own", on_device=form)(made)
        faults = [finding.text for finding in check(transforms["own"], {"p": 1.0}) if finding.kind == "fault"]
    finally:
        transforms.restore(before)
    assert len(faults) == bool(text), faults
    assert text in "".join(faults)


def test_a_training_says_where_samples_are_transformed(tmp_path: Path) -> None:
    def told(*sets: str, **options: Any) -> list[str]:
        events = small.train(tmp_path / str(len(list(tmp_path.iterdir()))), "train.device=cpu", *sets, **options)
        assert kinds(events)[-1] == "finished"
        return [event.text for event in events if event.text.startswith("samples")]

    assert told() == []
    assert told(limit=Limit(batches=1)) == ["samples: a GPU could transform them (train.resident)"]
    assert told("train.resident=true") == ["samples: 0.0 MiB live on the device, and are transformed there"]
    grid = "transforms.train=[{GridDistortion={}}]"
    assert told("train.resident=true", grid) == [
        "samples: transformed on the CPU, since GridDistortion has no device form"
    ]


def test_a_training_on_the_device_resumes_to_the_bit(tmp_path: Path) -> None:
    made = recipe("train.device=cpu", "train.resident=true", "train.epochs=4")
    whole, halves = (trial(tmp_path / name, made) for name in ("whole", "halves"))
    list(run_trial(whole, stop=lambda: False))
    events = []
    for _ in range(3):
        steps = iter(range(100))
        events = list(run_trial(halves, stop=lambda steps=steps: next(steps) > 4))  # type: ignore[misc]
    assert events[-1].kind == "finished"
    one, other = (checkpoint.load(made.path / "last.safetensors").weights for made in (whole, halves))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_training_ends_alike_wherever_its_samples_are_transformed(tmp_path: Path, device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    whole_pixels = "transforms.train=[{D4={}},{RandomCrop={height=24,width=24}}]"  # none of which are interpolated
    found = []
    for resident in ("true", "false"):
        sets = (f"train.device={device}", f"train.resident={resident}", "train.deterministic=true", whole_pixels)
        assert kinds(small.train(tmp_path / resident, *sets))[-1] == "finished"
        found.append(checkpoint.load(tmp_path / resident / "only/seed-1/last.safetensors").weights)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


class Card:
    """A place with a GPU of so many bytes."""

    def __init__(self, memory: int | None) -> None:
        self._memory = memory

    def resolve(self, device: str, precision: str) -> tuple[str, str]:
        return "cuda", "bf16"

    def memory(self, device: str) -> int | None:
        return self._memory

    def jobs(self, *given: Any) -> tuple[int, int]:
        return 1, 1

    def share(self, at_a_time: int, device: str) -> float:
        return 1.0

    execute: Any = None


@pytest.mark.parametrize(
    ("memory", "asked", "known", "expected"),
    [
        (None, "auto", {}, False),
        (1 << 30, "auto", {}, True),
        (90_000, "auto", {}, False),  # the discs take 24 KiB
        (90_000, "auto", {"resident": True}, True),
        (1 << 30, "auto", {"resident": False}, False),
        (1 << 30, "false", {}, False),
        (None, "true", {}, True),
    ],
)
def test_auto_is_decided_by_size_once_a_study(
    tmp_path: Path, memory: int | None, asked: str, known: dict[str, Any], expected: bool
) -> None:
    made = recipe(f"train.resident={asked}", "train.device=auto")
    planned = [dataclasses.replace(trial(tmp_path, made), recipe=made)]
    found, settled, _ = hardware.resolve_study(made, planned, known, "auto", Card(memory), DataCache(), mix=False)
    assert found.train.resident is settled[0].recipe.train.resident is expected


def test_auto_goes_by_the_samples_as_they_would_live_there(tmp_path: Path) -> None:
    """They are as the leading transforms without randomness leave them."""
    for side, expected in ((32, True), (256, False)):
        first = f"transforms.train=[{{Resize={{height={side},width={side}}}}},{{HorizontalFlip={{}}}}]"
        made = recipe("train.device=auto", first)
        planned = [dataclasses.replace(trial(tmp_path, made), recipe=made)]
        found, _, _ = hardware.resolve_study(made, planned, {}, "auto", Card(1 << 20), DataCache(), mix=False)
        assert found.train.resident is expected


def test_a_check_trains_where_samples_would_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolved(recipes: Sequence[Recipe], cache: DataCache) -> list[Recipe]:
        return [made.model_copy(update={"train": made.train.model_copy(update={"resident": True})}) for made in recipes]

    monkeypatch.setattr("segkit.checks.recipe.resolve_alone", resolved)
    ((_, findings, log),) = check_trials([trial(tmp_path, recipe())])
    assert not findings
    assert any("live on the device, and are transformed there" in line for line in log)


def test_only_a_lack_of_memory_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: Any, **options: Any) -> Any:
        raise RuntimeError("something else")

    monkeypatch.setattr("segkit.training.feed.Resident", broken)
    events = small.train(tmp_path, "train.resident=true")
    assert events[-1].text.startswith("RuntimeError: something else.")


def test_a_recipe_is_checked_as_it_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = [recipe("train.device=auto"), recipe("train.device=auto", "train.resident=false")]
    monkeypatch.setattr("segkit.study.hardware.Local", lambda: Card(1 << 30))
    assert [made.train.resident for made in hardware.resolve_alone(recipes, DataCache())] == [True, False]
    monkeypatch.setattr("segkit.study.hardware.Local", lambda: Card(90_000))
    assert [made.train.resident for made in hardware.resolve_alone(recipes, DataCache())] == [False, False]


def test_trials_of_before_are_the_same_ones() -> None:
    plain, resident = (recipe(f"train.resident={value}") for value in ("false", "true"))
    old = plain.dump()
    del old["train"]["resident"]
    assert training_identity(plain) == training_identity(recipe()) != training_identity(resident)
    assert differences(old, plain.dump()) == {}
    assert differences(old, resident.dump()) == {"train.resident": "was not set, is now True"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
@pytest.mark.parametrize(("name", "values"), SETTINGS)
def test_a_gpu_gives_what_the_cpu_gives_and_nothing_waits_for_it(name: str, values: dict[str, Any]) -> None:
    samples, here = pair(discs(), [(name, values)])
    there = Resident(samples, torch.device("cuda"), exclusive=False)
    for index in range(len(RADII)):  # a batch each: some transforms give other sizes every time
        try:
            torch.cuda.set_sync_debug_mode("error")
            images, bits = there.batch(1, [(0, index)])
        finally:
            torch.cuda.set_sync_debug_mode("default")
        expected, masks = here.batch(1, [(0, index)])
        if name not in SAME:  # of which the device draws noise of its own
            assert (images.cpu() - expected).abs().mean() < 0.01
        assert (bits.cpu() != masks).float().mean() < 0.001
