"""What `register` may say of a component, and what a registry offers beside its components."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import segkit
from segkit.components.metrics import best_value, direction, hard
from segkit.errors import RegistrationError, UserError
from segkit.registry.registry import Registry
from tests import small


def nothing(prediction: Any, truth: Any, spacing_mm: Any) -> float:
    return 0.0


@pytest.mark.parametrize(
    "registry, traits, message",
    [
        (
            segkit.losses,
            {"final_only": True},
            r"test_registry.py:\d+: a loss has no trait 'final_only'. .*exclusive_only",
        ),
        (segkit.models, {"lower_is_better": True}, r"a model has no trait 'lower_is_better'. None are known"),
        (segkit.metrics, {"uses": "logits"}, r"uses must be 'mask' or 'probability', got 'logits'"),
        (segkit.metrics, {"final_only": 1}, r"final_only must be True or False, got 1"),
        (segkit.metrics, {"best": "1"}, r"best must be a number, got '1'"),
    ],
)
def test_a_trait_that_the_slot_does_not_have_is_refused(
    registry: Registry, traits: dict[str, Any], message: str
) -> None:
    with pytest.raises(RegistrationError, match=message):
        registry.register("never_registered", **traits)(nothing)
    assert "never_registered" not in registry


def test_names_that_are_one_in_a_recipe_are_refused() -> None:
    def two(logits: Any, target: Any, *, a: int = 1, a_: int = 2) -> float:
        return 0.0

    def factor(logits: Any, target: Any, *, weight_: float = 1.0) -> float:
        return 0.0

    for loss, message in ((two, r"two parameters are called 'a' in a recipe"), (factor, "parameter 'weight' is taken")):
        with pytest.raises(RegistrationError, match=message):
            segkit.losses.register("never_registered")(loss)
        assert "never_registered" not in segkit.losses


def test_values_that_do_not_go_together_are_refused_when_a_recipe_is_read() -> None:
    def reversed_range(low: float, high: float) -> str | None:
        return f"low is {low}, high only {high / (low - 1)}" if low > high else None

    def clamp(logits: Any, target: Any, *, low: float = 0.0, high: float = 1.0) -> float:
        return 0.0

    before = segkit.losses.snapshot()
    try:
        segkit.losses.register("clamp", conflict=reversed_range)(clamp)
        assert segkit.losses.component("clamp", {"low": 0.5}).arguments == {"low": 0.5, "high": 1.0}
        with pytest.raises(UserError, match=r"^--set loss\.clamp=.*: loss\.clamp: low is 2\.0, high only 1\.0$"):
            small.recipe("loss.clamp={ low = 2.0 }")
        with pytest.raises(UserError, match=r"loss\.clamp .*test_registry\.py:\d+\): ZeroDivisionError"):
            small.recipe("loss.clamp={ low = 1.0, high = 0.5 }")
    finally:
        segkit.losses.restore(before)


def test_traits_of_built_in_metrics() -> None:
    assert {name: best_value(name) for name in ("dice", "hd95", "nobody")} == {"dice": 1.0, "hd95": 0.0, "nobody": None}
    assert (direction("dice"), direction("assd"), direction("nobody")) == (1, -1, None)


@pytest.mark.parametrize("marked_first", [True, False])
def test_a_mark_of_former_plugins_is_the_trait(marked_first: bool) -> None:
    def error_rate(prediction: Any, truth: Any, spacing_mm: Any) -> float:
        return 0.0

    before = segkit.metrics.snapshot()
    decorators = [segkit.metrics.lower_is_better, segkit.metrics.register("error_rate", best=0.0)]
    try:
        for decorate in decorators if marked_first else decorators[::-1]:
            assert decorate(error_rate) is error_rate
        assert (direction("error_rate"), best_value("error_rate")) == (-1, 0.0)
    finally:
        segkit.metrics.restore(before)


def test_what_a_slot_offers_can_be_had_by_attribute() -> None:
    found: Callable[..., Any] = segkit.losses.dice
    assert found is segkit.losses["dice"].factory
    assert segkit.metrics.hard is hard
    assert segkit.models.unet is segkit.models["unet"].factory
    with pytest.raises(AttributeError, match=r"segkit.losses has no attribute 'dyce'"):
        _ = segkit.losses.dyce
    with pytest.raises(AttributeError, match="no attribute 'annotations'"):
        _ = segkit.losses.annotations
