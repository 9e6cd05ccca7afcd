"""Datasets."""

from __future__ import annotations

from segkit.registry import Registry

datasets = Registry("data", "datasets", handed=(), called=False)
