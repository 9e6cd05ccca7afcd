"""Samples: scaling to 8 bits, packing masks, and the way back to floats, against naive references."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segkit import UserError, transforms
from segkit.components.datasets.case import Case
from segkit.data.samples import assemble, to_device_float, to_uint8
from segkit.data.store import pack_masks
from tests.small import samples_of


def case(name: str, size: tuple[int, int] = (48, 40), channels: int = 2, seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    image = rng.integers(100, 4000, size).astype(np.uint16)
    return Case(name, None, image, rng.random((channels, *size)) > 0.6, None)


def test_eight_bits_stay_as_they_are() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert to_uint8(image) is image


@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.int16])
def test_others_are_scaled_from_minimum_to_the_99_9th_percentile(kind: Any) -> None:
    image = np.random.default_rng(0).normal(900, 300, (70, 60)).clip(0, 3000).astype(kind)
    image[0, 0] = 32000  # a hot pixel
    low, high = float(image.min()), np.quantile(image.astype(float), 0.999)
    expected = [[min(max((float(x) - low) / (high - low) * 255, 0.0), 255.0) for x in row] for row in image]
    found = to_uint8(image)
    assert found.dtype == np.uint8
    assert np.abs(found - np.array(expected)).max() <= 0.5 + 1e-9
    assert found.min() == 0
    assert found[0, 0] == 255


def test_flat_and_nearly_flat_images() -> None:
    assert not to_uint8(np.full((8, 8), 700, np.uint16)).any()
    dot = np.zeros((100, 100), np.float32)
    dot[3, 4] = 0.5  # rarer than one pixel in a thousand
    assert to_uint8(dot)[3, 4] == 255


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.array([[0.0, np.nan]], np.float32), "P01: the image contains values that are not finite"),
        (np.zeros((4, 4, 3), np.uint8), r"P01: an image must be \(rows, columns\), one grey channel"),
    ],
)
def test_images_that_cannot_be_used(image: NDArray[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        to_uint8(image, "P01")


@pytest.mark.parametrize("channels", range(1, 17))
def test_masks_survive_packing_and_unpacking(channels: int) -> None:
    masks = np.random.default_rng(channels).random((3, channels, 5, 7)) > 0.5
    bits = np.stack([pack_masks(each) for each in masks])
    assert bits.dtype == (np.uint8 if channels <= 8 else np.uint16)
    image = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    carriers = [bits] if channels <= 8 else [bits, bits.view(np.int16)]
    for carrier in map(torch.from_numpy, carriers):
        normalized, target = to_device_float(image, carrier, [100.0], [50.0], channels)
        assert np.array_equal(target.numpy(), masks.astype(np.float32))
        assert torch.equal(normalized[:, 0], (image.float() - 100.0) / 50.0)
        for tensor in (normalized, target):
            assert tensor.dtype == torch.float32
            assert tensor.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", range(1, 17))
def test_exclusive_targets_begin_with_the_background(channels: int) -> None:
    labels = np.random.default_rng(channels).integers(0, channels + 1, (2, 6, 5))
    masks = np.stack([labels == channel + 1 for channel in range(channels)], axis=1)
    bits = torch.from_numpy(np.stack([pack_masks(each) for each in masks]))
    image = torch.zeros(2, 6, 5, dtype=torch.uint8)
    target = to_device_float(image, bits, [0.0], [1.0], channels, exclusive=True)[1]
    assert np.array_equal(target.numpy(), np.stack([labels == label for label in range(channels + 1)], axis=1))
    assert bool((target.sum(1) == 1).all())


@pytest.mark.parametrize("shape", [(17, 4, 4), (0, 4, 4), (4, 4)])
def test_masks_that_cannot_be_packed(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="P01: masks must be 1 to 16 channels"):
        pack_masks(np.zeros(shape, bool), "P01")


def test_samples_hold_what_the_fixed_transforms_leave() -> None:
    components = [
        transforms.component("CenterCrop", {"height": 32, "width": 24}),
        transforms.component("HorizontalFlip", {"p": 1}),
        transforms.component("RandomCrop", {"height": 16, "width": 16}),
    ]
    cases = [case("a"), case("b", (60, 50), seed=1)]
    samples = samples_of(cases, components)
    assert samples.names == ["a", "b"]
    assert samples.pipeline.names == ("RandomCrop",)
    images, bits = (
        [read(number) for number in samples.numbers] for read in (samples.slices.image, samples.slices.bits)
    )
    assert [image.shape for image in images] == [(32, 24)] * 2
    assert np.array_equal(images[0], to_uint8(np.asarray(cases[0].image))[8:40, 8:32][:, ::-1])
    assert np.array_equal(bits[0], pack_masks(np.asarray(cases[0].masks))[8:40, 8:32][:, ::-1])
    pixels = np.concatenate([image.ravel() for image in images]).astype(float)
    (mean,), (std,) = samples.mean_std()
    assert (mean, std) == pytest.approx((pixels.mean(), pixels.std()), rel=1e-12)


def test_flat_images_have_a_deviation_to_divide_by() -> None:
    flat = Case("flat", None, np.full((8, 8), 7, np.uint8), np.zeros((1, 8, 8), bool), None)
    assert samples_of([flat]).mean_std() == ((7.0,), (1.0,))


def test_a_batch_has_one_size() -> None:
    samples = samples_of([case("a"), case("b", (40, 48))])
    images, bits = assemble(samples, 0, [(1, 0), (2, 0)])
    assert images.shape == bits.shape == (2, 48, 40)
    assert np.array_equal(images[0], samples.slices.image(0))
    with pytest.raises(
        UserError, match=r"b: 40 x 48 pixels .* but a, .* has 48 x 40.*RandomCrop, PadIfNeeded or Resize"
    ):
        assemble(samples, 0, [(1, 0), (1, 1)])
