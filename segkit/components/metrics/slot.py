"""The registry of metrics, and what it knows of each by its name; a module below those of the metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from segkit.registry.registry import Registry
from segkit.registry.slot import Function

F = TypeVar("F", bound=Callable[..., Any])

metrics = Registry(
    "metric",
    "metrics",
    home="segkit.components.metrics",
    handed=("prediction", "truth", "spacing_mm"),
    called=True,
    traits={
        "final_only": bool,
        "lower_is_better": bool,
        "descriptive": bool,
        "uses": ("mask", "probability"),
        "best": float,
        "unit": ("", "mm", "ml"),
        "of_counts": Function,  # the same value of the counts and the spacing of a case, on whatever device they are
    },
)


def lower_is_better(metric: F) -> F:
    """Mark a metric, as plugins of segkit 0.1 do; `register("name", lower_is_better=True)` is the same."""
    metric.lower_is_better = True  # type: ignore[attr-defined]
    return metric


def direction(name: str) -> int | None:
    """Return 1 if larger values of the named metric are better, -1 if smaller ones are.

    None if neither is (a descriptive metric), and for an unknown name.
    """
    if name not in metrics or metrics[name].traits["descriptive"]:
        return None
    entry = metrics[name]
    return -1 if entry.traits["lower_is_better"] or getattr(entry.factory, "lower_is_better", False) else 1


def best_value(name: str) -> float | None:
    """Return the value of the named metric for a structure that is correctly left empty, None if it declares none.

    A study gives it to variants that leave such a case empty, so that they beat those that mark something there.
    """
    return metrics[name].traits["best"] if name in metrics else None


def unit(name: str) -> str:
    """Return the unit of the named metric: "mm", "ml", or "" for a number without one and for an unknown name."""
    return str(metrics[name].traits["unit"]) if name in metrics else ""


def as_number(value: Any) -> float:
    """Return a metric's result as a float.

    Raises:
        ValueError: it is not a number of Python, numpy or torch; the message says what it is.
    """
    try:
        plain = value.item() if hasattr(value, "item") else value
        if not isinstance(plain, str | bytes | bytearray):
            return float(plain)
    except (TypeError, ValueError, RuntimeError):
        pass
    if value is None:
        raise ValueError("must return a number, got None: is a `return` missing?")
    shape = f" of shape {tuple(value.shape)}" if getattr(value, "shape", ()) else ""
    raise ValueError(f"must return a number, got {type(value).__name__}{shape}: use `float(...)`.")
