"""Resampling of masks: they stay with their image, keep thin walls, and open neither gaps nor overlaps."""

from __future__ import annotations

import inspect
from typing import Any

import albumentations
import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segkit import datasets, transforms
from segkit.data.fitting import Kind, unfit
from segkit.data.pipeline import Pipeline
from segkit.data.store import pack_masks

SIZES = ((160, 172), (161, 175), (173, 160), (200, 159))
DARK, BRIGHT = 40, 220
BOUND = 0.05  # pixels
SCALINGS: list[tuple[str, dict[str, Any]]] = [
    ("Resize", {"height": 80, "width": 86}),
    ("Resize", {"height": 59, "width": 64}),
    ("Resize", {"height": 240, "width": 261}),
    ("Resize", {"height": 80, "width": 260}),
    ("Resize", {"height": 80, "width": 86, "interpolation": cv2.INTER_NEAREST}),
    ("Resize", {"height": 77, "width": 86, "interpolation": cv2.INTER_NEAREST_EXACT}),
    ("Resize", {"height": 70, "width": 240, "interpolation": cv2.INTER_AREA}),
    ("Resize", {"height": 225, "width": 220, "interpolation": cv2.INTER_AREA}),
    ("Resize", {"height": 70, "width": 83, "interpolation": cv2.INTER_CUBIC}),
    ("Resize", {"height": 70, "width": 240, "area_for_downscale": "image"}),
    ("LongestMaxSize", {"max_size": 86}),
    ("LongestMaxSize", {"max_size": 300}),
    ("SmallestMaxSize", {"max_size": 95}),
    ("RandomScale", {"scale_limit": [-0.5, -0.5]}),
    ("RandomScale", {"scale_limit": [-0.63, -0.63]}),
    ("RandomScale", {"scale_limit": [0.5, 0.5]}),
    ("RandomScale", {"scale_limit": [-0.5, 0.5]}),
    ("RandomResizedCrop", {"size": [100, 91], "scale": [0.7, 1.0]}),
    ("RandomSizedCrop", {"size": [75, 80], "min_max_height": [120, 159]}),
    ("CropAndPad", {"px": [-4, 30, -2, 13]}),
    ("CropAndPad", {"px": [-4, 30, -2, 13], "keep_size": False}),
    ("Affine", {"scale": 0.5}),
    ("Affine", {"scale": [0.5, 0.5], "fit_output": True}),
    ("Affine", {"scale": [0.37, 0.37], "border_mode": cv2.BORDER_REFLECT_101}),
    ("Affine", {"scale": [1.5, 1.5]}),
    ("Affine", {"scale": [0.6, 1.2], "rotate": [-90, 90], "shear": [-10, 10], "translate_percent": [-0.1, 0.1]}),
    ("Affine", {"scale": [0.5, 0.5], "interpolation": cv2.INTER_NEAREST}),
    ("Downscale", {"scale_range": [0.5, 0.5]}),
    ("Downscale", {"scale_range": [0.4, 0.6], "interpolation_pair": {"downscale": 0, "upscale": 1}}),
    ("Downscale", {"scale_range": [0.5, 0.5], "interpolation_pair": {"downscale": 3, "upscale": 1}}),
]
NEEDS: dict[str, dict[str, Any]] = {
    "CenterCrop": {"height": 120, "width": 130},
    "Crop": {"x_max": 130, "y_max": 120},
    "CropNonEmptyMaskIfExists": {"height": 120, "width": 130},
    "GridElasticDeform": {"num_grid_xy": [4, 4], "magnitude": 3},
    "PadIfNeeded": {"min_height": 210, "min_width": 211},
    "RandomCrop": {"height": 120, "width": 130},
}
ERASING = {"CoarseDropout", "Erasing", "GridDropout", "MaskDropout", "PixelDropout", "RandomGridShuffle", "XYMasking"}
ERASING |= {"FrequencyMasking", "TimeMasking"}  # discs lose parts, or are cut apart


def moving() -> list[tuple[str, dict[str, Any]]]:
    """Return each registered transform of image and masks that is not tried by name, so that a new one is tried."""
    named = {name for name, _ in SCALINGS} | ERASING
    found = []
    for name in set(transforms.names()) - named:
        cls = getattr(albumentations, name)
        if issubclass(cls, albumentations.DualTransform):
            fill = {"fill": DARK} if "fill" in inspect.signature(cls).parameters else {}
            found.append((name, {**NEEDS.get(name, {}), **fill}))
    return sorted(found)


