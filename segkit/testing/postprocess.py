"""Try a postprocess: masks of images and volumes to masks of the same shape, from one case alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from segkit.components.postprocess import applied
from segkit.registry.component import Component
from segkit.registry.faults import described
from segkit.testing.report import Report
from segkit.types import Mask, Spacing

NAMES = ("wall", "cavity")
SHAPES = {"an image": (48, 40), "a volume": (6, 48, 40)}
SPACING = (4.0, 1.25, 0.8)  # of a volume; the last two of an image


def examine_postprocess(report: Report, component: Component) -> None:
    """Try a postprocess; see the module. One that refuses images, or volumes, is tried on the others."""
    report.build(component)
    refusals = {what: _refusal(component, shape) for what, shape in SHAPES.items()}
    if all(refusals.values()):
        refusals = dict.fromkeys(SHAPES, "")  # its own error is the finding
    for what, shape in SHAPES.items():
        if refusals[what]:
            report.note(f"it does not take {what}: {refusals[what]}")
        else:
            _examine(report, component, shape, SPACING[-len(shape) :])


def _refusal(component: Component, shape: tuple[int, ...]) -> str:
    """Return with which ValueError a postprocess refuses such a case; "" for none."""
    try:
        component.build()(_noise(shape), SPACING[-len(shape) :], NAMES)
    except ValueError as error:
        return described(error)
    except Exception:
        return ""  # a fault, which is reported
    return ""


def _examine(report: Report, component: Component, shape: tuple[int, ...], spacing: Spacing) -> None:
    for what, masks in _masks(shape):
        with report.trying(f"called with {what} {masks.shape}", needed=True):
            applied(component, masks, spacing, NAMES)
    with report.trying("called again"):
        _depends_on_the_case_alone(report, component, shape, spacing)
    with report.trying("called twice"):
        report.check_side_effects(lambda: component.build()(_noise(shape), spacing, NAMES))


def _noise(shape: tuple[int, ...], seed: int = 0) -> Mask:
    """Return large and small parts with holes."""
    found: Mask = np.random.default_rng(seed).random((len(NAMES), *shape)) < 0.05
    found[..., 10:30, 10:25] ^= True
    return found


def _masks(shape: tuple[int, ...]) -> Iterator[tuple[str, Mask]]:
    """Yield parts with holes, empty and full masks, few pixels, another memory layout."""
    noise = _noise(shape)
    yield "masks of several parts", noise
    yield "empty masks", np.zeros_like(noise)
    yield "full masks", np.ones_like(noise)
    yield "masks of a single pixel", np.ones((len(NAMES), *(1,) * len(shape)), bool)
    yield "masks of another memory layout", np.asfortranarray(noise)


def _depends_on_the_case_alone(report: Report, component: Component, shape: tuple[int, ...], spacing: Spacing) -> None:
    """The result is the same after other cases, and from another object."""
    masks = _noise(shape)
    results = [applied(component, masks, spacing, NAMES)]
    applied(component, _noise(shape, seed=1), spacing, NAMES)
    results.append(applied(component, masks, spacing, NAMES))
    fresh = component.entry.slot.component(component.name, component.dump()[component.name])  # type: ignore[attr-defined]
    results.append(applied(fresh, masks, spacing, NAMES))
    if not all(np.array_equal(results[0], other) for other in results[1:]):
        report.fault("the same masks give different results: they must depend on that case alone, and on no chance.")
