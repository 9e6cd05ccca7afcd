"""Which transforms take what: several inputs, colour, float images; the others are refused, and say what would do."""

from __future__ import annotations

import random
import re
from typing import Any

import albumentations
import numpy as np
import pytest
from numpy.typing import NDArray

from segkit import transforms
from segkit.data.fitting import Kind, example, unfit
from segkit.data.pipeline import Pipeline
from segkit.plugins import isolated
from segkit.registry.component import Component
from tests.test_pipeline import NEEDS

UNIT, WIDE = Kind(1, "float32"), Kind(1, "float32", bounded=False)
KINDS = [Kind(2), Kind(3), Kind(5), UNIT, Kind(5, "float32"), WIDE, Kind(2, "float32", bounded=False)]
NAMES = [entry.name for entry in transforms if "transforms" not in entry.fields]
DUAL = [name for name in NAMES if issubclass(getattr(albumentations, name), albumentations.DualTransform)]
PERCENTILE = r'set intensity = "percentile" \(or window, minmax\)'


def component(name: str, **values: Any) -> Component:
    return transforms.component(name, {**NEEDS.get(name, {}), **values})


def mask() -> NDArray[np.uint8]:
    found = np.zeros((64, 64), np.uint8)
    found[20:45, 15:40] = 1
    return found


def smooth(kind: Kind) -> Any:
    """Return an image that no rounding of coordinates to 1/32 of a pixel changes by much."""
    rows, columns = np.mgrid[:64, :64] / 64
    planes = [120 + 60 * np.sin(3 * rows + number) * np.cos(2 * columns) for number in range(kind.inputs)]
    image = np.stack(planes, axis=-1)
    return image.astype(np.uint8) if kind.dtype == "uint8" else (image / 255).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_refused_works_and_what_is_says_why(name: str) -> None:
    chosen = component(name, p=1)
    pipeline = Pipeline([chosen])
    for kind in KINDS:
        image, refused = example(kind), unfit([chosen], kind)
        if refused:
            assert len(refused) == 1
            assert refused[0].startswith(f"transforms.train: {name} takes ")
            continue
        moved, bits = pipeline(image, mask(), (1, 0, 0))
        assert (moved.dtype, moved.shape[2:]) == (image.dtype, image.shape[2:])
        assert moved.shape[:2] == bits.shape
        assert np.isfinite(moved).all()
        assert np.array_equal(pipeline(image, mask(), (1, 0, 0))[0], moved)


def test_grey_8_bit_images_are_taken_by_all_but_colour_transforms() -> None:
    refused = [name for name in NAMES if unfit([component(name)], Kind())]
    assert refused == [entry.name for entry in transforms if entry.traits["colour"]]
    assert len(NAMES) > 90
    assert all(not unfit([component(name)], Kind(3)) for name in NAMES)


@pytest.mark.parametrize("name", sorted(set(DUAL) - {"GridElasticDeform", "PiecewiseAffine"}))
@pytest.mark.parametrize("kind", [Kind(2), Kind(3), Kind(5), Kind(5, "float32")], ids=str)
def test_inputs_move_together_and_borders_are_filled_in_each(name: str, kind: Kind) -> None:
    if unfit([component(name)], kind):
        pytest.skip("Downscale is for 8 bits")
    fill = {"fill": 30} if "fill" in transforms[name].fields else {}
    pipeline, image = Pipeline([component(name, p=1, **fill)]), smooth(kind)
    for draw in range(2):
        moved, bits = pipeline(image, mask(), (draw, 0, 0))
        for number in range(kind.inputs):
            alone, same = pipeline(np.ascontiguousarray(image[..., number]), mask(), (draw, 0, 0))
            assert np.array_equal(bits, same)
            # OpenCV takes coordinates of two inputs to 1/32 of a pixel; where that decides between image and fill, the
            # value is another
            apart = np.abs(moved[..., number] - alone.astype(float)) > (2 if kind.dtype == "uint8" else 1e-5)
            assert apart.mean() <= (0.02 if kind.inputs == 2 else 0), (draw, number)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("CLAHE", UNIT, f"CLAHE takes 8-bit images, and gets float32: {PERCENTILE}, of 8 bits"),
        ("CLAHE", WIDE, f"CLAHE takes 8-bit images, and gets float32: {PERCENTILE}, of 8 bits"),
        ("MedianBlur", UNIT, "MedianBlur takes 8-bit images"),  # it works in 8 bits, and returns float32
        (
            "RandomGamma",
            WIDE,
            f"RandomGamma takes 8 bits, or values from 0 to 1, and gets others: {PERCENTILE}; bits = 32",
        ),
        ("GaussNoise", WIDE, "GaussNoise takes 8 bits, or values from 0 to 1"),
        ("CLAHE", Kind(2), "CLAHE takes images of 1 or 3 inputs, and gets those of 2 inputs: leave it out"),
        ("CLAHE", Kind(2, "float32"), "CLAHE takes images of 1 or 3 inputs, and gets those of 2 inputs"),
        ("HueSaturationValue", Kind(), "HueSaturationValue takes images of 3 inputs, and gets those of 1 input"),
        ("ToSepia", Kind(), "ToSepia takes images of 3 inputs"),  # on grey images it has no effect
        ("ChannelDropout", Kind(), "ChannelDropout takes images of several inputs, and gets those of 1 input"),
        ("RGBShift", Kind(5), "RGBShift takes images of 1 or 2 or 3 inputs, and gets those of 5 inputs"),
    ],
)
def test_what_is_refused_says_what_would_do(name: str, kind: Kind, message: str) -> None:
    (text,) = unfit([component(name, p=1e-9)], kind)
    assert re.fullmatch(rf"transforms\.train: {message}.*\.", text), text