def pipeline(*named: tuple[str, dict[str, Any]], exclusive: bool = False) -> Pipeline:
    components = []
    for name, values in named:
        cls = getattr(albumentations, name)
        fill = {"fill": DARK} if name in ("Affine", "CropAndPad") else {}
        values = {**values, **({"p": 1} if "p" in inspect.signature(cls).parameters else {}), **fill}
        components.append(transforms.component(name, values))
    return Pipeline(components, exclusive=exclusive)


def discs(size: tuple[int, int], radius: float, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a grey image of discs, by area, and its mask: more than half of a pixel."""
    fine, pitch = 8, int(2 * radius) + 8
    rows, columns = size[0] // pitch, size[1] // pitch
    cover = np.zeros(size)
    window = (np.arange(pitch * fine) + 0.5) / fine - pitch / 2
    for y, x in np.ndindex(rows, columns):
        shift = rng.uniform(-1, 1, 2)
        inside = (window[:, None] - shift[0]) ** 2 + (window - shift[1]) ** 2 <= radius**2
        part = inside.reshape(pitch, fine, pitch, fine).mean(axis=(1, 3))
        cover[y * pitch : (y + 1) * pitch, x * pitch : (x + 1) * pitch] = part
    return np.round(DARK + (BRIGHT - DARK) * cover).astype(np.uint8), (cover >= 0.5).astype(np.uint8)


def displacements(image: NDArray[Any], mask: NDArray[Any]) -> list[tuple[float, float]]:
    """Return the mask's centre of mass less the image's of each whole disc, (rows, columns)."""
    grey = (image.astype(float) - DARK).clip(0)
    count, parts, boxes, _ = cv2.connectedComponentsWithStats(((grey > 4) | (mask > 0)).astype(np.uint8))
    found = []
    for part in range(1, count):
        x, y, width, height, _ = boxes[part]
        if x and y and x + width < mask.shape[1] and y + height < mask.shape[0]:
            here = (slice(y, y + height), slice(x, x + width))
            only = parts[here] == part
            if (mask[here] * only).sum() < 40:  # a remnant at the picture's old border
                continue
            both = [centre(weights[here] * only) for weights in (mask, grey)]
            found.append((both[0][0] - both[1][0], both[0][1] - both[1][1]))
    return found


def centre(weights: NDArray[Any]) -> tuple[float, float]:
    whole = weights.sum()
    rows, columns = (np.arange(side) for side in weights.shape)
    return float(weights.sum(axis=1) @ rows / whole), float(weights.sum(axis=0) @ columns / whole)


@pytest.fixture(scope="module")
def pictures() -> list[tuple[NDArray[Any], NDArray[Any]]]:
    rng = np.random.default_rng(0)
    return [discs(size, radius, rng) for size in SIZES for radius in (9.0, 12.3, 16.6)]


def mean_displacement(
    steps: Pipeline, pictures: list[tuple[NDArray[Any], NDArray[Any]]], draws: int
) -> tuple[NDArray[Any], int]:
    found: list[tuple[float, float]] = []
    for number, (image, mask) in enumerate(pictures):
        for draw in range(draws):
            found += displacements(*steps(image, mask, (draw, 0, number)))
    return np.mean(found, axis=0), len(found)


@pytest.mark.parametrize(
    ("name", "values"),
    [  # the one that takes ten seconds is slow
        pytest.param(*case, marks=pytest.mark.slow) if case[0] == "PiecewiseAffine" else case
        for case in [*SCALINGS, *moving()]
    ],
    ids=str,
)
def test_masks_stay_with_their_image(name: str, values: dict[str, Any], pictures: Any) -> None:
    moved, count = mean_displacement(pipeline((name, values)), pictures, 3)
    assert count >= 200
    assert np.abs(moved).max() < BOUND


MOVING = [
    ("Resize", {"height": 59, "width": 64}),
    ("Resize", {"height": 225, "width": 220, "interpolation": cv2.INTER_AREA}),
    ("RandomResizedCrop", {"size": [100, 91], "scale": [0.7, 1.0]}),
    ("CropAndPad", {"px": [-4, 30, -2, 13]}),
    ("Affine", {"scale": [0.6, 1.2], "rotate": [-90, 90], "shear": [-10, 10]}),
    *[(name, {"fill": DARK}) for name in ("ElasticTransform", "GridDistortion", "Perspective", "Rotate")],
]


@pytest.mark.parametrize("kind", [Kind(2), Kind(5), Kind(1, "float32"), Kind(3, "float32")], ids=str)
@pytest.mark.parametrize(("name", "values"), MOVING, ids=str)
def test_masks_stay_with_images_of_every_kind(name: str, values: dict[str, Any], kind: Kind, pictures: Any) -> None:
    steps, found = pipeline((name, values)), []
    assert unfit([transforms.component(name, values)], kind) == []
    for number, (image, mask) in enumerate(pictures):
        given = np.stack([image] * kind.inputs, axis=-1) if kind.inputs > 1 else image
        moved, masks = steps(given.astype(kind.dtype), mask, (0, 0, number))
        assert np.array_equal(masks, steps(image, mask, (0, 0, number))[1])
        found += displacements(moved if kind.inputs == 1 else moved[..., -1], masks)
    assert len(found) >= 60
    assert np.abs(np.mean(found, axis=0)).max() < BOUND


def test_masks_stay_with_their_image_through_several_in_a_row(pictures: Any) -> None:
    several = pipeline(
        ("LongestMaxSize", {"max_size": 150}),
        ("OneOf", {"transforms": [{"RandomScale": {"scale_limit": [-0.2, -0.1]}}, {"Rotate": {"fill": DARK}}]}),
        ("Affine", {"scale": [0.8, 1.1], "rotate": [-20, 20]}),
    )
    moved, count = mean_displacement(several, pictures, 2)
    assert count >= 200
    assert np.abs(moved).max() < BOUND


@pytest.mark.parametrize(("name", "values"), [*SCALINGS, ("Rotate", {"limit": 90}), ("D4", {})], ids=str)
def test_images_are_what_albumentations_makes_of_them(name: str, values: dict[str, Any], pictures: Any) -> None:
    ours = pipeline((name, values))
    theirs = transforms.build(name, {**values, "p": 1, **({"fill": DARK} if name in ("Affine", "CropAndPad") else {})})
    image, mask = pictures[0]
    for draw in range(3):
        ours.reseed((draw, 0, 0))
        theirs.set_random_state(ours._generator, ours._random)
        expected = theirs(image=image.copy(), mask=mask.copy())["image"]
        assert np.array_equal(ours(image, mask, (draw, 0, 0))[0], expected)


def regions(size: tuple[int, int]) -> NDArray[Any]:
    """Return three classes that fill all: sectors around a point off the middle."""
    y, x = np.mgrid[: size[0], : size[1]]
    angle = np.arctan2(y - size[0] * 0.45, x - size[1] * 0.55)
    return np.asarray(np.digitize(angle, [-1.2, 1.1]))


SHRINKING = [step for step in SCALINGS if step[0] in ("Resize", "RandomScale", "RandomResizedCrop", "RandomSizedCrop")]


@pytest.mark.parametrize(("name", "values"), SHRINKING, ids=str)
def test_neighbouring_classes_stay_without_gap_or_overlap(name: str, values: dict[str, Any]) -> None:
    for size in SIZES:
        bits = (1 << regions(size)).astype(np.uint8)
        for exclusive in (True, False):
            _, done = pipeline((name, values), exclusive=exclusive)(np.zeros(size, np.uint8), bits, (0, 0, 1))
            assert set(np.unique(done)) <= {0, 1, 2, 4}
            gaps = int((done == 0).sum())
            assert gaps <= (0 if exclusive else 2)  # independent: where three meet, none may have half


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_nested_channels_stay_nested_and_each_is_half_covered(kind: Any) -> None:
    y, x = np.mgrid[:161, :173]
    inner, outer = np.hypot(y - 80.3, x - 85.1) < 30, np.hypot(y - 78.1, x - 86.4) < 41
    other = np.hypot(y - 60, x - 120) < 33
    third = 4 if kind == np.uint8 else 256
    bits = (outer + inner * 2 + other * third).astype(kind)
    size = (53, 61)
    done = pipeline(("Resize", {"height": size[0], "width": size[1]}))(np.zeros(bits.shape, np.uint8), bits)[1]
    assert set(np.unique(done)) <= {0, *np.unique(bits)}
    for mask, bit in ((outer, 1), (inner, 2), (other, third)):
        covered = cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
        wrong = ((done & bit > 0) != (covered > 0.5)) & (np.abs(covered - 0.5) > 0.12)
        assert not wrong.any()


def test_halving_is_exact_and_keeps_the_area() -> None:
    bits = np.zeros((40, 48), np.uint8)
    bits[7:22, 5:30] = 1
    done = pipeline(("Resize", {"height": 20, "width": 24}))(bits, bits)[1]
    assert (done[4:11, 3:15] == 1).all()  # wholly covered
    assert done[:3].sum() == done[11:].sum() == done[:, :2].sum() == done[:, 15:].sum() == 0
    assert abs(int(done.sum()) * 4 - int(bits.sum())) <= 12
    assert 0 < done[3, 3:15].sum() < 12  # an edge through the middle of pixels: every other one


def test_a_structure_at_the_border_reaches_the_border() -> None:
    bits = np.ones((20, 24), np.uint8)
    for size in ((80, 99), (10, 12), (7, 9), (50, 10)):
        assert pipeline(("Resize", {"height": size[0], "width": size[1]}))(bits, bits)[1].all()


def test_a_perfect_prediction_at_lower_resolution_keeps_thin_walls() -> None:
    cases = datasets.build("phantom", {"patients": 6, "slices": 24}).cases
    for size, least in ((128, 0.88), (96, 0.87)):  # by nearest neighbour 0.87 and 0.75
        steps, dices = pipeline(("LongestMaxSize", {"max_size": size})), []
        for case in cases:
            wall = case.masks[0].astype(bool)
            if wall.any():
                small = steps(np.zeros(wall.shape, np.uint8), pack_masks(case.masks))[1] & 1
                planes = torch.from_numpy(small.astype(np.float32))[None, None]
                large = torch.nn.functional.interpolate(planes, size=wall.shape, mode="bilinear", align_corners=False)
                found = large[0, 0].numpy() >= 0.5
                dices.append(2 * (found & wall).sum() / (found.sum() + wall.sum()))
        assert np.mean(dices) > least


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_what_does_not_resample_moves_bits_exactly(kind: Any) -> None:
    bits = np.random.default_rng(0).integers(0, 200, (50, 64)).astype(kind)
    image = bits.astype(np.uint8)
    for step in (("D4", {}), ("RandomCrop", {"height": 30, "width": 20}), ("Transpose", {}), ("RandomRotate90", {})):
        for draw in range(4):
            moved, done = pipeline(step)(image, bits, (draw, 0, 0))
            assert np.array_equal(moved, done)
    same = ("Resize", {"height": 50, "width": 64})
    assert np.array_equal(pipeline(same)(image, bits)[1], bits)


@pytest.mark.parametrize(
    ("name", "values"),
    [("OpticalDistortion", {}), ("GridDistortion", {}), ("Rotate", {"limit": 1}), ("Affine", {"rotate": [-1, 1]})],
    ids=str,
)
def test_single_structures_stay_with_their_image(name: str, values: dict[str, Any], pictures: Any) -> None:
    steps, found = pipeline((name, {**values, "fill": DARK})), []
    for number, (image, mask) in enumerate(pictures):
        found += displacements(*steps(image, mask, (1, 0, number)))
    assert np.hypot(*np.transpose(found)).mean() < 0.15 + 0.05  # what a disc of whole pixels has of itself


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("operation", ["dilation", "erosion"])
def test_morphology_acts_on_each_channel(operation: str, kind: Any) -> None:
    last = 4 if kind == np.uint8 else 256
    bits = np.zeros((60, 70), kind)
    bits[10:40, 10:40] = 1
    bits[20:30, 20:30] = 3  # inside the first
    bits[10:40, 40:60] = last  # beside it
    step = ("Morphological", {"scale": [3, 3], "operation": operation})
    done = pipeline(step)(np.zeros(bits.shape, np.uint8), bits)[1]
    change = getattr(cv2, {"dilation": "dilate", "erosion": "erode"}[operation])
    assert set(np.unique(done)) == {0, 1, 3, last}
    for bit in (1, 2, last):
        expected = change((bits & bit > 0).astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3)))
        wrong = (done & bit > 0) != (expected > 0)
        assert not wrong[:, :38].any()
        assert not wrong[:, 42:].any()
    assert (done[12:38, 39] != last).all()  # neighbours do not eat each other
