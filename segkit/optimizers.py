"""Optimizers."""

from __future__ import annotations

from segkit.registry import Registry

optimizers = Registry("optimizer", "optimizers", handed=("parameters",), called=False)
