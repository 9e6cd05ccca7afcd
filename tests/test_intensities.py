"""Intensities: each input by itself, in the field's numbers, against naive references; wrong ones are named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from segkit import UserError, intensities
from segkit.components.intensities import scaled
from segkit.data.samples import to_uint8
from segkit.plugins import isolated
from segkit.recipe.model import Recipe
from segkit.registry.faults import ComponentError
from segkit.testing import check

SHAPES = [(60, 50), (1, 60, 50), (3, 60, 50), (1, 5, 20, 30), (2, 5, 20, 30)]
KINDS = [np.uint8, np.uint16, np.int16, np.float32]
EVERY: list[tuple[str, dict[str, Any]]] = [
    ("percentile", {}),
    ("percentile", {"low": 2.0, "high": 98.0}),
    ("percentile", {"bits": 32}),
    ("window", {"low": -160.0, "high": 240.0}),
    ("window", {"low": -160.0, "high": 240.0, "bits": 32}),
    ("zscore", {}),
    ("zscore", {"foreground": True}),
    ("minmax", {}),
    ("minmax", {"bits": 32}),
    ("none", {}),
]


def run(image: NDArray[Any], name: str, **values: Any) -> NDArray[Any]:
    return scaled(intensities.component(name, values), image)


def picture(shape: tuple[int, ...], kind: Any, seed: int = 0) -> NDArray[Any]:
    """Return noise with hot pixels, each input brighter than the one before."""
    random = np.random.default_rng(seed)
    values = random.normal(120, 30, shape)
    values[..., 0, 0] = 250
    if kind != np.uint8:
        values = values * 7 - 300 * (kind != np.uint16)
    if len(shape) > 2:
        values += 3 * np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return values.clip(0 if kind in (np.uint8, np.uint16) else -1000).astype(kind)


def linear(image: NDArray[Any], low: float, high: float, top: float) -> NDArray[Any]:
    """Return the reference, in float64."""
    span = high - low
    return np.clip((image.astype(float) - low) / span * top if span > 0 else np.zeros(image.shape), 0, top)


@pytest.mark.parametrize(("name", "values"), EVERY, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shape_stays_and_inputs_are_scaled_by_themselves(
    shape: tuple[int, ...], kind: Any, name: str, values: dict[str, Any]
) -> None:
    image = picture(shape, kind)
    before = image.copy()
    found = run(image, name, **values)
    assert found.shape == shape
    eight = values.get("bits", 8) == 8 and name not in ("zscore", "none")
    assert found.dtype == (np.uint8 if eight or (name == "none" and kind == np.uint8) else np.float32)
    assert np.isfinite(found).all()
    assert np.array_equal(image, before)
    assert image.flags.writeable
    if len(shape) > 2:
        for number in range(shape[0]):
            assert np.array_equal(run(image[number : number + 1], name, **values)[0], found[number])
    assert np.array_equal(run(np.asfortranarray(image), name, **values), found)


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("seed", range(5))
def test_the_default_gives_the_bytes_of_before(kind: Any, seed: int) -> None:
    image = picture((70, 60), kind, seed)
    values = image.astype(np.float64)  # the formula of segkit 0.1, word for word
    low, high = float(values.min()), float(np.percentile(values, 99.9))
    expected = np.floor(np.clip((values - low) * (255.0 / (high - low)), 0, 255) + 0.5).astype(np.uint8)
    assert np.array_equal(run(image, "percentile"), expected)
    assert np.array_equal(to_uint8(image), expected)
    assert Recipe().intensity == intensities.component("percentile")


def test_a_volume_is_scaled_as_a_whole() -> None:
    volume = np.zeros((1, 2, 10, 10), np.uint16)
    volume[0, 1] = 1000
    assert not run(volume, "percentile")[0, 0].any()
    assert (run(volume, "percentile")[0, 1] == 255).all()


def test_eight_bits_stay_as_they_are_unless_the_recipe_says_otherwise() -> None:
    image = np.arange(50, 150, dtype=np.uint8).reshape(10, 10)
    assert np.array_equal(run(image, "percentile"), image)
    assert np.array_equal(run(image, "none"), image)
    assert np.array_equal(run(image, "percentile", bits=32), (image / 255).astype(np.float32))
    assert np.array_equal(run(image, "minmax"), np.floor(linear(image, 50, 149, 255) + 0.5))


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.float32])
def test_ranges_against_a_reference(kind: Any) -> None:
    image = picture((40, 30), kind)
    ranges: list[tuple[str, dict[str, Any], float, float]] = [
        ("percentile", {"low": 5.0, "high": 90.0}, *np.percentile(image.astype(float), (5, 90))),
        ("window", {"low": 100.0, "high": 1400.0}, 100.0, 1400.0),
        ("minmax", {}, float(image.min()), float(image.max())),
    ]
    for name, values, low, high in ranges:
        assert np.abs(run(image, name, **values) - linear(image, low, high, 255)).max() <= 0.5 + 1e-9
        full = run(image, name, **values, bits=32)
        assert np.abs(full - linear(image, low, high, 1)).max() < 1e-7
        assert len(np.unique(full)) > 256, "more levels than 8 bits hold"


def test_a_window_is_in_the_units_of_the_image() -> None:
    hounsfield = np.array([[-1000, -160, 41, 240, 3000]], np.int16)
    assert run(hounsfield, "window", low=-160.0, high=240.0).tolist() == [[0, 0, 128, 255, 255]]
    assert run(hounsfield, "window", low=-160.0, high=240.0, bits=32).tolist() == [[0, 0, np.float32(0.5025), 1, 1]]


@pytest.mark.parametrize("kind", KINDS)
def test_zscore_has_mean_0_and_deviation_1(kind: Any) -> None:
    image = picture((2, 4, 30, 40), kind)
    found = run(image, "zscore").astype(float)
    for number in range(2):
        assert found[number].mean() == pytest.approx(0, abs=1e-6)
        assert found[number].std() == pytest.approx(1, abs=1e-6)
    assert intensities["zscore"].traits["standardized"]
    assert [entry.name for entry in intensities if entry.traits["standardized"]] == ["zscore"]


@pytest.mark.parametrize("background", [0, -1024])
def test_zscore_of_the_foreground_leaves_the_background_out(background: int) -> None:
    image = np.full((40, 40), background, np.int16)
    image[10:30, 10:30] = np.random.default_rng(0).integers(200, 900, (20, 20))
    found = run(image, "zscore", foreground=True).astype(float)
    assert found[10:30, 10:30].mean() == pytest.approx(0, abs=1e-6)
    assert found[10:30, 10:30].std() == pytest.approx(1, abs=1e-6)
    inside = image[10:30, 10:30].astype(float)
    assert found[0, 0] == pytest.approx((background - inside.mean()) / inside.std(), rel=1e-6)


@pytest.mark.parametrize(("name", "values"), EVERY, ids=str)
def test_images_of_a_single_value(name: str, values: dict[str, Any]) -> None:
    for kind in KINDS:
        found = run(np.full((8, 8), 100, kind), name, **values)
        assert len(np.unique(found)) == 1
        if name == "zscore" or (kind != np.uint8 and name == "percentile") or name == "minmax":
            assert not found.any()


def test_structures_rarer_than_the_percentiles_are_seen() -> None:
    dot = np.zeros((100, 100), np.float32)
    dot[3, 4] = 0.5
    assert run(dot, "percentile")[3, 4] == 255
    dark = -dot
    assert run(dark, "percentile", low=1.0)[3, 4] == 0
    assert run(dark, "percentile", low=1.0)[0, 0] == 255


def test_extreme_values_stay_finite() -> None:
    top = np.finfo(np.float32).max
    image = np.array([[-top, 0, top]], np.float32)
    for name, values in EVERY:
        assert np.isfinite(run(image, name, **values)).all(), name


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"window": {"low": 240.0, "high": -160.0}},
            "intensity.window: low must be below high, got low = 240 and high",
        ),
        ({"window": {"low": 1.0, "high": 1.0}}, "intensity.window: low must be below high"),
        ({"window": {"low": 1.0}}, "intensity.window.high: this parameter is required"),
        ("window", "intensity.window.low: this parameter is required"),
        ({"percentile": {"low": 99.95}}, "intensity.percentile: low must be below high, got low = 99.95"),
        ({"percentile": {"high": 101.0}}, "intensity.percentile.high: must be 100 or less"),
        ({"minmax": {"bits": 16}}, "intensity.minmax.bits: must be 8 or 32, got 16"),
        ("z_scores", "no such intensity. Did you mean 'zscore'"),
        ({"zscore": {}, "minmax": {}}, "intensity: must be one intensity.*got 2 names"),
    ],
)
def test_what_a_recipe_cannot_say(value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Recipe.from_dict({"intensity": value})


def test_the_mistake_has_its_line(tmp_path: Path) -> None:
    (tmp_path / "ct.toml").write_text('data = "phantom"\n\n[intensity.window]\nlow = 5.0\nhigh = 4.0\n')
    with pytest.raises(UserError, match=r"ct\.toml:3: intensity\.window: low must be below high"):
        Recipe.load(tmp_path / "ct.toml")


def turned(image: Any) -> Any:
    """Swaps rows and columns."""
    return image.swapaxes(-1, -2)


def doubles(image: Any) -> Any:
    """Gives float64."""
    return image.astype(float)


def divides(image: Any) -> Any:
    """Divides by a range that may be empty."""
    with np.errstate(all="ignore"):
        return ((image - image.min()) / (image.max() - image.min())).astype(np.float32)


def writes(image: Any) -> Any:
    """Clears the first row."""
    image[..., 0, :] = 0
    return image.astype(np.float32)


def forgets(image: Any) -> Any:
    """Returns nothing."""


class Running:
    """Remembers the largest value of the cases so far."""

    def __init__(self) -> None:
        self.most = 1.0

    def __call__(self, image: Any) -> Any:
        self.most = max(self.most, float(image.max()))
        return (image / self.most).astype(np.float32)


def chance(image: Any) -> Any:
    """Adds noise."""
    return (image + np.random.standard_normal(image.shape)).astype(np.float32)


WRONG: list[tuple[Any, str]] = [
    (turned, r"must return an array of the image's shape, \(1, 48, 40\), got \(1, 40, 48\)"),
    (doubles, "must return uint8 or float32, got float64"),
    (divides, "called with an image of a single value: it returned values that are not finite"),
    (writes, "read-only"),
    (forgets, r"must return an array of the image's shape, \(1, 48, 40\), got NoneType"),
    (Running, "the same image gives different results"),
    (chance, "draws from numpy's global random generator"),
]


@pytest.mark.parametrize(("factory", "message"), WRONG, ids=lambda value: getattr(value, "__name__", ""))
def test_a_plugin_that_breaks_the_contract_is_found_out(factory: Any, message: str) -> None:
    with isolated():
        intensities.register("wrong")(factory)
        faults = [str(finding) for finding in check(intensities["wrong"]) if finding.kind == "fault"]
    assert any(re.search(message, fault) for fault in faults), faults
    assert all("test_intensities.py:" in fault for fault in faults)


def test_one_that_claims_to_standardize_must() -> None:
    with isolated():
        intensities.register("wrong", standardized=True)(lambda image: image.astype(np.uint8))
        faults = [str(finding) for finding in check(intensities["wrong"])]
    assert any("`standardized=True`" in fault for fault in faults)


def test_a_failing_plugin_is_named_where_it_is_used() -> None:
    with isolated():
        intensities.register("wrong")(writes)
        image = np.ones((4, 5), np.uint16)
        with pytest.raises(
            ComponentError, match=r"intensity\.wrong \(.*test_intensities.py:\d+\): ValueError: .*read-only"
        ):
            run(image, "wrong")
        assert image.all()