def test_what_is_advised_helps() -> None:
    for name in ("CLAHE", "RandomGamma", "GaussNoise", "MedianBlur"):
        assert unfit([component(name)], WIDE)
        assert unfit([component(name)], Kind()) == []
    assert unfit([component("RandomGamma"), component("GaussNoise")], UNIT) == []


def test_compositions_are_looked_into_and_each_transform_is_named_once() -> None:
    inner = {"Sequential": {"transforms": [{"CLAHE": {"clip_limit": 2.0}}, {"Rotate": {}}]}}
    chosen = [component("OneOf", transforms=[inner, {"Equalize": {}}]), component("CLAHE")]
    assert [text.split()[1] for text in unfit(chosen, UNIT, "transforms.eval")] == ["CLAHE", "Equalize"]
    assert unfit(chosen, UNIT, "transforms.eval")[0].startswith("transforms.eval: CLAHE")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("RandomCrop", {"height": 256, "width": 256}),
        ("CenterCrop", {"height": 256, "width": 256}),
        ("Resize", {"height": 5, "width": 5}),
        ("GridDropout", {"ratio": 1.0}),
        ("CropNonEmptyMaskIfExists", {"height": 8, "width": 8}),
        ("NoOp", {}),
    ],
)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_depends_on_the_data_is_left_to_them(name: str, values: dict[str, Any], kind: Kind) -> None:
    assert unfit([transforms.component(name, values)], kind) == []


def test_no_generator_is_drawn_from() -> None:
    pipeline = Pipeline([component("Rotate"), component("GaussNoise")])
    image, states = example(Kind(3)), (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]
    before = pipeline(image, mask(), (1, 2, 3))[0]
    unfit([component(name) for name in ("Rotate", "GaussNoise", "ElasticTransform", "RandomCrop")], Kind(3))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states  # type: ignore[index]
    assert np.array_equal(pipeline(image, mask(), (1, 2, 3))[0], before)


class Stain(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """What a plugin would bring."""

    def apply(self, img: NDArray[Any], **params: Any) -> NDArray[Any]:
        raise AssertionError("plugins' transforms are not tried")


def test_those_of_plugins_say_themselves_that_they_need_colour() -> None:
    with isolated():
        transforms.register("stain", colour=True)(Stain)
        transforms.register("any")(Stain)
        chosen = [transforms.component("stain"), transforms.component("any")]
        assert unfit(chosen, Kind(3)) == []
        (text,) = unfit(chosen, Kind())
    assert "stain takes images of several inputs, and gets those of 1 input" in text


@pytest.mark.parametrize("kind", [Kind(), *KINDS], ids=str)
def test_examples_are_of_their_kind(kind: Kind) -> None:
    image = example(kind)
    assert image.dtype == kind.dtype
    assert image.shape == ((64, 64) if kind.inputs == 1 else (64, 64, kind.inputs))
    assert bool(image.min() < 0) is not kind.bounded
    assert len(np.unique(image)) > 100
