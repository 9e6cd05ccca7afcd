"""The transform registry: which of Albumentations' are there, and what a recipe may set."""

from __future__ import annotations

from typing import Any

import albumentations
import cv2
import numpy as np
import pytest

from segkit import UserError, transforms


def test_every_transform_for_image_and_mask_is_there() -> None:
    names = set(transforms.names())
    assert {"CLAHE", "Rotate", "RandomCrop", "ElasticTransform", "GaussNoise", "OneOf", "PadIfNeeded"} <= names
    absent = {
        name
        for name, cls in vars(albumentations).items()
        if isinstance(cls, type)
        if issubclass(cls, albumentations.DualTransform | albumentations.ImageOnlyTransform)
    } - names
    why = {
        "the base class": {"DualTransform", "ImageOnlyTransform", "Transform3D"},
        "volumes": {"CenterCrop3D", "CoarseDropout3D", "CubicSymmetry", "Pad3D", "PadIfNeeded3D", "RandomCrop3D"},
        "boxes, labels or other images": {
            *("AtLeastOneBBoxRandomCrop", "BBoxSafeRandomCrop", "RandomCropNearBBox", "RandomSizedBBoxSafeCrop"),
            *("ConstrainedCoarseDropout", "FDA", "HistogramMatching", "Mosaic", "OverlayElements"),
            *("PixelDistributionAdaptation", "TextImage"),
        },
        "another type of image": {"FromFloat", "Normalize", "ToFloat", "ToRGB"},
        "code": {"Lambda"},
    }
    assert absent == set().union(*why.values())
    assert {entry.name for entry in transforms if entry.traits["colour"]} == {
        *("ChannelDropout", "ChannelShuffle", "ChromaticAberration", "HEStain", "HueSaturationValue", "ISONoise"),
        *("PlanckianJitter", "RandomFog", "RandomGravel", "RandomRain", "RandomSnow", "RandomSunFlare", "Spatter"),
        *("ToGray", "ToSepia"),
    }


def test_every_entry_says_what_it_is() -> None:
    assert all(entry.summary and entry.origin == "albumentations" for entry in transforms)


def test_a_clip_limit_is_exactly_that() -> None:
    image = np.random.default_rng(0).integers(0, 255, (60, 72), dtype=np.uint8)
    clahe = transforms.build("CLAHE", {"clip_limit": 2.0, "tile_grid_size": [6, 6], "p": 1})
    expected = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(6, 6)).apply(image)
    for seed in range(3):
        clahe.set_random_seed(seed)
        assert np.array_equal(clahe(image=image)["image"], expected)
    assert transforms.build("CLAHE", {"clip_limit": [1.0, 3.0]}).clip_limit == (1.0, 3.0)
    assert "exactly" in transforms["CLAHE"].doc


def test_padding_to_a_divisor_needs_no_null() -> None:
    pad = transforms.build("PadIfNeeded", {"pad_height_divisor": 16, "min_width": 50})
    assert pad(image=np.zeros((33, 40), np.uint8))["image"].shape == (48, 50)


def test_nested_transforms_are_checked_and_built() -> None:
    one = transforms.build("OneOf", {"transforms": ["HorizontalFlip", {"CLAHE": {"clip_limit": 3.0}}], "p": 1})
    assert isinstance(one, albumentations.OneOf)
    assert one.transforms[1].clip_limit == (3.0, 3.0)
    with pytest.raises(UserError, match=r"OneOf\.transforms\.0\.Flip: no such transform.*Did you mean 'VerticalFlip'"):
        transforms.component("OneOf", {"transforms": ["Flip"]})


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("RandomCrop", {"height": 192}, "width: this parameter is required"),
        ("RandomCrop", {"heigth": 192, "width": 192, "height": 192}, "Did you mean 'height'"),
        ("RandomCrop", {"height": "192", "width": 192}, "must be a whole number"),
        ("RandomCrop", {"height": 0, "width": 192}, "must be 1 or more"),
        ("Rotate", {"limit": 180, "p": 1.5}, "must be 1 or less"),
        ("Rotate", {"always_apply": True}, "always_apply: no such parameter"),
        ("Rotate", {"strict": False}, "strict: no such parameter"),
        ("Rotate", {"mask_interpolation": 1}, "mask_interpolation: must be 0, got 1"),
        ("Rotate", {"fill_mask": 1}, "fill_mask: no such parameter"),
        ("Rotate", {"interpolation": 17}, "interpolation: must be 0, 1, 2, 3 or 4, got 17"),
        ("CoarseDropout", {"fill_mask": 2}, "fill_mask: must be 0, got 2"),
        ("Resize", {"height": 8, "width": 8, "area_for_downscale": "image_mask"}, "area_for_downscale"),
        ("ElasticTransform", {"keypoint_remapping_method": "mask"}, "no such parameter"),
        ("GaussNoise", {"std_range": [0.5, 0.1]}, "std_range"),
        ("Normalize", {}, "no such transform"),
        ("HistogramMatching", {}, "no such transform"),
    ],
)
def test_wrong_values_are_refused(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        transforms.component(name, values)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("CropAndPad", {}, "Both px and percent parameters cannot be None"),
        ("LongestMaxSize", {}, "Either max_size or max_size_hw must be specified"),
        ("Blur", {"blur_limit": [4, 6]}, "must be odd"),
        ("SomeOf", {"transforms": ["HorizontalFlip"], "n": 3}, "greater than number of transforms"),
        ("OneOf", {"transforms": []}, "needs at least one transform"),
    ],
)
def test_what_makes_no_sense_or_would_be_changed_is_refused_when_built(
    name: str, values: dict[str, Any], message: str
) -> None:
    component = transforms.component(name, values)
    with pytest.raises(UserError, match=message):
        component()


def test_zero_is_a_mask_fill_and_nearest_a_mask_interpolation() -> None:
    assert transforms.build("CoarseDropout", {"fill_mask": 0}).fill_mask == 0
    assert transforms.build("CoarseDropout", {}).fill_mask is None
    assert transforms.build("Rotate", {"mask_interpolation": 0}).mask_interpolation == cv2.INTER_NEAREST


def test_the_update_check_is_off() -> None:
    import os

    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"
