"""Try an intensity: the same shape, uint8 or finite float32, from one case alone and without writing to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.components.intensities import scaled
from segkit.registry.component import Component
from segkit.testing.report import Report

Image = NDArray[Any]
SHAPES = {"an image": (1, 48, 40), "an image of two inputs": (2, 48, 40), "a volume": (1, 6, 48, 40)}
KINDS = {"uint8": (0, 255), "uint16": (0, 4000), "int16": (-1000, 3000), "float32": (-0.5, 1.5)}  # and their ranges


def examine_intensity(report: Report, component: Component) -> None:
    """Try an intensity; see the module."""
    report.build(component)
    for what, image in _images():
        with report.trying(f"called with {what}", needed=True):
            found = scaled(component, image)
            if report.entry.traits["standardized"] and found.dtype == np.uint8:
                report.fault(
                    f"called with {what} it gives uint8, but `standardized=True` says it has a deviation of 1."
                )
    for what, image in _unusual():
        with report.trying(f"called with {what}"):
            scaled(component, image)
    with report.trying("called again"):
        _depends_on_the_case_alone(report, component)
    with report.trying("called twice"):
        report.check_side_effects(lambda: component.build()(_image(SHAPES["an image"], "uint16")))


def _image(shape: tuple[int, ...], kind: str, seed: int = 0) -> Image:
    """Return a bright box in noise."""
    low, high = KINDS[kind]
    values = np.random.default_rng(seed).uniform(low, low + (high - low) / 2, shape)
    values[..., 10:30, 10:25] += (high - low) / 2
    return values.astype(kind)


def _images() -> Iterator[tuple[str, Image]]:
    for what, shape in SHAPES.items():
        for kind in KINDS:
            yield f"{what} {shape} of {kind}", _image(shape, kind)


def _unusual() -> Iterator[tuple[str, Image]]:
    """Yield a flat image, a dot on black, extreme values, another memory layout."""
    dot = np.zeros(SHAPES["an image"], np.uint16)
    dot[0, 5, 5] = 700
    huge = np.array([[[np.finfo(np.float32).min, 0, np.finfo(np.float32).max]]], np.float32)
    yield "an image of a single value", np.full_like(dot, 700)
    yield "an image that is black but for one pixel", dot
    yield "an image of a single pixel", dot[:, :1, :1]
    yield "the extreme values of float32", huge
    yield "an array of another memory layout", np.asfortranarray(_image(SHAPES["an image"], "int16"))


def _depends_on_the_case_alone(report: Report, component: Component) -> None:
    """The result is the same after other cases, and from another object."""
    image = _image(SHAPES["an image"], "uint16")
    results = [scaled(component, image)]
    scaled(component, _image(SHAPES["a volume"], "uint16", seed=1))
    results.append(scaled(component, image))
    fresh = component.entry.slot.component(component.name, component.dump()[component.name])  # type: ignore[attr-defined]
    results.append(scaled(fresh, image))
    if not all(np.array_equal(results[0], other) for other in results[1:]):
        report.fault("the same image gives different results: it must depend on that case alone, and on no chance.")
