"""Metrics."""

from __future__ import annotations

from segkit.registry import Registry

metrics = Registry("metric", "metrics", handed=("prediction", "truth", "spacing_mm"), called=True)
